"""What a handler of the host is told about accesses to enclave memory, against the rules of Linux.

The rules are written down here once more, from the kernel's source, and share nothing with the
model: Linux 6.12, arch/x86/mm/fault.c, access_error; sgx/encl.c, sgx_vma_fault; SDM 3A, 4.7
"Page-Fault Exceptions" for the error code. From outside, enclave memory that is mapped reads as
ones: a fetch of those is #UD.
"""

from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from softsgx.runner.options import SUPERVISORS
from tests.patience import LIMIT_S
from tests.runner.denying import Denied
from tests.runner.programs import ENGINES, PROGRAMS, ROOT, Program, Workshop
from tests.runner.test_programs import needs_run, run

R, W, X = 1, 2, 4
AREAS = (0, R, W, R | W, R | X, R | W | X)
ADDS_ON_TOUCH = ("hole", "removed")
IN_PAGE_TABLE = ("present", "denied", "trimmed")
STATES = ("fresh", "capped", "added", "hole", "untouched", *IN_PAGE_TABLE, "removed")

# The access as the processor sees it.
ACCESSES = {
    "read1": "read",
    "write1": "write",
    "fetch": "fetch",
    "atomic": "write",
    "read_across": "read",
    "write_across": "write",
    "string_from": "read",
    "string_to": "write",
    "compare": "read",
    "push": "write",
    "sse_read": "read",
    "sse_write": "write",
    "masked_write": "write",
    "lookup": "read",
    "avx_read": "read",
    "avx_write": "write",
}
PRESENT, WRITE, USER, FETCH = 1, 2, 4, 16
SEGV_ACCERR, BUS_ADRERR, ILL_ILLOPN = 2, 2, 2
PF, UD = 14, 6


def expected(state: str, area: int, access: str, offset: int = 5) -> str:
    """The row of one access; `offset` is the byte that the processor names."""
    kind = ACCESSES[access]
    bits = USER | {"read": 0, "write": WRITE, "fetch": FETCH}[kind]
    page_there = state not in ("fresh", *ADDS_ON_TOUCH)
    mapped = state in IN_PAGE_TABLE and area != 0
    before_init = state in ("fresh", "capped", "added")

    def has() -> str:
        return "-" if before_init else "page" if page_there else "hole"

    def row(number: int, code: int, error: int) -> str:
        return f"{number} {code} {offset} {error:#x} {PF} {offset} {has()}"

    while True:
        # The walk: an entry that is writable can be read, too.
        if mapped and (
            kind == "read" or (kind == "write" and area & W) or (kind == "fetch" and area & X)
        ):
            if kind != "fetch":
                return f"done {has()}"
            return f"{signal.SIGILL} {ILL_ILLOPN} {offset} 0 {UD} * {has()}"
        error = bits | (PRESENT if mapped else 0)
        # access_error
        allowed = area & W if kind == "write" else not mapped and area
        if not allowed:
            return row(signal.SIGSEGV, SEGV_ACCERR, error)
        # sgx_vma_fault: a hole is filled once the enclave is initialised; a page must allow what
        # the area allows.
        if state in ("fresh", "capped"):
            return row(signal.SIGBUS, BUS_ADRERR, error)
        page_there = mapped = True


def test_rows_that_were_wrong() -> None:
    """The reports that the table is for."""
    assert expected("hole", 1, "write1") == "11 2 5 0x6 14 5 hole"
    assert expected("present", 5, "write1") == "11 2 5 0x7 14 5 page"
    assert expected("present", 3, "fetch") == "11 2 5 0x15 14 5 page"
    assert expected("hole", 3, "fetch") == "11 2 5 0x15 14 5 page"
    assert expected("fresh", 1, "write1") == "11 2 5 0x6 14 5 -"
    assert expected("fresh", 1, "read1") == "7 2 5 0x4 14 5 -"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The program that makes the rows."""
    workshop = Workshop(tmp_path_factory.mktemp("faults"))
    return workshop.command(Program.read(Path(PROGRAMS / "host_faults.c")))


@needs_run
@pytest.mark.parametrize("supervisor", SUPERVISORS)
@pytest.mark.parametrize("engine", ENGINES)
def test_host_faults_are_told_as_linux_tells_them(
    command: list[str], engine: str, supervisor: str
) -> None:
    """Without a tracer a SIGBUS in place of the SIGSEGV that was raised had no siginfo."""
    compare(run(command, "--engine", engine, "--supervisor", supervisor), STATES)


@needs_run
@pytest.mark.parametrize("engine", ENGINES)
def test_pages_out_of_epc_are_loaded_only_if_the_area_allows_it(
    command: list[str], engine: str
) -> None:
    options = ("--engine", engine, "--epc", "4M")
    compare(run([*command, "evicted"], *options), ("evicted",))


def compare(done: subprocess.CompletedProcess[str], states: Sequence[str]) -> None:
    """What a run has printed, with the table."""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    rows = dict(re.findall(r"^ok (.*?): (.*)$", done.stdout, re.MULTILINE))
    # CR2 after #UD is what an earlier fault left.
    got = {n: re.sub(r"^(4 \d+ \d+ 0 6) -?\d+", r"\1 *", row) for n, row in rows.items()}
    table = {}
    for access, kind in ACCESSES.items():
        if f"control {access}" not in rows:
            assert access.startswith("avx")  # this processor has none
            continue
        code, offset, error = rows[f"control {access}"].split()[1:]
        bits = USER | {"read": 0, "write": WRITE, "fetch": FETCH}[kind]
        assert (int(code), int(error, 16)) == (SEGV_ACCERR, bits), access
        for state in states:
            for area in AREAS:
                table[f"{state} {area} {access}"] = expected(state, area, access, int(offset))
    wrong = {n: (got.get(n, "nothing"), row) for n, row in table.items() if got.get(n) != row}
    assert not wrong, "\n".join(f"{n}: {g}, to be {w}" for n, (g, w) in wrong.items())


@needs_run
def test_signals_keep_their_siginfo_where_none_may_be_sent(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A filter that denies rt_tgsigqueueinfo: tgkill carries less, and is recognised, too."""
    workshop = Workshop(tmp_path_factory.mktemp("forced"))
    program = workshop.command(Program.read(Path(PROGRAMS / "host_faults_forced.c")))
    filtered = Denied(calls={297: errno.EPERM}, no_cpuid_faulting=False)
    command = filtered.command(sys.executable, "-m", "softsgx", "run", "--", *program)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
