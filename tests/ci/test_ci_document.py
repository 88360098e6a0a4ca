"""docs/ci.md: its pipelines are executed, its tables are those of the action and of doctor."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from softsgx.cli.main import COMMANDS
from softsgx.runner.doctor.needs import NEEDS, UNTRACED
from tests.ci.test_action import load, use
from tests.container.dockerfile import read
from tests.patience import LIMIT_S
from tests.runner.denying import NUMBERS, denied
from tests.runner.gcc import needs_gcc
from tests.runner.programs import ROOT, Workshop
from tests.runner.test_denied import AROUND, NEVER, SLOWER
from tools.documents import Block, all_blocks

PATH = "docs/ci.md"
SCENARIO = """\
from softsgx.explore import Scenario


class Once(Scenario):
    def start(self, execution):
        self.value = 0
        execution.spawn(self.set(), "A")

    def set(self):
        yield ("write", "value", True)
        self.value = 1

    def check(self, execution):
        assert self.value == 1
"""
TESTED = """\
def test_the_program(softsgx_run):
    assert softsgx_run(["./app", "enclave.sgxs", "enclave.sig"]).leaves["EAUG"] > 0
"""


def block(test: str, head: str = "") -> Block:
    """The block that a test answers for, and whose first line begins so."""
    (found,) = (
        b
        for b in all_blocks()
        if b.path == PATH and b.mark.endswith(f"::{test}") and b.lines[0].startswith(head)
    )
    return found


def rows(test: str, head: str = "") -> list[list[str]]:
    return [[c.strip() for c in line[1:-1].split("|")] for line in block(test, head).lines[2:]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pipelines expect to be there: the program, its enclave, a scenario, a test."""
    made = Workshop(tmp_path / "made")
    made.directory.mkdir()
    for path, name in zip(made.example(), ("app", "enclave.sgxs", "enclave.sig"), strict=True):
        shutil.copy(path, tmp_path / name)
    (tmp_path / "scenarios.py").write_text(SCENARIO)
    (tmp_path / "Makefile").write_text("app:\n\tfalse\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_app.py").write_text(TESTED)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, command in (("python", ""), ("softsgx", "-m softsgx ")):
        (bin_ / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command}"$@"\n')
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # what is to be installed is there
    return tmp_path


def shell(line: str, where: Path) -> None:
    done = subprocess.run(
        ["bash", "-e", "-c", line],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@needs_gcc
def test_the_workflow_does_what_it_says(checkout: Path) -> None:
    """Every step that is ours, and every line of shell."""
    workflow: dict[Any, Any] = yaml.safe_load(block("test_the_workflow_does_what_it_says").text)
    assert set(workflow) == {"name", True, "permissions", "jobs"}  # YAML's `on` is a truth value
    (job,) = workflow["jobs"].values()
    assert set(job) == {"runs-on", "steps"}
    names = []
    for step in job["steps"]:
        assert set(step) <= {"uses", "with", "run", "if"}
        if "run" in step:
            shell(step["run"], checkout)
        elif step["uses"].startswith("softsgx/softsgx@"):
            assert set(step["with"]) <= set(load()["inputs"])
            done, summary, outputs = use(checkout, **step["with"])
            assert done.returncode == 0, done.stdout + done.stderr
            assert summary.startswith(f"### softsgx {step['with']['command']}: passed")
            assert bool(outputs["sarif"]) == (step["with"].get("upload-sarif") == "true")
            names.append(step["with"]["artifact"])
        else:
            assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", step["uses"])
    assert len(names) == len(set(names)) == 2, "an artifact of a name can be uploaded once"
    assert (checkout / "pytest.xml").is_file()


@needs_gcc
def test_the_pipeline_does_what_it_says(checkout: Path) -> None:
    pipeline = yaml.safe_load(block("test_the_pipeline_does_what_it_says").text)
    (job,) = pipeline.values()
    assert set(job) == {"image", "script", "artifacts"}
    for line in job["script"]:
        shell(line, checkout)
    artifacts = job["artifacts"]
    assert set(artifacts) == {"when", "paths", "reports"}
    for name in (*artifacts["paths"], *artifacts["reports"]["junit"]):
        assert (checkout / name).stat().st_size > 0
    made = {path.name for path in checkout.glob("*.xml")}
    assert made == {*artifacts["reports"]["junit"]}


def test_the_tables_are_those_of_the_action() -> None:
    action = load()
    inputs = rows("test_the_tables_are_those_of_the_action", "| input")
    shown = {words(row[0])[0]: (words(row[1]) or [""])[0] for row in inputs}
    assert shown == {name: i.get("default", "") for name, i in action["inputs"].items()}
    outputs = rows("test_the_tables_are_those_of_the_action", "| output")
    assert [words(row[0])[0] for row in outputs] == list(action["outputs"])


def test_the_commands_of_containers() -> None:
    """Options that engines have; what is run in the image is there, and is what the text says."""
    stages = read((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    arguments = {a.partition("=")[0] for stage in stages for a in stage.all("ARG")}
    takes = {"--volume", "--workdir", "--cap-drop", "--security-opt", "--build-arg", "-t"}
    found = set()
    for line in block("test_the_commands_of_containers").text.splitlines():
        engine, verb, *rest = shlex.split(line, comments=True)
        assert engine == "podman"
        while rest and rest[0].startswith("-"):
            option, value = rest.pop(0), ""
            if option in takes:
                value = rest.pop(0)
            else:
                assert option in ("--rm", "--read-only"), option
            if option == "--build-arg":
                assert value.partition("=")[0] in arguments
        if verb == "build":
            assert rest == ["."]
        else:
            assert (verb, rest.pop(0)) == ("run", "softsgx")
            assert not rest or (rest[0] == "softsgx" and rest[1] in COMMANDS)
        found.add((verb, *rest[:2]))
    assert found == {
        ("build", "."),
        ("run",),
        ("run", "softsgx", "doctor"),
        ("run", "softsgx", "run"),
    }


def test_the_calls_are_those_that_doctor_tries() -> None:
    """tests/runner/test_denied.py refuses each of them: its table has what doctor then says."""
    needs = {need.name: need for need in (*NEEDS, *UNTRACED)}
    for calls, row, effect, option in rows("test_the_calls_are_those_that_doctor_tries"):
        need = needs[words(row)[0]]
        assert (effect == "nothing runs") == (need.fallback == "")
        if "traced" in effect:
            assert need.fallback == effect
        advice = need.advice
        for flag in words(option):
            assert flag in advice, (row, flag)
        refused = [call for call in re.split(r", | and ", calls) if call in NUMBERS]
        if not refused:
            assert need.name in SLOWER["only64"]
            assert need.name in SLOWER["moby"]
            continue
        same = [SLOWER[case] for case, what in AROUND.items() if what == denied(*refused)]
        same += [[name] for name, what in NEVER.values() if what == denied(*refused)]
        if need.name == "inotify":
            same = [[NEVER[case][0]] for case in ("inotify", "watch")]  # with their own errors
        assert same, f"{calls}: no test refuses these"
        assert all(need.name in names for names in same), (row, same)


def test_the_line_without_ptrace() -> None:
    line = block("test_the_line_without_ptrace").text
    done = subprocess.run(
        denied("ptrace").command(sys.executable, "-m", "softsgx", "run", "--", "true"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stderr.rstrip("\n").partition("; the security module")[0] == line.rstrip("\n")


def test_the_codes_are_those_of_the_commands() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    for command, _, finding, failed in rows("test_the_codes_are_those_of_the_commands"):
        name = words(command)[0]
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        has = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
        assert set(re.findall(r"\d+", failed)) <= set(has), name
        assert (finding == "1") == ("1" in has), name
