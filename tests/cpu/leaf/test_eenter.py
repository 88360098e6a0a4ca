"""EENTER: every check and its place, and what an entry does. SDM 3D, EENTER."""

import pytest

from softsgx.cpu import Fault
from softsgx.cpu.bare import AEP, ENCLAVE_BASE
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.faults import GP, PF
from softsgx.spec.leaves import EENTER
from softsgx.spec.msr import RFLAGS_STATUS, RFLAGS_TF
from softsgx.spec.registers import RAX, RBP, RBX, RCX, RDX, RFLAGS, RIP, RSP
from softsgx.spec.ssa import GPR_OFF_URSP, GPRSGX
from softsgx.spec.tcs import TCS_ACTIVE
from tests.cpu.entry_spoils import BASES, MACHINE, frame_spoils, gp_at, tcs_spoils, trials
from tests.cpu.spoil import Spoil, spoil_id
from tests.cpu.table import Row, execute, row_id, run_row
from tests.cpu.thread import NON_CANONICAL, Thread, before, outside, thread

ENTRY_POINT = ENCLAVE_BASE + 0x100
NO_FRAME = gp_at("EENTER.09", "nssa", lambda t: t.set_tcs(NSSA=0))
OPERANDS = tcs_spoils(EENTER)
LISTING = [*OPERANDS, *MACHINE, NO_FRAME, *frame_spoils(), *BASES[EENTER]]

ROWS = trials(EENTER).rows([*OPERANDS, NO_FRAME])


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eenter_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", LISTING[:-1], ids=spoil_id)
def test_eenter_order(first: Spoil[Thread]) -> None:
    assert trials(EENTER).verify_order(LISTING, first) > 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [(NON_CANONICAL, (GP, 0)), (0x1234_5000, (PF, 6))],
    ids=["not canonical", "not mapped"],
)
def test_eenter_operand_is_an_explicit_access(address: int, expected: tuple[int, int]) -> None:
    t = before(EENTER)
    t.rbx = address
    with pytest.raises(Fault) as refused:
        execute(t.attempt())
    assert (refused.value.vector, refused.value.code) == expected


def test_eenter_needs_a_free_frame() -> None:
    """Every AEX takes a frame; with NSSA of them taken the thread can only be resumed."""
    t = thread(frames=2)
    for _ in range(2):
        t.enter()
        t.lp.interrupt()
    assert t.tcs.CSSA == 2
    with pytest.raises(Fault) as refused:
        t.enter()
    assert refused.value.rule == "EENTER.09"
    t.resume()
    assert t.tcs.CSSA == 1


def test_eenter_sets_only_rax_rcx_rip() -> None:
    t = thread()
    expected = outside(t.lp, flags=RFLAGS_STATUS)
    assert t.lp.enclu(EENTER, t.tcs_address, AEP, expected[RDX]) is None
    expected[RAX], expected[RBX] = 0, t.tcs_address
    expected[RCX], expected[RIP] = expected[RIP] + 3, ENTRY_POINT
    assert t.registers == expected


def test_eenter_activates_the_tcs() -> None:
    t = thread()
    fresh = t.tcs
    t.enter()
    assert t.tcs == fresh.replace(STATE=TCS_ACTIVE, AEP=AEP)


def test_eenter_switches_the_processor_to_the_enclave() -> None:
    t = thread(tcs={"OFSBASGX": 0x3000, "OGSBASGX": 0x5000})
    outside(t.lp)
    t.enter()
    lp = t.lp
    assert lp.enclave_mode
    assert lp.secs is t.bare.processor.secs[t.enclave.secs]
    assert (lp.tcs_page, lp.tcs_address) == (t.tcs_page, t.tcs_address)
    assert (lp.elrange_base, lp.elrange_end) == (ENCLAVE_BASE, ENCLAVE_BASE + (1 << 20))
    assert (lp.fsbase, lp.gsbase) == (ENCLAVE_BASE + 0x3000, ENCLAVE_BASE + 0x5000)
    assert lp.xcr0 == 3


def test_eenter_records_the_outside_stack_in_the_next_frame() -> None:
    t = thread()
    t.set_ssa(0, b"\xa5" * PAGE_SIZE)
    t.lp.regs[RSP], t.lp.regs[RBP] = 0x1111, 0x2222
    t.enter()
    at = PAGE_SIZE - GPRSGX.SIZE + GPR_OFF_URSP
    stack = (0x1111).to_bytes(8, "little") + (0x2222).to_bytes(8, "little")
    assert t.ssa() == b"\xa5" * at + stack + b"\xa5" * (PAGE_SIZE - at - 16)


def test_eenter_leaves_extended_state_alone() -> None:
    t = thread(xfrm=7)
    t.lp.x.components[2] = b"\x77" * 256
    key = t.lp.x.key()
    t.enter()
    assert t.lp.x.key() == key


def test_eenter_flushes_the_tlb() -> None:
    t = thread()
    t.map_ram(0x5000)
    t.lp.load(0x5000, 1)
    assert list(t.lp.tlb.entries) == [5]
    t.enter()
    assert t.lp.tlb.entries == {}


def test_eenter_counts_the_processor_in_the_epoch() -> None:
    t = thread()
    secs = t.bare.processor.secs[t.enclave.secs]
    t.bare.etrack(t.enclave.secs)
    t.enter()
    assert (secs.EPOCH, secs.current, secs.previous) == (1, 1, 0)
    assert t.lp.epoch == 1


def test_eenter_changes_no_epcm_entry() -> None:
    t = thread()
    entries = bytes(t.bare.processor.epcm.digest_bytes())
    t.enter()
    assert bytes(t.bare.processor.epcm.digest_bytes()) == entries


def test_eenter_on_an_interrupted_thread_uses_the_next_frame() -> None:
    t = thread()
    t.enter()
    t.lp.interrupt()
    first = t.ssa(0)
    t.lp.regs[RSP] = 0x3333
    t.enter()
    assert t.lp.regs[RAX] == 1
    assert t.tcs.CSSA == 1
    assert t.ssa(0) == first
    assert t.gpr(1).URSP == 0x3333
    assert t.lp.ssa_frame == (t.bare.processor.epc.physical(t.frame_page(1)),)


# TF: an opt-out entry hides it from the enclave, an opt-in entry does not.
@pytest.mark.parametrize("opt_in", [False, True])
@pytest.mark.parametrize("flag", [0, RFLAGS_TF])
def test_eenter_clears_tf_on_opt_out(flag: int, opt_in: bool) -> None:
    t = thread()
    t.opt_in(int(opt_in))
    flags = outside(t.lp, flags=flag)[RFLAGS]
    t.enter()
    assert t.lp.regs[RFLAGS] == (flags if opt_in else flags & ~RFLAGS_TF)
    t.exit()
    assert t.lp.regs[RFLAGS] == flags


@pytest.mark.parametrize("leave", ["EEXIT", "AEX"])
@pytest.mark.parametrize("entered_opt_in", [False, True])
def test_dbgoptin_is_that_of_the_entry(entered_opt_in: bool, leave: str) -> None:
    """A debugger may change TCS.FLAGS while the thread is inside; this entry stays what it was."""
    t = thread()
    t.opt_in(int(entered_opt_in))
    outside(t.lp, flags=RFLAGS_TF)
    t.enter()
    t.opt_in(int(not entered_opt_in))
    t.lp.regs[RFLAGS] &= ~RFLAGS_TF
    if leave == "EEXIT":
        t.exit()
    else:
        t.lp.interrupt()
    # Opt-out restores TF of the outside, opt-in leaves what the enclave made of it.
    assert bool(t.lp.regs[RFLAGS] & RFLAGS_TF) is not entered_opt_in
