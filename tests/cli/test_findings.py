"""What counts as a finding is the same everywhere: exit code, JUnit, SARIF, text, pytest, docs.

An assertion in the tested code was exit code 1 and an error in JUnit, because the command line had
a list of its own besides `explore.FINDINGS`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from softsgx.cli.main import main
from softsgx.explore import FINDINGS, Kind
from softsgx.explore.failure import preemptions_text

pytest_plugins = ["pytester"]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "explore.md"

TESTED = """
def careful(value):
    assert value == 1, "careful was told a lie"
"""

# A task of one step that fails in each of the ways; `tested` is the code under test.
WAYS = {
    Kind.VIOLATION: 'raise Violation("rule", "broken")',
    Kind.DEADLOCK: "yield from self.never.wait()",
    Kind.ASSERTION: "tested.careful(2)",
    Kind.SCENARIO: "1 / 0",
    Kind.STEP_BOUND: 'while True: yield ("write", "x", True)',
    Kind.NONDETERMINISM: """
        if next(TIMES) % 2:
            raise Violation("rule", "every other time")""",
}

SCENARIO = """
import sys, itertools
sys.path.insert(0, {path!r})
import tested
from softsgx.explore import Scenario, Violation
from softsgx.sim import Completion

TIMES = itertools.count()

class Wrong(Scenario):
    max_steps = 50

    def start(self, execution):
        self.never = Completion("never")
        execution.spawn(self.body(), "A")

    def body(self):
        yield ("write", "x", True)
        {way}
"""

TEST = """
import sys, itertools
sys.path.insert(0, {path!r})
import tested
import pytest
from softsgx.explore import Violation
from softsgx.sim import Completion

TIMES = itertools.count()

@pytest.mark.explore
def test_wrong(execution):
    class Self:
        never = Completion("never")

    def body(self):
        yield ("write", "x", True)
        {way}

    execution.spawn(body(Self()), "A")
"""


def test_every_kind_is_tried() -> None:
    assert set(WAYS) == set(Kind)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_a_finding_is_the_same_for_all(
    kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tested.py").write_text(TESTED)
    path, xml, log = (tmp_path / name for name in ("wrong.py", "out.xml", "out.sarif"))
    path.write_text(SCENARIO.format(path=str(tmp_path), way=WAYS[kind]))
    finding = kind in FINDINGS

    code = main(["explore", str(path), "--junit", str(xml), "--sarif", str(log)])
    story = capsys.readouterr().out
    assert story.startswith(f"{kind.value.upper()} ")
    assert code == (1 if finding else 2)
    # The table of a schedule is printed only for a finding.
    assert (re.search(r"^ +1 ", story, re.MULTILINE) is not None) == finding

    assert main(["explore", str(path), "--json"]) == code
    told = json.loads(capsys.readouterr().out)[0]["failure"]
    assert (told["kind"], told["finding"]) == (kind.value, finding)
    # Where it is one task that went wrong.
    raised = kind in (Kind.VIOLATION, Kind.ASSERTION, Kind.SCENARIO)
    assert told["task"] == ("a 'A'" if raised else "")
    for said in (told["rule"], told["text"], told["where"], told["replay"]):
        assert said in story, said
    assert f"found after {told['found_after']} executions" in story
    assert f"{preemptions_text(told['preemptions'])}, {told['steps']} steps" in story

    suite = ElementTree.parse(xml).getroot()
    counted = {"failures": str(int(finding)), "errors": str(int(not finding))}
    assert {name: suite.get(name) for name in counted} == counted
    (said,) = suite.iter("failure" if finding else "error")
    assert said.get("type") == kind.value

    (run,) = json.loads(log.read_text())["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is finding
    assert (len(run["results"]), len(invocation["toolExecutionNotifications"])) == (
        (1, 0) if finding else (0, 1)
    )
    (said,) = run["results"] or invocation["toolExecutionNotifications"]
    assert said["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("wrong.py")

    found = re.search(r"--replay '?([^'\s]+)", story)
    assert found is not None
    assert main(["explore", str(path), "--replay", found[1]]) in (0, code)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_a_finding_is_the_same_for_pytest(kind: Kind, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(tested=TESTED)
    way = WAYS[kind]
    bound = 'for _ in range(30_000): yield ("write", "x", True)'
    text = TEST.format(path=str(pytester.path), way=bound if kind is Kind.STEP_BOUND else way)
    pytester.makepyfile(text)
    result = pytester.runpytest_inprocess("-p", "softsgx_pytest", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    report = result.stdout.str()
    assert f"{kind.value.upper()} " in report
    assert ("the test itself is broken" in report) == (kind not in FINDINGS)


def test_an_assert_in_a_task_of_a_test_is_a_finding(pytester: pytest.Pytester) -> None:
    """It was a scenario error, although an assert in what the test returns is a violation."""
    pytester.makepyfile(TEST.format(path=str(pytester.path), way="assert 1 == 2, 'own'"))
    pytester.makepyfile(tested=TESTED)
    result = pytester.runpytest_inprocess("-p", "softsgx_pytest", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    assert "VIOLATION AssertionError: own" in result.stdout.str()
    assert "itself is broken" not in result.stdout.str()


def test_the_table_of_the_manual_says_the_same() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| .* \| ([12]) \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert {name: int(code) for name, code in rows} == {
        kind.value: 1 if kind in FINDINGS else 2 for kind in Kind
    }
