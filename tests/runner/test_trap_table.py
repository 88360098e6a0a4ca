"""Exceptions of a program and of its enclave: `linux.traps` against the kernel of this machine.

tests/programs/trap_table.c raises them. Run bare, each row is what the real kernel says of a state
of the x87 and of MXCSR, and `do_trap` must say the same; under `softsgx run` the program must see
the same. What it sees of exceptions inside its enclave depends on the state that AEX leaves.
"""

from __future__ import annotations

import struct
import subprocess
from typing import NamedTuple

import pytest

from softsgx.linux.traps import DR_STEP, do_trap
from tests.patience import LIMIT_S
from tests.runner.programs import ENGINES, PROGRAMS, Program, Workshop
from tests.runner.test_programs import needs_run, run

PROGRAM = Program.read(PROGRAMS / "trap_table.c")
RIP = 0x401000


class Row(NamedTuple):
    """One exception, as the program's handler saw it."""

    name: str
    number: int
    code: int
    address: int
    vector: int
    error: int
    legacy: bytes

    @classmethod
    def read(cls, line: str) -> Row:
        """A line of the program's output; `rip` stands for the address of the instruction."""
        words = line.split()
        name, number, code, address, vector, error = words[1:7]
        cwd, swd, mxcsr = (int(words[i], 16) for i in (8, 10, 12))
        legacy = struct.pack("<HH20xI", cwd, swd, mxcsr)
        at = RIP if address == "rip" else int(address, 16)
        return cls(name, int(number), int(code), at, int(vector), int(error, 0), legacy)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return Workshop(tmp_path_factory.mktemp("traps")).command(PROGRAM)


@pytest.fixture(scope="module")
def bare(command: list[str]) -> list[str]:
    """The rows of this machine's kernel: without arguments there is no enclave."""
    done = subprocess.run(command[:1], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_kernel_of_this_machine_says_what_the_model_says(bare: list[str]) -> None:
    rows = [Row.read(line) for line in bare]
    assert {row.vector for row in rows} == {0, 1, 3, 4, 6, 12, 13, 16, 17, 19}
    codes = {row.code for row in rows if row.vector in (16, 19)}
    assert codes == {3, 4, 5, 6, 7}, "every si_code of the x87 and of SSE"
    for row in rows:
        dr6 = 0 if row.name == "int1" else DR_STEP
        found = do_trap(row.vector, row.error, RIP, row.legacy, dr6)
        expected = (row.number, row.code, row.address, row.vector, row.error)
        assert found == expected, row.name


# Signal, si_code, address, vector, error code; and after #MF and #XM the state that AEX leaves.
INSIDE = {
    "in_divide": "8 1 rip 0 0",
    "in_ud2": "4 2 rip 6 0",
    "in_int3": "4 2 rip 6 0",  # entered without DBGOPTIN
    "in_cli": "11 128 0 13 0",
    "in_x87": "8 7 rip 16 0 cwd 0x37e swd 0x8081 mxcsr 0x1f80",
    "in_sse": "8 7 rip 19 0 cwd 0x37f swd 0 mxcsr 0x1f01",
    "in_stack": "7 128 0 12 0",
    "in_unaligned": "7 1 0 17 0",
}
# docs/run.md: the reference engine raises neither #XM nor #AC, and #SS comes as #GP.
REFERENCE = {"in_sse": "none", "in_stack": "11 128 0 13 0", "in_unaligned": "none"}


@needs_run
@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_and_its_enclave_are_told_so(
    command: list[str], bare: list[str], engine: str
) -> None:
    done = run(command, "--engine", engine)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[: len(bare)] == bare
    expected = INSIDE if engine == "native" else INSIDE | REFERENCE
    plain = " cwd 0x37f swd 0 mxcsr 0x1f80"
    for line, (name, what) in zip(lines[len(bare) :], expected.items(), strict=True):
        state = "" if "cwd" in what or what == "none" else plain
        assert line == f"ok {name} {what}{state}"
