"""Advice about an undefined instruction: another engine helps only where one executes it.

The story: UD2 and ENCLS are #UD in every engine, and yet --explain said `--engine native has more`,
natively too.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softsgx.runner.code.trapped import undefined
from tests.runner.programs import PROGRAMS, Program, Workshop, supervised
from tests.runner.test_programs import needs_run


@pytest.mark.parametrize("code", ["0f0b90", "0fff00", "0fb9c0", "0f01cf"])
def test_what_no_processor_executes_is_undefined(code: str) -> None:
    assert undefined(bytes.fromhex(code)) == "CODE.01"


@pytest.mark.parametrize("code", ["c5f877", "0f01d0", "", "0f"])
def test_what_one_may_execute_is_said_to_be_missing(code: str) -> None:
    assert undefined(bytes.fromhex(code)) == "CODE.05"


@needs_run
def test_explain_sends_nobody_to_an_engine_that_refuses_it_too(tmp_path: Path) -> None:
    """UD2 and ENCLS of illegal_inside.c; what else it has is illegal inside an enclave."""
    command = Workshop(tmp_path).command(Program.read(PROGRAMS / "illegal_inside.c"))
    done = supervised(command, "--explain")
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.findall(r"^instruction at .* refused \((CODE\.0[15])\): #UD", done.stderr, re.M)
    assert told == ["CODE.01", "CODE.01"]
    assert "--engine native" not in done.stderr
