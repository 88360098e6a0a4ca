"""action.yml by GitHub's rules, and its script as a runner executes it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.ci.composite import problems
from tests.patience import LIMIT_S
from tests.tidy.source import ROOT
from tools import action as script

ACTION = (ROOT / "action.yml").read_text(encoding="utf-8")


def load() -> dict[str, Any]:
    loaded = yaml.safe_load(ACTION)
    assert isinstance(loaded, dict)
    return loaded


def steps() -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in load()["runs"]["steps"]}


def test_the_action_obeys_the_rules() -> None:
    assert list(problems(load())) == []


def _change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(action: dict[str, Any]) -> None:
        *way, last = path.split("/")
        node: Any = action
        for key in way:
            node = node[int(key)] if isinstance(node, list) else node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_change("description", None), "description: required"),
        (_change("permissions", {}), "unknown keys"),
        (_change("inputs/x", {"description": "x", "default": ""}), "input x: not used"),
        (_change("inputs/program", None), "inputs.program: not declared"),
        (_change("inputs/program/default", None), "neither required nor"),
        (_change("inputs/program/default", False), "a text"),
        (_change("inputs/program/type", "string"), "unknown keys"),
        (_change("outputs/junit/value", None), "description and value"),
        (_change("outputs/junit/value", "${{ steps.x.outputs.a }}"), "no earlier step"),
        (_change("runs/using", "node20"), "using: composite"),
        (_change("runs/steps/0/uses", "actions/setup-python@v6"), "not pinned"),
        (_change("runs/steps/0/with/a", "${{ steps.softsgx.outputs.junit }}"), "no earlier step"),
        (_change("runs/steps/1/shell", None), "needs a shell"),
        (_change("runs/steps/1/uses", "a/b@" + "0" * 40), "either run or uses"),
        (_change("runs/steps/1/run", "echo ${{ inputs.program }}"), "text of a command"),
        (_change("runs/steps/1/timeout-minutes", 3), "unknown keys"),
    ],
)
def test_what_breaks_a_rule_is_found(change: Callable[[dict[str, Any]], None], says: str) -> None:
    action = load()
    change(action)
    assert any(says in what for what in problems(action)), list(problems(action))


def test_every_pin_says_its_version() -> None:
    pinned = re.findall(r"uses: \S+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", ACTION, re.MULTILINE)
    assert len(pinned) == ACTION.count("uses: ") == 3


def test_the_script_gets_every_input_that_it_reads() -> None:
    given = set(steps()["softsgx"]["env"])
    read = set(
        re.findall(
            r'"(command|program|arguments|options|reports)"', Path(script.__file__).read_text()
        )
    )
    assert given == {f"INPUT_{name.upper()}" for name in read}


def use(
    tmp_path: Path, **given: str
) -> tuple[subprocess.CompletedProcess[str], str, dict[str, str]]:
    """The action's own step: its `run` line, with inputs as the service sets them.

    Returns what it printed, the job summary, and the outputs.
    """
    action = load()
    environ = {
        name: given.get(name, declared.get("default", ""))
        for name, declared in action["inputs"].items()
    }
    step = steps()["softsgx"]
    inputs = {
        variable: environ[re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)[1]]  # type: ignore[index]
        for variable, value in step["env"].items()
    }
    summary, outputs = tmp_path / "summary.md", tmp_path / "outputs"
    for file in (summary, outputs):
        file.write_text("")
    bin_ = tmp_path / "bin"
    bin_.mkdir(exist_ok=True)
    if not (bin_ / "python").exists():
        (bin_ / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (bin_ / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=tmp_path,
        env={
            "PATH": f"{bin_}:{os.environ['PATH']}", "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(outputs),
            **inputs,
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    lines = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    return done, summary.read_text(), lines


def test_a_program_that_passes(tmp_path: Path) -> None:
    done, summary, outputs = use(
        tmp_path, command="run", program="/bin/echo", arguments="'a b' c|d", options="--tick 0"
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "a b c|d")
    assert summary.startswith("### softsgx run: passed\n\n| test | result | seconds |\n")
    assert "| /bin/echo 'a b' 'c\\|d' | passed | " in summary
    assert outputs == {
        "exit-code": "0",
        "sarif": "",
        "junit": str(tmp_path / "softsgx-reports/softsgx.xml"),
    }
    assert Path(outputs["junit"]).is_file()


def test_a_program_that_fails_and_text_that_is_no_markup(tmp_path: Path) -> None:
    done, summary, outputs = use(
        tmp_path,
        command="run",
        program="/bin/sh",
        arguments=shlex.join(["-c", "printf '```</details>\\n' >&2; kill -9 $$"]),
    )
    assert (done.returncode, outputs["exit-code"]) == (137, "137")
    assert summary.startswith("### softsgx run: exit code 137\n")
    assert "\n````text\n```</details>\n````\n" in summary
    assert "<summary>/bin/sh -c" in summary


def test_options_that_are_wrong_say_so_in_the_summary(tmp_path: Path) -> None:
    done, summary, outputs = use(tmp_path, command="run", program="/bin/true", options="--epc 3x")
    assert (done.returncode, outputs["exit-code"], outputs["junit"]) == (125, "125", "")
    assert "softsgx: run: --epc: " in summary
    assert "programs can run here" in summary


def test_findings_of_explore(tmp_path: Path) -> None:
    done, summary, outputs = use(tmp_path, command="explore", program="FirstTouch")
    assert (done.returncode, outputs["exit-code"]) == (1, "1")
    assert "| FirstTouch,6.12 | violation: spurious fault | " in summary
    assert "replay: softsgx explore --replay " in summary
    assert '"partialFingerprints"' in Path(outputs["sarif"]).read_text()
    assert "<testsuites" in Path(outputs["junit"]).read_text()


def test_a_search_that_cannot_begin_leaves_no_reports(tmp_path: Path) -> None:
    """Nor those of an earlier step, which would be uploaded as if they were its own."""
    for name in ("softsgx.xml", "softsgx.sarif"):
        (tmp_path / "softsgx-reports").mkdir(exist_ok=True)
        (tmp_path / "softsgx-reports" / name).write_text("of an earlier step")
    done, summary, outputs = use(tmp_path, command="explore", program="none.py")
    assert (done.returncode, outputs["junit"], outputs["sarif"]) == (2, "", "")
    assert "softsgx: explore: none.py" in summary


def test_a_command_that_is_killed_has_the_code_of_a_shell() -> None:
    assert script.execute(["/bin/sh", "-c", "echo last >&2; kill -9 $$"]) == (137, "last", {})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"command": "walk"}, "command: walk is none of run, explore"),
        ({"command": ""}, "command: nothing is none of"),
        ({"command": "run"}, "program: nothing to run"),
        (
            {"command": "run", "program": "a", "arguments": "'"},
            "arguments: ': No closing quotation",
        ),
        ({"command": "run", "program": "a", "options": "-- b"}, "options: -- ends"),
        ({"command": "explore", "program": "a", "arguments": "b"}, "arguments: only with"),
        ({"command": "run", "program": "a", "reports": "a\nb=c"}, "reports: not the name of one"),
        (
            {"command": "run", "program": "a", "reports": "/dev/null/x"},
            "reports: /dev/null/x: Not a",
        ),
    ],
)
def test_wrong_inputs_are_one_line(
    given: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {f"INPUT_{name.upper()}": value for name, value in {"reports": "r", **given}.items()}
    assert script.main(environ) == 2
    printed = capsys.readouterr().out
    assert printed.startswith(f"::error::softsgx: action: {says}")
    assert printed.count("\n") == 1


def test_a_summary_stays_within_what_the_service_takes() -> None:
    shown = "\n".join(script.fenced("x" * 10**6))
    assert len(shown) < 21_000
    assert "980000 characters more: see the JUnit report" in shown
