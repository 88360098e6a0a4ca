"""tests/programs/silicon.c under `softsgx run`, against the rows of tests/silicon.py and, where the
real processor executes ENCLU, line by line against that."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import NamedTuple

import pytest

from tests.patience import LIMIT_S
from tests.runner.programs import ENGINES, PROGRAMS, Program, Workshop
from tests.silicon import ENTRIES, GP, OTHER_LEAVES, PF, ROW, ROWS

SI_CODES = {"SI_KERNEL": 128, "SEGV_ACCERR": 2, "SEGV_MAPERR": 1}


class Answer(NamedTuple):
    """What one line says: by "signal" or "vdso", of which leaf and which operands."""

    by: str
    leaf: str
    operands: str
    numbers: tuple[int, ...]


def answers(*command: str) -> list[Answer]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = []
    for line in done.stdout.splitlines():
        by, leaf, operands, numbers = line.removeprefix("ok ").split(" | ")
        found.append(Answer(by, leaf, operands, tuple(int(n, 0) for n in numbers.split())))
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    workshop = Workshop(tmp_path_factory.mktemp("silicon"))
    (command,) = workshop.command(Program.read(PROGRAMS / "silicon.c"))
    return command


@pytest.fixture(scope="module", params=ENGINES)
def model(program: str, request: pytest.FixtureRequest) -> list[Answer]:
    options = ("run", "--engine", request.param, "--")
    return answers(sys.executable, "-m", "softsgx", *options, program)


def test_the_program_is_told_what_was_measured(model: list[Answer]) -> None:
    expected = [
        Answer("signal", f"{leaf:#x}" if leaf else "0", operands, (signal.SIGSEGV, 128, 0, 0, GP))
        for leaf in OTHER_LEAVES
        for operands in ("mapped", "zero", "bad")
    ]
    for leaf in ENTRIES:
        for row in ROWS:
            at = 0xFFF if row.vector == PF else 0
            kind = SI_CODES[row.si_code]
            numbers = (signal.SIGSEGV, kind, at, row.code, row.vector)
            # Once more with bits 63:32 of RAX set.
            expected += [Answer("signal", leaf, row.operands, numbers)] * 2
    known = [a for a in model if a.by == "signal" and (a.leaf not in ENTRIES or a.operands in ROW)]
    assert known == expected


def test_the_vdso_reports_the_same(model: list[Answer]) -> None:
    signals = {(a.leaf, a.operands): a.numbers[2:] for a in model if a.by == "signal"}
    reported = [a for a in model if a.by == "vdso"]
    assert len(reported) > 2 * (len(ROWS) - 2)
    for answer in reported:
        assert answer.numbers == signals[answer.leaf, answer.operands], answer


def test_the_real_processor_says_the_same(program: str, model: list[Answer]) -> None:
    """Where ENCLU is no #UD: every line, of the vDSO as well if the kernel has its function."""
    real = answers(program)
    if real[0].numbers[0] == signal.SIGILL:
        pytest.skip("ENCLU is #UD here: a processor without SGX")
    assert {a for a in real if a.by == "signal"} == {a for a in model if a.by == "signal"}
    assert [a for a in real if a not in model] == []
