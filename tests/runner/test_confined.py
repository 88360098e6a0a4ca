"""Programs that install seccomp filters of their own say the same with and without softsgx.

`test_programs.py` runs them with both engines, those with enclaves as well.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.patience import LIMIT_S
from tests.runner.programs import PROGRAMS, Program, Workshop, supervised

CONFINED = [
    program
    for program in map(Program.read, sorted(PROGRAMS.glob("filters_*.c")))
    if not program.enclave
]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("confined"))


@pytest.mark.parametrize(
    ("program", "supervisor"),
    [
        pytest.param(program, supervisor, id=f"{program.name}-{supervisor}")
        for program in CONFINED
        for supervisor in program.supervisors
    ],
)
def test_a_confined_program_is_as_natively(
    workshop: Workshop, program: Program, supervisor: str
) -> None:
    command = workshop.command(program)
    natively = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert natively.returncode == 0, natively.stdout + natively.stderr
    assert natively.stdout.count("ok ") >= 1
    done = supervised(command, "--supervisor", supervisor)
    said = [line for line in done.stderr.splitlines() if "with a listener has no room" not in line]
    assert (done.returncode, done.stdout) == (0, natively.stdout), done.stderr
    assert said == natively.stderr.splitlines()
