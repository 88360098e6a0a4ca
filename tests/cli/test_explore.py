"""`softsgx explore`: exit codes, replay of the printed command, reports, processes."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from softsgx.cli.main import main

COUNTER = '''
from softsgx.explore import Scenario, Violation

class Counter(Scenario):
    """Two additions that are not atomic."""

    def start(self, execution):
        self.value = 0
        execution.spawn(self.add(), "A")
        execution.spawn(self.add(), "B")

    def add(self):
        yield ("read", "value", False)
        value = self.value
        yield ("write", "value", True)
        self.value = value + 1

    def check(self, execution):
        if self.value != 2:
            raise Violation("lost update", f"value {self.value} after two additions")
'''

CORRECT = """
from softsgx.explore import Scenario

class Correct(Scenario):
    def start(self, execution):
        for name in "AB":
            execution.spawn(self.body(name), name)

    def body(self, name):
        for _ in range(5):
            yield ("write", "x", True)
"""

# Kills the worker that executes it first.
MORTAL = """
import os, signal
from pathlib import Path
from softsgx.explore import Scenario

MARK = Path(__file__).with_suffix(".mark")

class Mortal(Scenario):
    def start(self, execution):
        for name in "AB":
            execution.spawn(self.body(name, execution), name)

    def body(self, name, execution):
        for step in range(5):
            yield ("write", "x", True)
            child = os.environ.get("SOFTSGX_PARENT") != str(os.getpid())
            if child and step == 4 and name == "A" and not MARK.exists():
                MARK.touch()
                os.kill(os.getpid(), signal.SIGKILL)
"""


def written(tmp_path: Path, text: str, name: str = "scenarios.py") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_violation_is_exit_code_1_and_its_replay_shows_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", written(tmp_path, COUNTER)]) == 1
    story = capsys.readouterr().out
    assert story.startswith("VIOLATION lost update: value 1 after two additions\n")
    (line,) = [line for line in story.splitlines() if line.startswith("  replay: ")]
    program, *argv = shlex.split(line.removeprefix("  replay: "))
    assert program == "softsgx"
    assert main(argv) == 1
    replayed = capsys.readouterr().out
    assert replayed.startswith("VIOLATION lost update: value 1 after two additions\n")
    # The same table.
    assert replayed.splitlines()[1:] == story.splitlines()[4:]


def test_a_shipped_scenario_is_replayed_without_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explore", "FirstTouch", "--preemptions", "1", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["failure"]["rule"] == "spurious fault"
    argv = shlex.split(found["failure"]["replay"])[1:]
    assert main(argv) == 1
    assert "reader 1 gets SIGBUS" in capsys.readouterr().out


def test_switches_of_a_shipped_scenario_are_in_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = "FirstTouch,6.12,eaug_double_fault=0"
    assert main(["explore", target, "--preemptions", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: nothing found in ")


def test_what_is_complete_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, CORRECT)
    assert main(["explore", path, "--strategy", "dfs"]) == 0
    assert "252 executions" in capsys.readouterr().out
    assert main(["explore", path, "--executions", "10"]) == 0
    assert "complete: " not in capsys.readouterr().out


def test_reports_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, COUNTER + CORRECT)
    out, log = tmp_path / "out.xml", tmp_path / "out.sarif"
    assert main(["explore", path, "--junit", str(out), "--sarif", str(log)]) == 1
    suite = ElementTree.parse(out).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "lost update"
    (result,) = json.loads(log.read_text())["runs"][0]["results"]
    assert result["ruleId"] == "lost update"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == Path(path).as_uri()
    assert place["region"]["startLine"] == 20


def test_a_report_is_relative_to_the_working_directory_and_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, COUNTER.replace("after two additions", "\\x00 \\x1b ]]> &"), "my file.py")
    assert main(["explore", "my file.py", "--junit", "out.xml", "--sarif", "out.sarif"]) == 1
    ElementTree.parse("out.xml")
    (result,) = json.loads(Path("out.sarif").read_text())["runs"][0]["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "my%20file.py"


def test_a_finding_in_sarif_says_what_it_is_and_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub shows a rule's description, and tells old findings from new ones by fingerprints."""
    monkeypatch.chdir(tmp_path)
    runs = []
    for before in ("", "# A line more.\n"):
        written(tmp_path, before + COUNTER, "counter.py")
        assert main(["explore", "counter.py", "--sarif", "out.sarif"]) == 1
        runs.append(json.loads(Path("out.sarif").read_text())["runs"][0])
    (rule,) = runs[0]["tool"]["driver"]["rules"]
    assert rule["shortDescription"]["text"] == rule["id"] == "lost update"
    assert "lost update" in rule["help"]["text"]
    (first,), (second,) = (run["results"] for run in runs)
    assert first["partialFingerprints"] == second["partialFingerprints"]
    lines = [r["locations"][0]["physicalLocation"]["region"]["startLine"] for r in (first, second)]
    assert lines[1] == lines[0] + 1


def test_a_shipped_scenario_in_sarif_is_relative_to_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explore", "FirstTouch", "--sarif", "out.sarif"]) == 1
    (run,) = json.loads(Path("out.sarif").read_text())["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place["uri"].startswith("softsgx/system/scenarios/")
    assert place["uriBaseId"] in run["originalUriBaseIds"]


@pytest.mark.parametrize("option", ["--junit", "--sarif", "--html"])
def test_a_report_that_cannot_be_written_is_refused_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """It was a traceback after the work, and the outcome was lost."""
    path = written(tmp_path, COUNTER)
    for name, why in (("no/x", "No such file or directory"), (".", "Is a directory")):
        assert main(["explore", path, option, str(tmp_path / name)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == f"softsgx: explore: {tmp_path / name}: {why}\n"
    assert main(["explore", path, option, path]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert "class Counter" in Path(path).read_text()


def test_the_order_of_a_runtime_is_in_the_name_and_in_the_replay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = "TrimReuse,6.12,order=enarx"
    assert main(["explore", target, "--preemptions", "2", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["scenario"] == target
    assert main(shlex.split(found["failure"]["replay"])[1:]) == 1
    assert capsys.readouterr().out.startswith(f"VIOLATION {found['failure']['rule']}: ")


REFUSED = {
    "no file": (["nowhere.py"], "nowhere.py: no such file"),
    "no scenario": (["Nothing"], "Nothing: neither a file nor a scenario"),
    "no target": ([], "TARGET or one of --shipped, --list, --replay, --known-races is needed"),
    "no kernel": (["FirstTouch,5.4"], "kernel 5.4: known are 6.18, 6.12"),
    "no race": (["FirstTouch,6.12,luck=1"], "luck=1: not RACE=0 or RACE=1"),
    "no order": (["TwoProtects,6.12,order=mine"], "order mine: known are intel-emm"),
    "no runtime": (["FirstTouch,6.12,order=enarx"], "order=enarx: not RACE=0 or RACE=1"),
    "no time": (["FirstTouch", "--budget", "soon"], "soon: not a duration such as 60s or 5m"),
    "no worker": (["FirstTouch", "--jobs", "0"], "--jobs: 0: not from 1 to 0xff"),
    "no execution": (
        ["FirstTouch", "--executions", "0"],
        "--executions: 0: not from 1 to 0xffffffff",
    ),
    "one kernel": (["FirstTouch", "--linux", "6.1"], "--linux: only with --shipped"),
    "no bound": (
        ["FirstTouch", "--strategy", "exhaustive", "--preemptions", "2"],
        "--preemptions: only with --strategy deepening or dfs",
    ),
    "all of one": (["FirstTouch", "--shipped"], "TARGET: not with --shipped"),
    "no replay": (["FirstTouch", "--replay", "1:ab"], "not VERSION/SCENARIO/IDENTITY/SCHEDULE"),
    "old replay": (["--replay", "9/FirstTouch,6.12/0/1:a"], "made by softsgx 9"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line_and_exit_code_2(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, reason = REFUSED[name]
    assert main(["explore", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("softsgx: explore: ")
    assert reason in line


def test_a_file_that_cannot_be_read_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explore", written(tmp_path, "\n\nraise ValueError('no')\n")]) == 2
    assert "scenarios.py:3: ValueError: no" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for text in ("import sys; sys.exit(0)", "import nowhere"):
        written(tmp_path, "\n\n" + text)
        assert main(["explore", "scenarios.py"]) == 2
        assert capsys.readouterr().err.startswith("softsgx: explore: scenarios.py:3: ")
    assert main(["explore", written(tmp_path, "x = 1\n")]) == 2
    assert "no class in it derives from Scenario" in capsys.readouterr().err


TWO = """
from softsgx.explore import Scenario

class First(Scenario):
    def __init__(self): raise ValueError("the wrong one")

class Second(Scenario):
    def start(self, execution): execution.spawn(self.idle(), "idle")

    def idle(self):
        yield ("step", "x", True)
"""


def test_one_class_of_a_file_is_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, TWO)
    assert main(["explore", f"{file}::Second"]) == 0
    assert capsys.readouterr().out.startswith("Second: nothing found")
    assert main(["explore", "--list", f"{file}::Second"]) == 0
    assert capsys.readouterr().out.split() == ["Second"]
    assert main(["explore", file]) == 2
    assert "the wrong one" in capsys.readouterr().err
    assert main(["explore", f"{file}::Secnd"]) == 2
    assert "has no scenario Secnd: did you mean Second?" in capsys.readouterr().err
    assert main(["explore", f"{file}::Other"]) == 2
    assert "has no scenario Other: it has First, Second" in capsys.readouterr().err


def test_a_schedule_of_one_class_is_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, COUNTER)
    assert main(["explore", f"{file}::Counter", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    replay = found["failure"]["replay"].split()[-1]
    for target in (file, f"{file}::Counter"):
        assert main(["explore", target, "--replay", replay]) == 1
    assert main(["explore", f"{file}::Other", "--replay", replay]) == 2
    assert "has no scenario Other" in capsys.readouterr().err


def test_trouble_with_a_scenario_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CORRECT.replace('yield ("write", "x", True)', 'yield ("write", "x", True); 1 / 0')
    assert main(["explore", written(tmp_path, text)]) == 2
    assert capsys.readouterr().out.startswith("SCENARIO ERROR ZeroDivisionError")


def explored(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    main(["explore", *argv, "--json"])
    (found,) = json.loads(capsys.readouterr().out)
    del found["seconds"]
    return dict(found)


@pytest.mark.parametrize("strategy", ["deepening", "exhaustive", "random", "guided", "states"])
@pytest.mark.parametrize("text", [COUNTER, CORRECT], ids=["counter", "correct"])
def test_processes_find_what_one_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, strategy: str
) -> None:
    argv = [written(tmp_path, text), "--strategy", strategy, "--executions", "200"]
    assert explored([*argv, "--jobs", "2"], capsys) == explored(argv, capsys)


@pytest.mark.parametrize("strategy", ["dfs", "states"])
def test_a_worker_that_is_killed_loses_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
) -> None:
    monkeypatch.setenv("SOFTSGX_PARENT", str(os.getpid()))
    path = written(tmp_path, MORTAL)
    found = explored([path, "--jobs", "2", "--strategy", strategy], capsys)
    assert Path(path).with_suffix(".mark").exists()
    schedules = found["schedules_estimated"] if strategy == "states" else found["executions"]
    assert (schedules, found["complete"]) == (252, True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('points = "access"', "Counter: points = 'access': a scenario in Python yields its points"),
        ("max_steps = 0", "Counter: max_steps = 0: not a number of steps from 1 up"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--jobs", "1"], ["--list"]], ids=" ".join)
def test_a_scenario_that_cannot_do_what_it_asks_is_refused_before_the_search(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    reason: str,
    more: list[str],
) -> None:
    text = COUNTER.replace("    def start", f"    {line}\n\n    def start", 1)
    assert main(["explore", written(tmp_path, text), *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"softsgx: explore: {tmp_path / 'scenarios.py'}: {reason}")
    assert captured.err.count("\n") == 1


def test_what_a_search_left_out_is_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, CORRECT)
    found = explored([path, "--strategy", "dfs"], capsys)
    assert (found["complete"], found["left_out"], found["points_max"]) == (True, [], 10)
    assert found["decided"] == "complete: every schedule of up to 10 points"
    found = explored([path, "--preemptions", "1", "--executions", "5"], capsys)
    assert (found["complete"], found["left_out"]) == (False, ["executions"])
    assert found["preemptions_decided"] == 0


@pytest.mark.parametrize("strategy", ["random", "pct", "guided"])
def test_pairs_of_steps_seen_in_both_orders_are_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    argv = [written(tmp_path, CORRECT), "--strategy", strategy, "--executions", "100"]
    found = explored(argv, capsys)
    pairs, both = found["pairs"], found["pairs_in_both_orders"]
    assert isinstance(pairs, int)
    assert isinstance(both, int)
    assert 0 < both <= pairs
    assert main(["explore", *argv]) == 0
    text = f"{both} of {pairs} pair{'s' * (pairs != 1)} of conflicting steps seen in both orders; "
    assert text in capsys.readouterr().out
    found = explored([*argv[:1], "--strategy", "dfs"], capsys)
    assert (found["pairs"], found["pairs_in_both_orders"]) == (0, 0)


def test_a_failure_of_the_estimate_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It counted the random walks as executions: "found after 4" with `--executions 3`."""
    path = written(tmp_path, COUNTER)
    assert main(["explore", path, "--preemptions", "0"]) == 1
    assert re.search(r"found after 2 executions and \d+ random walks?, ", capsys.readouterr().out)
    assert main(["explore", path, "--executions", "3"]) == 0
    assert "nothing found in 3 executions" in capsys.readouterr().out
    assert main(["explore", path, "--executions", "4"]) == 1
    story = capsys.readouterr().out
    assert "found after 4 executions, " in story
    assert "  perhaps not minimal: the limit was reached\n" in story


def test_scenarios_are_searched_by_states_several_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, COUNTER + CORRECT + CORRECT.replace("Correct", "Again"))
    argv = ["explore", path, "--strategy", "states"]
    assert main(argv) == 1
    alone = capsys.readouterr().out
    assert main([*argv, "--jobs", "2"]) == 1
    found = capsys.readouterr().out
    seconds = re.compile(r"[0-9.]+ s;")
    assert seconds.sub("", found) == seconds.sub("", alone)
    assert "complete: every step from each of 35 states, at most 10 steps deep" in found
