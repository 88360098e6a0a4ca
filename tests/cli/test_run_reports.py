"""`run --junit`: a run as a test case; and that runs without reports do not wait for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from softsgx.cli.errors import EXIT_RUN_FAILED
from tests.patience import LIMIT_S
from tests.runner.programs import supervised


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [("exit 0", 0, ""), ("exit 3", 3, "exit code 3"), ("kill -9 $$", 137, "killed by SIGKILL")],
)
def test_a_run_is_a_test_case(script: str, code: int, message: str, tmp_path: Path) -> None:
    file = tmp_path / "out.xml"
    done = supervised(["/bin/sh", "-c", script], "--junit", str(file))
    assert done.returncode == code
    suites = ElementTree.parse(file).getroot()
    assert suites.get("failures") == str(int(bool(code)))
    (case,) = suites.iter("testcase")
    assert case.get("name") == f"/bin/sh -c '{script}'"
    assert [failure.get("message") for failure in case] == ([message] if code else [])


def test_a_file_that_cannot_be_written_is_refused_before_the_program_runs(tmp_path: Path) -> None:
    said = tmp_path / "said"
    done = supervised(["/bin/sh", "-c", f"echo > {said}"], "--junit", str(tmp_path / "no" / "x"))
    assert done.returncode == EXIT_RUN_FAILED
    assert done.stderr == f"softsgx: run: {tmp_path}/no/x: No such file or directory\n"
    assert not said.exists()


def test_a_run_imports_only_what_it_needs() -> None:
    """The kernel's own driver and the reports made every start 10 ms longer."""
    imports = "import sys, softsgx.cli.run.program; print(*sys.modules)"
    command = [sys.executable, "-c", imports]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    loaded = set(done.stdout.split())
    assert "softsgx.runner.session.session" in loaded
    for name in ("softsgx.cdriver", "softsgx.report.junit", "softsgx.cli.run.reports"):
        assert name not in loaded
