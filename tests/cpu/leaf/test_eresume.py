"""ERESUME: every check and its place, and what it restores. SDM 3D, ERESUME."""

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.cpu.bare import AEP
from softsgx.spec.leaves import ERESUME
from softsgx.spec.msr import RFLAGS_FIXED, RFLAGS_IF, RFLAGS_IOPL, RFLAGS_TF
from softsgx.spec.registers import RBP, RFLAGS, RIP, RSP
from softsgx.spec.tcs import TCS_ACTIVE
from tests.cpu.entry_spoils import BASES, MACHINE, frame_spoils, gp_at, tcs_spoils, trials
from tests.cpu.spoil import Spoil, spoil_id
from tests.cpu.table import Row, row_id, run_row
from tests.cpu.thread import Thread, before, outside, thread

XSTATE_BV, XCOMP_BV, HEADER_RESERVED, MXCSR = 512, 520, 528, 24
INSIDE_RIP = 0x7F00_0000_0ABC


def malformed(offset: int, value: int, note: str) -> Spoil[Thread]:
    """An XSAVE image that XRSTOR refuses: 8 bytes of the frame changed by XOR."""

    def change(t: Thread) -> None:
        old = int.from_bytes(t.ssa()[offset : offset + 8], "little")
        t.set_ssa(offset, (old ^ value).to_bytes(8, "little"))

    return gp_at("ERESUME.11", f"xsave-{offset}", change, note)


NO_FRAME = gp_at("ERESUME.09", "cssa", lambda t: t.set_tcs(CSSA=0))
XRSTOR = [
    malformed(XSTATE_BV, 1 << 2, "AVX, which XFRM lacks"),
    malformed(XSTATE_BV, 1 << 62, "unknown component"),
    malformed(XCOMP_BV, 1, "XCOMP_BV[0]"),
    malformed(XCOMP_BV, 1 << 63, "compacted format"),
    malformed(HEADER_RESERVED, 1, "header byte 16"),
    malformed(HEADER_RESERVED, 1 << 63, "header byte 23"),
    malformed(MXCSR, 1 << 16, "MXCSR bit 16"),
    malformed(MXCSR, 1 << 31, "MXCSR bit 31"),
]
OPERANDS = tcs_spoils(ERESUME)
LISTING = [*OPERANDS, *MACHINE, NO_FRAME, *frame_spoils(), *BASES[ERESUME], *XRSTOR]

ROWS = trials(ERESUME).rows([*OPERANDS, NO_FRAME, *XRSTOR])


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eresume_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", LISTING[: -len(XRSTOR)], ids=spoil_id)
def test_eresume_order(first: Spoil[Thread]) -> None:
    assert trials(ERESUME).verify_order(LISTING, first) > 0


@pytest.mark.parametrize("byte", [24, 40, 63])
def test_eresume_ignores_the_rest_of_the_xsave_header(byte: int) -> None:
    """Only bytes 23:8 of the header count. SDM 1, 13.8.1 "Standard Form of XRSTOR"."""
    t = before(ERESUME)
    t.set_ssa(XSTATE_BV + byte, b"\xff")
    t.resume()
    assert t.lp.enclave_mode


def test_a_refused_eresume_can_be_repeated() -> None:
    t = before(ERESUME)
    t.set_ssa(XCOMP_BV, b"\x01")
    with pytest.raises(Fault):
        t.resume()
    assert (t.tcs.STATE, t.tcs.CSSA) == (0, 1)
    t.set_ssa(XCOMP_BV, b"\x00")
    t.resume()
    assert t.lp.enclave_mode


def interrupted(
    *, opt_in: bool = False, readings: Readings | None = None
) -> tuple[Thread, list[int]]:
    """A thread interrupted with known registers; those registers, TF and RF aside."""
    t = thread(readings=readings)
    t.opt_in(int(opt_in))
    outside(t.lp)
    t.enter()
    regs = [0xABC0_0000_0000_0000 + number for number in range(16)]
    t.lp.regs[:] = [*regs, RFLAGS_FIXED | RFLAGS_IF, INSIDE_RIP]
    t.lp.fsbase, t.lp.gsbase = 0x11_1000, 0x22_2000
    expected = t.registers
    t.lp.interrupt()
    return t, expected


def test_eresume_restores_every_register() -> None:
    t, expected = interrupted()
    outside(t.lp, first=0x5000)
    t.resume()
    assert t.registers == expected
    assert (t.lp.fsbase, t.lp.gsbase) == (0x11_1000, 0x22_2000)


def test_eresume_takes_what_the_frame_says_now() -> None:
    """An exception handler inside may have changed the frame."""
    t, expected = interrupted()
    t.set_gpr(RIP=0x7F00_0000_0200, RSP=0x42, RFLAGS=RFLAGS_FIXED)
    t.resume()
    assert t.lp.regs[RIP] == 0x7F00_0000_0200
    assert t.lp.regs[RSP] == 0x42
    assert t.lp.regs[:RSP] + t.lp.regs[RBP:RFLAGS] == expected[:RSP] + expected[RBP:RFLAGS]


def test_eresume_pops_the_frame_and_activates_the_tcs() -> None:
    t, _ = interrupted()
    tcs, frames = t.tcs, (t.ssa(0), t.ssa(1))
    t.lp.enclu(ERESUME, t.tcs_address, AEP + 0x10)
    assert t.tcs == tcs.replace(CSSA=0, STATE=TCS_ACTIVE, AEP=AEP + 0x10)
    assert (t.ssa(0), t.ssa(1)) == frames
    assert t.lp.ssa_frame == (t.bare.processor.epc.physical(t.frame_page(0)),)


def test_eresume_saves_the_outside_for_the_next_exit() -> None:
    t, _ = interrupted()
    t.lp.fsbase, t.lp.gsbase = 0xF000, 0xE000
    t.resume()
    assert t.lp.xcr0 == 3
    t.exit()
    assert (t.lp.fsbase, t.lp.gsbase, t.lp.xcr0) == (0xF000, 0xE000, 7)


def test_eresume_flushes_the_tlb() -> None:
    t, _ = interrupted()
    t.map_ram(0x5000)
    t.lp.load(0x5000, 1)
    t.resume()
    assert t.lp.tlb.entries == {}


def test_eresume_counts_the_processor_in_the_current_epoch() -> None:
    t, _ = interrupted()
    t.bare.etrack(t.enclave.secs)
    t.resume()
    secs = t.bare.processor.secs[t.enclave.secs]
    assert (secs.EPOCH, secs.current, secs.previous) == (1, 1, 0)


# RFLAGS bit -> where ERESUME takes it from.
FROM_SSA = {0, 2, 4, 6, 7, 10, 11, 14, 16, 18, 21}  # CF PF AF ZF SF DF OF NT RF AC ID
FROM_OUTSIDE = {9, 12, 13, 19, 20}  # IF while IOPL < 3, IOPL, VIF, VIP


@pytest.mark.parametrize("bit", sorted(FROM_SSA | FROM_OUTSIDE))
@pytest.mark.parametrize(("saved", "held"), [(0, 1), (1, 0)])
def test_eresume_rflags(bit: int, saved: int, held: int) -> None:
    t, _ = interrupted()
    t.set_gpr(RFLAGS=RFLAGS_FIXED | saved << bit)
    t.lp.regs[RFLAGS] = RFLAGS_FIXED | held << bit
    t.resume()
    assert t.lp.regs[RFLAGS] == RFLAGS_FIXED | (saved if bit in FROM_SSA else held) << bit


def test_eresume_never_sets_vm() -> None:
    t, _ = interrupted()
    t.set_gpr(RFLAGS=RFLAGS_FIXED | 1 << 17)
    t.resume()
    assert t.lp.regs[RFLAGS] == RFLAGS_FIXED | RFLAGS_IF


@pytest.mark.parametrize("iopl", range(4))
@pytest.mark.parametrize(("saved", "held"), [(0, RFLAGS_IF), (RFLAGS_IF, 0)])
def test_eresume_takes_if_only_with_iopl_3(iopl: int, saved: int, held: int) -> None:
    t, _ = interrupted()
    t.set_gpr(RFLAGS=RFLAGS_FIXED | saved)
    t.lp.regs[RFLAGS] = RFLAGS_FIXED | held | iopl << 12
    t.resume()
    assert t.lp.regs[RFLAGS] & RFLAGS_IOPL == iopl << 12
    assert t.lp.regs[RFLAGS] & RFLAGS_IF == (saved if iopl == 3 else held)


@pytest.mark.parametrize("opt_in", [False, True])
@pytest.mark.parametrize("saved", [0, RFLAGS_TF])
@pytest.mark.parametrize("held", [0, RFLAGS_TF])
def test_eresume_tf_is_never_that_of_the_frame(held: int, saved: int, opt_in: bool) -> None:
    """Opt-out: TF is 0 inside, and back at the exit. Opt-in: a debugger steps with its own TF."""
    t, _ = interrupted(opt_in=opt_in)
    t.set_gpr(RFLAGS=RFLAGS_FIXED | saved)
    t.lp.regs[RFLAGS] = RFLAGS_FIXED | held
    t.resume()
    assert t.lp.regs[RFLAGS] & RFLAGS_TF == (held if opt_in else 0)
    t.exit()
    assert t.lp.regs[RFLAGS] & RFLAGS_TF == held


@pytest.mark.parametrize("updates", [False, True])
def test_reading_eresume_updates_ursp(updates: bool) -> None:
    """Whether the next AEX finds the outside stack of the entry or that of the resumption."""
    t, _ = interrupted(readings=Readings(eresume_updates_ursp=updates))
    entered = t.gpr().URSP, t.gpr().URBP
    t.lp.regs[RSP], t.lp.regs[RBP] = 0x8000, 0x9000
    t.resume()
    now = (0x8000, 0x9000) if updates else entered
    assert now == (t.gpr().URSP, t.gpr().URBP)
    t.lp.interrupt()
    assert (t.lp.regs[RSP], t.lp.regs[RBP]) == now
