"""`softsgx run`: its options and what it refuses before anything runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softsgx.cli.main import main
from softsgx.linux.version import VERSIONS
from softsgx.runner.options import AUTO, CPUID_CHOICES, ENGINES, SUPERVISORS, Options
from tests.cli.tables import TABLES


def test_the_help_names_what_the_runner_knows() -> None:
    """For options without choices of argparse: the values, and the defaults."""
    options = TABLES["run"].options
    for name, values in {
        "--engine": ENGINES,
        "--supervisor": (AUTO, *SUPERVISORS),
        "--linux": VERSIONS,
        "--cpuid": CPUID_CHOICES,
    }.items():
        for value in values:
            assert re.search(rf"\b{re.escape(value)}\b", options[name].help), (name, value)
    fields = vars(Options())
    given = {name: option.default for name, option in options.items() if option.default}
    assert given == {
        f"--{name.removesuffix('_hz')}": value
        for name, value in fields.items()
        if value and f"--{name.removesuffix('_hz')}" in options
    }


def test_no_program_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--explain"]) == 125
    assert capsys.readouterr().err.startswith("softsgx: run: no program: ")


def test_no_such_program_leaves_no_trace_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program is looked at before any file is made."""
    trace = tmp_path / "t.jsonl"
    assert main(["run", "--trace", str(trace), "--", str(tmp_path / "missing")]) == 127
    assert capsys.readouterr().err.count("\n") == 1
    assert not trace.exists()


@pytest.mark.parametrize("hz", ["-1", "1001"])
def test_a_rate_that_no_kernel_has_is_bad_input(
    hz: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--tick", hz, "--", "/bin/true"]) == 125
    assert capsys.readouterr().err == f"softsgx: run: --tick: {hz}: 0 to 1000 in a second\n"
