"""Asynchronous exit: what is saved in the SSA frame, and that saving never fails.

SDM 3D, 40 "Enclave Exiting Events". The synthetic state is in test_aex_synthetic.py, the extended
state in test_aex_state.py, EXITINFO and EXINFO in test_exitinfo.py.
"""

from collections.abc import Callable

import pytest

from softsgx.cpu import Delivered, Fault
from softsgx.cpu.bare import ENCLAVE_BASE
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import BLOCKED, PR, REG, TRIM, VALID, R
from softsgx.spec.faults import AC, BP, BR, CP, DB, DE, GP, MC, MF, NM, NMI, PF, SS, UD, XM
from softsgx.spec.msr import RFLAGS_FIXED, RFLAGS_IF, RFLAGS_RF, RFLAGS_STATUS, RFLAGS_TF
from softsgx.spec.registers import RBP, RFLAGS, RIP, RSP
from softsgx.spec.ssa import GPRSGX
from softsgx.spec.tcs import TCS_INACTIVE
from tests.cpu.thread import Thread, notifying, outside, thread

INSIDE_RIP = ENCLAVE_BASE + 0x777
FLAGS = RFLAGS_FIXED | RFLAGS_IF


def inside(*, flags: int = FLAGS, opt_in: bool = False, frame_pages: int = 1) -> Thread:
    """A thread inside whose registers are all different."""
    t = thread(frame_pages=frame_pages)
    t.opt_in(int(opt_in))
    outside(t.lp)
    t.enter()
    t.lp.regs[:] = [*(0xE000_0000_0000_0000 + number for number in range(16)), flags, INSIDE_RIP]
    t.lp.fsbase, t.lp.gsbase = 0x12_3000, 0x45_6000
    return t


def saved_registers(t: Thread, index: int = 0) -> list[int]:
    """RAX..R15, RFLAGS, RIP of an SSA frame."""
    raw = t.ssa(index)[-GPRSGX.SIZE :]
    return [int.from_bytes(raw[8 * n : 8 * n + 8], "little") for n in range(18)]


@pytest.mark.parametrize("frame_pages", [1, 2, 5])
def test_aex_saves_every_register(frame_pages: int) -> None:
    t = inside(flags=FLAGS | RFLAGS_STATUS, frame_pages=frame_pages)
    expected = t.registers
    t.lp.interrupt()
    assert saved_registers(t) == expected
    assert (t.gpr().FSBASE, t.gpr().GSBASE) == (0x12_3000, 0x45_6000)


def test_aex_leaves_the_other_fields_of_gprsgx() -> None:
    t = inside()
    stack = t.gpr().URSP, t.gpr().URBP
    at = PAGE_SIZE - GPRSGX.SIZE
    t.set_ssa(at + 164, b"\xaa\xbb\xcc\xdd")  # reserved, and AEXNOTIFY
    t.lp.interrupt()
    assert stack == (t.gpr().URSP, t.gpr().URBP)
    assert t.ssa()[at + 164 : at + 168] == b"\xaa\xbb\xcc\xdd"


def test_aex_leaves_the_pad_between_xsave_and_misc() -> None:
    t = inside()
    pad = b"\x5a" * (PAGE_SIZE - 576 - 16 - GPRSGX.SIZE)
    t.set_ssa(576, pad)
    t.lp.deliver(PF, 6, 0x1234)
    assert t.ssa()[576 : 576 + len(pad)] == pad


# Outside an enclave, too, the pushed image has RF set for faults, and is not changed otherwise.
FAULTS = (DE, BR, UD, NM, SS, GP, PF, MF, AC, XM, CP)
OTHERS = (DB, NMI, BP, MC)


@pytest.mark.parametrize("rf", [0, RFLAGS_RF])
@pytest.mark.parametrize("vector", FAULTS)
def test_saved_rf_is_1_for_faults(vector: int, rf: int) -> None:
    t = inside(flags=FLAGS | rf)
    t.lp.deliver(vector)
    assert t.gpr().RFLAGS == FLAGS | RFLAGS_RF


@pytest.mark.parametrize("rf", [0, RFLAGS_RF])
@pytest.mark.parametrize("vector", OTHERS)
def test_saved_rf_is_unmodified_for_traps_and_aborts(vector: int, rf: int) -> None:
    t = inside(flags=FLAGS | rf)
    t.lp.deliver(vector)
    assert FLAGS | rf == t.gpr().RFLAGS


@pytest.mark.parametrize("rf", [0, RFLAGS_RF])
@pytest.mark.parametrize("vector", [16, 17, 19, 21, 0x20, 0x80, 0xFB, 0xFF])
def test_saved_rf_is_unmodified_for_interrupts(vector: int, rf: int) -> None:
    """Also for one that has the vector of an exception."""
    t = inside(flags=FLAGS | rf)
    t.lp.interrupt(vector)
    assert FLAGS | rf == t.gpr().RFLAGS


@pytest.mark.parametrize("opt_in", [False, True])
def test_saved_tf_is_0(opt_in: bool) -> None:
    t = inside(flags=FLAGS | RFLAGS_TF, opt_in=opt_in)
    t.lp.deliver(DB)
    assert t.gpr().RFLAGS == FLAGS


@pytest.mark.parametrize("vector", [UD, BP, DB, PF])
def test_saved_rip_is_where_execution_goes_on(vector: int) -> None:
    """The faulting instruction, or the one after a trap: RIP as the event finds it."""
    t = inside()
    t.lp.deliver(vector)
    assert t.gpr().RIP == INSIDE_RIP


@pytest.mark.parametrize("frame_pages", [1, 3])
def test_aex_takes_the_next_frame_each_time(frame_pages: int) -> None:
    t = thread(frames=3, frame_pages=frame_pages)
    for depth in range(3):
        t.enter()
        t.lp.regs[RIP] = INSIDE_RIP + depth
        t.lp.interrupt()
        assert depth + 1 == t.tcs.CSSA
    assert [t.gpr(index).RIP - INSIDE_RIP for index in range(3)] == [0, 1, 2]


def test_aex_leaves_the_enclave() -> None:
    t = inside()
    secs = t.bare.processor.secs[t.enclave.secs]
    t.lp.load(t.enclave.data[0], 1)
    running = t.tcs
    t.lp.interrupt()
    lp = t.lp
    assert not lp.enclave_mode
    assert (lp.secs_page, lp.tcs_page, lp.tcs_address, lp.ssa_frame) == (-1, -1, 0, ())
    assert (lp.elrange_base, lp.elrange_end) == (0, 0)
    assert lp.tlb.entries == {}
    assert (secs.current, secs.previous) == (0, 0)
    assert t.tcs == running.replace(CSSA=1, STATE=TCS_INACTIVE)


@pytest.mark.parametrize("leave", ["EEXIT", "AEX"])
def test_nothing_of_the_entry_remains(leave: str) -> None:
    """Processors outside are in the same state however they came there, so states compare."""
    t = thread()
    t.opt_in()
    t.bare.etrack(t.enclave.secs)
    outside(t.lp)
    t.enter()
    assert (t.lp.epoch, t.lp.dbgoptin, t.lp.outside[2]) == (1, True, 7)
    if leave == "EEXIT":
        t.exit()
    else:
        t.lp.interrupt()
    lp = t.lp
    assert (lp.epoch, lp.entry, lp.dbgoptin, lp.outside) == (0, 0, False, (0, 0, 0, 0))


def test_aex_leaves_the_epoch_it_entered() -> None:
    t = inside()
    secs = t.bare.processor.secs[t.enclave.secs]
    assert t.bare.etrack(t.enclave.secs, t.other) == 0
    assert (secs.current, secs.previous) == (0, 1)
    t.lp.interrupt()
    assert (secs.current, secs.previous) == (0, 0)


def test_no_aex_outside() -> None:
    t = thread()
    before = t.bare.processor.fingerprint()
    assert t.lp.deliver(PF, 4, 0x1234) == Delivered(PF, 4, 0x1234, from_enclave=False)
    assert t.lp.interrupt(0x31) == Delivered(0x31, 0, 0, from_enclave=False)
    assert t.bare.processor.fingerprint() == before


def unmapped(t: Thread) -> None:
    t.bare.processor.space.unmap(t.frame())


def read_only(t: Thread) -> None:
    processor = t.bare.processor
    processor.space.map(t.frame(), processor.epc.pfn(t.frame_page()), write=False)


def remapped(t: Thread) -> None:
    t.map_ram(t.frame())


def blocked(t: Thread) -> None:
    t.bare.eblock(t.frame_page(), t.other)
    assert t.bare.word(t.frame_page()) & BLOCKED


def restricted(t: Thread) -> None:
    t.bare.emodpr(t.frame_page(), R, t.other)
    assert t.bare.word(t.frame_page()) == VALID | REG | PR | R


def trimmed(t: Thread) -> None:
    t.bare.emodt(t.frame_page(), TRIM, t.other)


def without_tcs(t: Thread) -> None:
    t.bare.processor.space.unmap(t.tcs_address)
    t.bare.eblock(t.tcs_page, t.other)


MEANWHILE = [unmapped, read_only, remapped, blocked, restricted, trimmed, without_tcs]


@pytest.mark.parametrize("meanwhile", MEANWHILE, ids=lambda change: change.__name__)
def test_aex_uses_the_addresses_cached_at_entry(meanwhile: Callable[[Thread], None]) -> None:
    """Whatever becomes of the pages after the entry, AEX saves to them and does not fault."""
    t = inside()
    expected = t.registers
    meanwhile(t)
    assert t.lp.interrupt().from_enclave
    assert saved_registers(t) == expected
    assert t.tcs.CSSA == 1
    # The next entry looks again.
    with pytest.raises(Fault) as refused:
        t.resume()
    assert refused.value.vector == PF


def test_handler_finds_the_frame_and_changes_it() -> None:
    """A nested exception: AEX, EENTER on the next frame, repair frame 0 from inside, ERESUME."""
    t = inside()
    interrupted = t.registers
    assert t.lp.deliver(UD).vector == UD
    t.enter()
    gpr = GPRSGX.unpack(t.lp.load(t.frame() + PAGE_SIZE - GPRSGX.SIZE, GPRSGX.SIZE))
    assert gpr.EXITINFO == 0x8000_0306
    t.lp.store(t.frame() + PAGE_SIZE - GPRSGX.SIZE, gpr.replace(RIP=gpr.RIP + 2).pack())
    t.exit()
    assert t.tcs.CSSA == 1
    t.resume()
    interrupted[RIP] += 2
    interrupted[RFLAGS] |= RFLAGS_RF
    assert t.registers == interrupted
    assert t.tcs.CSSA == 0


def test_exception_in_the_handler_nests() -> None:
    t = thread(frames=3)
    for depth in range(3):
        t.lp.regs[RSP], t.lp.regs[RBP] = 0x1000 * (depth + 1), 0x100 * (depth + 1)
        t.enter()
        t.lp.regs[RIP] = INSIDE_RIP + depth
        t.lp.deliver(UD)
        # Each AEX gives back the stack of its own entry.
        assert (t.lp.regs[RSP], t.lp.regs[RBP]) == (0x1000 * (depth + 1), 0x100 * (depth + 1))
    for depth in reversed(range(3)):
        t.resume()
        assert (t.tcs.CSSA, t.lp.regs[RIP]) == (depth, INSIDE_RIP + depth)
        t.exit()
    with pytest.raises(Fault) as refused:
        t.resume()
    assert refused.value.rule == "ERESUME.09"


def test_aex_does_not_write_aexnotify() -> None:
    t = notifying()
    t.set_gpr(AEXNOTIFY=1)
    t.resume()
    t.exit()
    assert t.gpr().AEXNOTIFY == 1
