"""A program that fights the stub harms itself alone.

All processes of a run once mapped one file of records: a program could write to those of another,
whose threads then went wherever it said.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from softsgx.runner.inserted.systrap import address
from tests.patience import until
from tests.runner.gcc import needs_gcc
from tests.runner.programs import ENGINES, Program, Workshop, supervised
from tools.systrap_header import numbers

pytestmark = needs_gcc

NUMBERS: Final = (
    *("RECORDS", "RECORD_STRIDE", "RECORDS_MAX", "RECORD_STACK", "RECORD_KIND", "FORKED_CALL"),
    *("SYSTRAP_CONTROL", "SYSTRAP_SHARED_SIZE", "SYSTRAP_CODE", "SYSTRAP_CODE_SIZE"),
    *("SHARED_STATES", "SHARED_MAIL_STATES", "SHARED_TABLES", "SHARED_USED", "SHARED_TOP"),
    *(
        "SHARED_REPORTS",
        "SHARED_MAILS",
        "SHARED_DOORBELL",
        "SHARED_SPIN",
        "SHARED_FAMILY",
        "TABLE_STRIDE",
    ),
    *("INTERRUPT_SIGNAL", "BOX", "BOX_SIZE", "NATIVE_SLOTS", "SLOT_STRIDE"),
)
WAYS: Final = (
    *("scribble", "forge", "doorbell", "handlers", "gate", "records", "box", "files", "common"),
    "hides",
)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The program and its enclave."""
    values = {name: numbers()[name] for name in NUMBERS}
    values["OWN_CALL"] = address("own_call")
    source = Path(__file__).with_name("hostile.c")
    program = Program(
        source,
        enclave="ops",
        words=(("threads", 2),),
        cc=tuple(f"-D{name}={value:#x}UL" for name, value in values.items()),
    )
    return Workshop(tmp_path_factory.mktemp("hostile")).command(program)[:3]


def _left(program: str) -> list[str]:
    """Processes that still execute it."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/exe") == program:
                found.append(name)
        except OSError:
            continue
    return found


CASES: Final = (
    *((what, engine) for what in WAYS for engine in ENGINES),
    ("deaf", "native"),  # the emulator needs nobody's report
)


@pytest.mark.parametrize(("what", "engine"), CASES)
def test_whoever_fights_the_stub_harms_himself_alone(
    command: list[str], what: str, engine: str
) -> None:
    fights = [*command, what, "1", engine]
    done = supervised(fights, "--supervisor", "systrap", "--engine", engine)
    assert done.returncode == 7, done.stdout + done.stderr
    assert done.stdout.count("ok 200 calls") == 1, done.stdout + done.stderr
    assert "bug" not in done.stderr, done.stderr
    until(lambda: not _left(command[0]), "the end of all processes")
