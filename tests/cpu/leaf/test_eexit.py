"""EEXIT: its one check, and what it restores and what it does not. SDM 3D, EEXIT."""

import pytest

from softsgx.cpu.bare import AEP, EXIT
from softsgx.spec.leaves import EENTER, EEXIT
from softsgx.spec.msr import RFLAGS_FIXED, RFLAGS_IF, RFLAGS_STATUS, RFLAGS_TF
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS, RIP
from softsgx.spec.tcs import TCS_ACTIVE, TCS_INACTIVE
from tests.cpu.table import Attempt, Row, gp, row_id, run_row
from tests.cpu.thread import NON_CANONICAL, Thread, outside, thread

INSIDE_FLAGS = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_STATUS


def inside() -> Thread:
    """A thread inside, with registers, FS and GS of its own."""
    t = thread(xfrm=7)
    outside(t.lp, flags=RFLAGS_TF)
    t.enter()
    t.lp.regs[:] = [*(0x900 + number for number in range(16)), INSIDE_FLAGS, 0x7F00_0000_0200]
    t.lp.fsbase, t.lp.gsbase = 0x1000, 0x2000
    return t


def exit_to(target: int) -> Attempt:
    return Attempt(inside().lp, "enclu", EEXIT, target)


ROWS = [
    Row("EEXIT.01", lambda: exit_to(NON_CANONICAL), gp(), "lowest"),
    Row("EEXIT.01", lambda: exit_to((1 << 64) - NON_CANONICAL - 1), gp(), "highest"),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eexit_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize(
    "target",
    [NON_CANONICAL - 1, (1 << 64) - NON_CANONICAL, 0x7F00_0000_0000],
    ids=["highest of the user", "lowest of the kernel", "inside ELRANGE"],
)
def test_eexit_tests_nothing_but_canonicality(target: int) -> None:
    t = inside()
    assert t.lp.enclu(EEXIT, target) is None
    assert t.lp.regs[RIP] == target
    assert not t.lp.enclave_mode


def test_eexit_scrubs_nothing() -> None:
    """Only RIP, RCX and TF are set; whatever else the enclave left in registers goes outside."""
    t = inside()
    expected = t.registers
    t.lp.enclu(EEXIT, EXIT, expected[RCX], expected[RDX])
    expected[RAX], expected[RBX] = EEXIT, EXIT
    expected[RCX], expected[RIP] = AEP, EXIT
    expected[RFLAGS] |= RFLAGS_TF
    assert t.registers == expected


def test_eexit_leaves_extended_state_alone() -> None:
    t = inside()
    t.lp.x.components[2] = b"\x55" * 256
    key = t.lp.x.key()
    t.exit()
    assert t.lp.x.key() == key


def test_eexit_restores_fs_gs_and_xcr0() -> None:
    t = inside()
    t.lp.xcr0 = 7
    t.exit()
    assert (t.lp.fsbase, t.lp.gsbase, t.lp.xcr0) == (0x7000_0000_1000, 0x7000_0000_2000, 7)
    t = thread(xfrm=3)
    t.enter()
    assert t.lp.xcr0 == 3
    t.exit()
    assert t.lp.xcr0 == 7


def test_eexit_deactivates_the_tcs_and_keeps_cssa() -> None:
    t = thread()
    t.enter()
    t.lp.interrupt()
    t.enter()
    running = t.tcs
    assert (running.STATE, running.CSSA) == (TCS_ACTIVE, 1)
    t.exit()
    assert t.tcs == running.replace(STATE=TCS_INACTIVE)


def test_eexit_writes_no_ssa() -> None:
    t = inside()
    frames = t.ssa(0), t.ssa(1)
    t.exit()
    assert (t.ssa(0), t.ssa(1)) == frames


def test_eexit_ends_enclave_mode() -> None:
    t = inside()
    secs = t.bare.processor.secs[t.enclave.secs]
    t.lp.load(t.enclave.data[0], 1)
    assert t.lp.tlb.entries
    t.exit()
    lp = t.lp
    assert not lp.enclave_mode
    assert (lp.secs_page, lp.tcs_page, lp.tcs_address, lp.ssa_frame) == (-1, -1, 0, ())
    assert (lp.elrange_base, lp.elrange_end) == (0, 0)
    assert lp.tlb.entries == {}
    assert (secs.current, secs.previous) == (0, 0)


def test_eexit_leaves_the_epoch_it_entered() -> None:
    t = inside()
    secs = t.bare.processor.secs[t.enclave.secs]
    assert t.bare.etrack(t.enclave.secs, t.other) == 0
    assert (secs.current, secs.previous) == (0, 1)
    t.exit()
    assert (secs.current, secs.previous) == (0, 0)


def test_eexit_returns_the_aep_of_the_last_entry() -> None:
    t = thread()
    t.lp.enclu(EENTER, t.tcs_address, 0x40_8000)
    t.exit()
    assert t.lp.regs[RCX] == 0x40_8000
