"""The fixture softsgx_run, by running pytest on small test files, and the example project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from softsgx.runner.run_result import ProgramFailed, RunResult, run_program
from tests.patience import LIMIT_S
from tests.runner.gcc import needs_gcc
from tests.runner.programs import PROGRAMS, Program, Workshop
from tests.tidy.source import ROOT

pytest_plugins = ["pytester"]

MARKED = """
import pytest

@pytest.mark.softsgx_run(engine=["unicorn", "native"], epc="8M")
def test_true(softsgx_run, request):
    result = softsgx_run(["/bin/sh", "-c", "echo out; echo err >&2"])
    assert (result.code, result.out, result.err.splitlines()[-1]) == (0, "out\\n", "err")
    assert result.leaves["EADD"] == 0

def test_fails(softsgx_run):
    softsgx_run(["/bin/sh", "-c", "echo why it failed >&2; exit 3"])

def test_any(softsgx_run):
    assert softsgx_run(["/bin/sh", "-c", "kill -9 $$"], code=None).code == 137
"""


def test_a_test_for_each_engine_and_a_report_of_what_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MARKED)
    done = pytester.runpytest_inprocess("-p", "softsgx_pytest", "-p", "no:cacheprovider", "-v")
    done.assert_outcomes(passed=3, failed=1)
    done.stdout.fnmatch_lines(["*test_true?unicorn-8M? PASSED*", "*test_true?native-8M? PASSED*"])
    done.stdout.fnmatch_lines(["/bin/sh: exit code 3, to be 0", "standard error:", "why it failed"])


def test_a_mark_with_something_else_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MARKED.replace("epc=", "size="))
    done = pytester.runpytest_inprocess("-p", "softsgx_pytest", "-p", "no:cacheprovider")
    done.stdout.fnmatch_lines(["*test_true: the mark softsgx_run takes engine, linux, epc*"])


@needs_gcc
def test_counts_events_and_explanations_of_an_enclave(tmp_path: Path) -> None:
    command = Workshop(tmp_path).command(Program.read(PROGRAMS / "deaths.c"))
    result = run_program(command, trace=True, trace_in=tmp_path)
    assert result.leaves["EINIT"] > 0
    assert result.numbers["entries"] > 0
    assert result.signals["SIGSEGV SEGV_ACCERR"] > 0
    assert sum(e["what"] == "SignalSent" for e in result.events) == result.signals.total()
    assert any("refused by the EPCM (ACCESS.12)" in text for text in result.explanations)
    assert '"softsgx"' not in result.err


def test_a_program_that_is_not_there_fails_with_the_line_that_says_so() -> None:
    with pytest.raises(ProgramFailed, match="exit code 127, to be 0"):
        run_program(["/no/such"])


def test_the_document_has_every_attribute() -> None:
    text = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \|", text[text.index("| attribute |") :], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert set(named) == {field.name for field in fields(RunResult)}


def test_the_document_has_every_fixture_and_mark(pytester: pytest.Pytester) -> None:
    text = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \|", text[: text.index("## Programs")], re.MULTILINE)[2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    plugin = ("-p", "softsgx_pytest", "-p", "no:cacheprovider")
    shown = pytester.runpytest_inprocess(*plugin, "--fixtures").stdout.str()
    ours = shown[shown.index("fixtures defined from softsgx_pytest") :]
    fixtures = set(re.findall(r"^(\w+) -- ", ours, re.MULTILINE))
    marks = pytester.runpytest_inprocess(*plugin, "--markers").stdout.str()
    assert named == fixtures | {"explore", "softsgx_run"}
    assert all(f"@pytest.mark.{mark}(" in marks for mark in ("explore", "softsgx_run"))


def test_the_example_of_the_document() -> None:
    """It is the one of the example project."""
    text = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"::test_the_example_of_the_document -->\n\n((?: {4}.*\n|\n)+)", text)
    shown = re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip()
    assert shown in (ROOT / "examples" / "pytest" / "test_edmm.py").read_text(encoding="utf-8")


@needs_gcc
def test_the_example_project(tmp_path: Path) -> None:
    demo = f"DEMO={tmp_path / 'demo'}"
    subprocess.run(
        ["make", "-s", demo, "demo"], cwd=ROOT, check=True, capture_output=True, timeout=LIMIT_S
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/pytest"],
        cwd=ROOT,
        env={**os.environ, "DEMO": str(tmp_path / "demo")},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
