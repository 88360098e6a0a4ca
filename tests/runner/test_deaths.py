"""What a process died of: the refusal that led to that very signal, or nothing.

Each row of tests/programs/deaths.c is a process of its own; the first word of the table here is
the refusal that its death must name, "" if the signal came from elsewhere.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Final

import pytest

from softsgx.runner.options import SUPERVISORS
from tests.runner.programs import ENGINES, PROGRAMS, Program, Workshop, supervised

ROWS: Final = {
    "refused": (signal.SIGSEGV, "write of the enclave"),
    "blocked": (signal.SIGSEGV, "write of the enclave"),
    "ignored": (signal.SIGSEGV, "write of the enclave"),
    "then killed": (signal.SIGSEGV, ""),
    "then null": (signal.SIGSEGV, ""),
    "raised in the handler": (signal.SIGSEGV, ""),
    "null after a call": (signal.SIGSEGV, ""),
    "null in another thread": (signal.SIGSEGV, ""),
    "refused in another thread": (signal.SIGSEGV, "write of the enclave"),
    "bus": (signal.SIGBUS, "read of the host"),
    "bus handled, then sent": (signal.SIGBUS, ""),
    "no rights": (signal.SIGSEGV, "write of the host"),
    "aborted": (signal.SIGABRT, ""),
}
# How the headline and the line on who it was begin.
REFUSALS: Final = {
    "write of the enclave": (r"write at 0x\w+ refused by the EPCM \(ACCESS\.12\)", "in enclave "),
    "read of the host": (r"read at 0x\w+ refused by the driver \(PAGING\.01\)", "outside"),
    "write of the host": (r"write at 0x\w+ refused by the VMA \(PAGING\.01\)", "outside"),
}


@pytest.mark.parametrize("supervisor", SUPERVISORS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_death_names_its_refusal_or_nothing(engine: str, supervisor: str, tmp_path: Path) -> None:
    """Without a tracer the supervisor is not told of a signal that was sent, and that kills."""
    command = Workshop(tmp_path).command(Program.read(PROGRAMS / "deaths.c"))
    done = supervised(command, "--explain", "--engine", engine, "--supervisor", supervisor)
    assert done.returncode == 0, done.stderr
    ended = re.findall(r"^ok (.*): process (\d+): (-?\d+)$", done.stdout, re.MULTILINE)
    assert {name: int(number) for name, _, number in ended} == {
        name: number for name, (number, _) in ROWS.items()
    }
    for name, pid, _ in ended:
        number, refusal = ROWS[name]
        assert (f"process {pid} died" in done.stderr) == bool(refusal), (name, done.stderr)
        if not refusal:
            continue
        event = _event(done.stderr, f"process {pid} died of {number.name}")
        headline, where = REFUSALS[refusal]
        told = re.search(
            rf"^{headline}[^\n]*, event {event}$.*?^  by ([^\n]*)$.*?^  then ([^\n]*)$",
            done.stderr,
            re.MULTILINE | re.DOTALL,
        )
        assert told is not None, (name, done.stderr)
        assert where in told[1], name
        assert f"thread {pid}" in told[1] or name == "refused in another thread", name
        assert told[2].strip().startswith(number.name), name


def _event(said: str, died: str) -> str:
    """The number of the refusal: named if it was shown just before, else shown once more."""
    found = re.search(rf"^{died}: see event (\d+) above$", said, re.MULTILINE)
    if found is None:
        found = re.search(rf"^{died}:\n[^\n]*, event (\d+)$", said, re.MULTILINE)
    assert found is not None, (died, said)
    return found[1]
