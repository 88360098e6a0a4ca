"""EDECCSSA: drop an SSA frame without leaving. SDM 3D, EDECCSSA."""

import pytest

from softsgx.cpu import SGX1_PART, Fault
from softsgx.spec.leaves import EDECCSSA
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS, RIP
from tests.cpu.entry_spoils import frame_spoils, gp_at, trials
from tests.cpu.spoil import Spoil, spoil_id
from tests.cpu.table import Row, execute, hold, row_id, run_row
from tests.cpu.thread import NON_CANONICAL, Thread, before, thread

OWN = [
    gp_at("EDECCSSA.01", "claims", lambda t: hold(t.bare, t.tcs_page, 0)),
    gp_at("EDECCSSA.02", "cssa", lambda t: t.set_tcs(CSSA=0)),
]
LISTING = [*OWN, *frame_spoils()]
ROWS = trials(EDECCSSA).rows(OWN)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_edeccssa_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", OWN, ids=spoil_id)
def test_edeccssa_order(first: Spoil[Thread]) -> None:
    assert trials(EDECCSSA).verify_order(LISTING, first) > 0


def test_edeccssa_is_refused_on_the_first_frame() -> None:
    t = thread()
    t.enter()
    with pytest.raises(Fault) as refused:
        t.lp.enclu(EDECCSSA)
    assert refused.value.rule == "EDECCSSA.02"


def test_edeccssa_is_absent_from_older_parts() -> None:
    t = thread(part=SGX1_PART)
    t.enter()
    with pytest.raises(Fault) as refused:
        t.lp.enclu(EDECCSSA)
    assert refused.value.rule == "ENCLU.05"


def test_edeccssa_decrements_cssa_and_nothing_else() -> None:
    t = before(EDECCSSA)
    t.lp.regs[RFLAGS] |= RFLAGS_STATUS
    t.lp.regs[RAX] = EDECCSSA
    expected, tcs, frames = t.registers, t.tcs, (t.ssa(0), t.ssa(1))
    operands = expected[RBX], expected[RCX], expected[RDX]
    assert t.lp.enclu(EDECCSSA, *operands) is None
    assert t.registers == expected
    assert t.tcs == tcs.replace(CSSA=0)
    assert (t.ssa(0), t.ssa(1)) == frames
    assert t.lp.enclave_mode


def test_edeccssa_keeps_the_tlb() -> None:
    t = before(EDECCSSA)
    t.lp.load(t.enclave.data[0], 1)
    entries = dict(t.lp.tlb.entries)
    t.lp.enclu(EDECCSSA)
    assert t.lp.tlb.entries == entries != {}


def test_the_next_aex_goes_to_the_dropped_frame() -> None:
    t = before(EDECCSSA)
    second = t.ssa(1)
    t.lp.enclu(EDECCSSA)
    t.lp.regs[RIP] = 0x7F00_0000_0777
    t.lp.interrupt()
    assert t.gpr(0).RIP == 0x7F00_0000_0777
    assert t.ssa(1) == second
    assert t.tcs.CSSA == 1


def test_edeccssa_tests_no_entry_condition() -> None:
    """Bases, entry point and STATE belong to entries: here the thread is inside already."""
    t = before(EDECCSSA)
    t.set_tcs(OENTRY=NON_CANONICAL, OFSBASGX=NON_CANONICAL)
    t.set_gpr(RIP=NON_CANONICAL, FSBASE=NON_CANONICAL)
    execute(t.attempt())
    assert t.tcs.CSSA == 0


@pytest.mark.parametrize("depth", [2, 3])
def test_edeccssa_may_be_repeated_down_to_the_first_frame(depth: int) -> None:
    t = thread(frames=4)
    t.enter()
    for _ in range(depth):
        t.lp.interrupt()
        t.enter()
    for left in reversed(range(depth)):
        t.lp.enclu(EDECCSSA)
        assert left == t.tcs.CSSA
        assert t.lp.ssa_frame == (t.bare.processor.epc.physical(t.frame_page(left)),)
    with pytest.raises(Fault):
        t.lp.enclu(EDECCSSA)
