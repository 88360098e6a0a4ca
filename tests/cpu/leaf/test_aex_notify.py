"""AEX-Notify: ERESUME that enters the enclave's handler instead, and EDECCSSA inside it."""

import pytest

from softsgx.cpu.bare import AEP, ENCLAVE_BASE
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.leaves import EDECCSSA, ERESUME
from softsgx.spec.msr import RFLAGS_STATUS, RFLAGS_TF
from softsgx.spec.registers import RAX, RBP, RBX, RCX, RDX, RFLAGS, RIP, RSP
from softsgx.spec.ssa import GPR_OFF_URSP, GPRSGX
from softsgx.spec.tcs import TCS_ACTIVE
from tests.cpu.entry_spoils import BASES_OF_TCS, frame_spoils, gp_at, trials
from tests.cpu.spoil import Spoil, spoil_id
from tests.cpu.table import Row, execute, row_id, run_row
from tests.cpu.thread import NON_CANONICAL, Thread, before, kept, notifying, outside, thread

ENTRY_POINT = ENCLAVE_BASE + 0x100


def ready() -> Thread:
    """Interrupted once; frame 0 asks for a notice, frame 1 will be the handler's."""
    return notifying(tcs={"OFSBASGX": 0x3000, "OGSBASGX": 0x5000})


NO_FRAME = gp_at("ERESUME.10", "nssa", lambda t: t.set_tcs(NSSA=1))
# The interrupted frame is tested first, since it asks for the notice; then that of the next AEX.
INTERRUPTED, NEXT = frame_spoils(0), frame_spoils(1)
LISTING = [*INTERRUPTED, NO_FRAME, *NEXT, *BASES_OF_TCS]
ROWS = [
    *trials(ERESUME, ready).rows(INTERRUPTED, "notify interrupted"),
    *trials(ERESUME, ready).rows(NEXT, "notify next"),
    *trials(ERESUME, ready).rows([NO_FRAME, *BASES_OF_TCS], "notify"),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eresume_with_notice_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", LISTING[:-1], ids=spoil_id)
def test_eresume_with_notice_order(first: Spoil[Thread]) -> None:
    assert trials(ERESUME, ready).verify_order(LISTING, first) > 0


@pytest.mark.parametrize("tcs_asks", [False, True])
@pytest.mark.parametrize("frame_asks", [0, 1, 0xFE, 0xFF])
def test_notice_needs_both_tcs_and_frame(frame_asks: int, tcs_asks: bool) -> None:
    t = before(ERESUME, ready if tcs_asks else thread)
    t.set_gpr(AEXNOTIFY=frame_asks)
    t.resume()
    assert (1 if tcs_asks and frame_asks & 1 else 0) == t.tcs.CSSA


def test_notice_looks_at_the_flags_of_the_tcs_not_of_the_enclave() -> None:
    """An opt-in TCS may ask for notices in an enclave that does not."""
    t = before(ERESUME)
    t.opt_in(3)
    t.set_gpr(AEXNOTIFY=1)
    t.resume()
    assert t.lp.regs[RIP] == ENTRY_POINT


def test_notice_enters_the_handler() -> None:
    t = ready()
    expected = outside(t.lp, flags=RFLAGS_STATUS)
    t.lp.enclu(ERESUME, t.tcs_address, AEP, expected[RDX])
    expected[RAX], expected[RBX] = 1, t.tcs_address
    expected[RCX], expected[RIP] = expected[RIP] + 3, ENTRY_POINT
    assert t.registers == expected
    assert (t.lp.fsbase, t.lp.gsbase) == (ENCLAVE_BASE + 0x3000, ENCLAVE_BASE + 0x5000)
    assert t.lp.xcr0 == 3


def test_notice_leaves_the_interrupted_frame() -> None:
    t = ready()
    tcs, interrupted = t.tcs, t.ssa(0)
    t.lp.enclu(ERESUME, t.tcs_address, AEP + 8)
    assert t.tcs == tcs.replace(STATE=TCS_ACTIVE, AEP=AEP + 8)
    assert t.tcs.CSSA == 1
    assert t.ssa(0) == interrupted


def test_notice_records_the_outside_stack_in_the_next_frame() -> None:
    t = ready()
    t.set_ssa(0, b"\xa5" * PAGE_SIZE, 1)
    t.lp.regs[RSP], t.lp.regs[RBP] = 0x1111, 0x2222
    t.resume()
    at = PAGE_SIZE - GPRSGX.SIZE + GPR_OFF_URSP
    stack = (0x1111).to_bytes(8, "little") + (0x2222).to_bytes(8, "little")
    assert t.ssa(1) == b"\xa5" * at + stack + b"\xa5" * (PAGE_SIZE - at - 16)
    assert t.lp.ssa_frame == (t.bare.processor.epc.physical(t.frame_page(1)),)


def test_notice_restores_no_extended_state() -> None:
    t = ready()
    t.lp.x.components[2] = b"\x44" * 256
    key = t.lp.x.key()
    t.resume()
    assert t.lp.x.key() == key


def test_notice_does_not_look_at_what_it_does_not_restore() -> None:
    t = kept(ERESUME, ready)
    t.set_gpr(RIP=NON_CANONICAL, FSBASE=NON_CANONICAL, GSBASE=NON_CANONICAL)
    t.set_ssa(512, b"\xff" * 64)
    execute(t.attempt())
    assert t.lp.regs[RIP] == ENTRY_POINT


@pytest.mark.parametrize("opt_in", [False, True])
def test_notice_treats_tf_as_eenter_does(opt_in: bool) -> None:
    t = ready()
    t.opt_in(2 | opt_in)
    outside(t.lp, flags=RFLAGS_TF)
    t.resume()
    assert t.lp.regs[RFLAGS] & RFLAGS_TF == (RFLAGS_TF if opt_in else 0)
    t.exit()
    assert t.lp.regs[RFLAGS] & RFLAGS_TF


def test_notice_flushes_and_counts() -> None:
    t = ready()
    t.map_ram(0x5000)
    t.lp.load(0x5000, 1)
    t.bare.etrack(t.enclave.secs)
    t.resume()
    secs = t.bare.processor.secs[t.enclave.secs]
    assert t.lp.tlb.entries == {}
    assert (secs.EPOCH, secs.current, secs.previous) == (1, 1, 0)


def test_notice_needs_a_second_frame() -> None:
    t = notifying(frames=1)
    row = Row("ERESUME.10", lambda: t.attempt(), NO_FRAME.expected)
    t.leaf, t.rbx = ERESUME, t.tcs_address
    run_row(row)
    t.set_gpr(AEXNOTIFY=0)
    t.resume()
    assert t.tcs.CSSA == 0


def test_handler_goes_back_with_edeccssa() -> None:
    """The whole of AEX-Notify: interrupt, notice, handler, back in the thread without leaving."""
    t = ready()
    thread_rip = t.gpr(0).RIP
    t.resume()
    assert t.lp.regs[RAX] == 1
    # The handler restores registers from frame 0 by itself; EDECCSSA makes the frame free again.
    t.lp.enclu(EDECCSSA)
    assert t.tcs.CSSA == 0
    t.lp.regs[RIP] = thread_rip
    t.lp.interrupt()
    assert (1, thread_rip) == (t.tcs.CSSA, t.gpr(0).RIP)
    t.resume()
    assert t.lp.regs[RIP] == ENTRY_POINT, "the frame still asks: AEX does not write AEXNOTIFY"


def test_handler_may_be_interrupted_itself() -> None:
    t = notifying(frames=3)
    t.resume()
    t.lp.interrupt()
    assert t.tcs.CSSA == 2
    t.resume()
    assert (t.tcs.CSSA, t.lp.regs[RIP]) == (1, ENTRY_POINT), "frame 1 asks for no notice"
    t.exit()
    t.resume()
    assert (t.tcs.CSSA, t.lp.regs[RAX]) == (1, 1), "and frame 0 still does"
