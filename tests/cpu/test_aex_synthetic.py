"""The state an AEX loads: what the operating system finds in the interrupted context.

SDM 3D, 40.3 "Synthetic State on Asynchronous Enclave Exit".
"""

import struct

import pytest

from softsgx.cpu import Delivered, Readings
from softsgx.cpu.bare import AEP, ENCLAVE_BASE
from softsgx.spec.bits import MASK64, PAGE_MASK
from softsgx.spec.faults import DB, GP, MF, NMI, PF, UD, XM
from softsgx.spec.leaves import ERESUME
from softsgx.spec.msr import RFLAGS_FIXED, RFLAGS_IF, RFLAGS_TF
from softsgx.spec.registers import RAX, RBP, RBX, RCX, RFLAGS, RIP, RSP
from tests.cpu.thread import Thread, outside, thread

FLAGS = RFLAGS_FIXED | RFLAGS_IF
CLEARED = {0, 2, 4, 6, 7, 11, 16}  # CF PF AF ZF SF OF RF
KEPT = {9, 10, 12, 13, 14, 18, 19, 20, 21}  # IF DF IOPL NT AC VIF VIP ID


def inside(*, opt_in: bool = False, tf: bool = False, readings: Readings | None = None) -> Thread:
    """A thread inside with all registers set to ones."""
    t = thread(readings=readings, xfrm=7)
    t.opt_in(int(opt_in))
    outside(t.lp, flags=RFLAGS_TF if tf else 0)
    t.lp.regs[RSP], t.lp.regs[RBP] = 0x7FFF_1000, 0x7FFF_2000
    t.enter()
    t.lp.regs[:] = [*([MASK64] * 16), FLAGS, ENCLAVE_BASE + 0x777]
    t.lp.fsbase, t.lp.gsbase = 0x11_1000, 0x22_2000
    return t


@pytest.mark.parametrize("vector", [UD, PF, NMI, DB, 0xFB])
def test_synthetic_registers(vector: int) -> None:
    t = inside()
    t.lp.deliver(vector, 4, 0x1234)
    expected = [0] * 18
    expected[RAX], expected[RBX], expected[RCX] = ERESUME, t.tcs_address, AEP
    expected[RSP], expected[RBP] = 0x7FFF_1000, 0x7FFF_2000
    expected[RFLAGS], expected[RIP] = FLAGS, AEP
    assert t.registers == expected


def test_synthetic_state_is_ready_for_eresume() -> None:
    """ENCLU at the AEP with the registers as they are resumes the thread."""
    t = inside()
    t.lp.interrupt()
    t.lp.enclu(t.lp.regs[RAX], t.lp.regs[RBX], t.lp.regs[RCX])
    assert t.registers == [*([MASK64] * 16), FLAGS, ENCLAVE_BASE + 0x777]


@pytest.mark.parametrize("held", [0, 1])
@pytest.mark.parametrize("bit", sorted(CLEARED | KEPT))
def test_synthetic_rflags(bit: int, held: int) -> None:
    t = inside()
    t.lp.regs[RFLAGS] = RFLAGS_FIXED | held << bit
    t.lp.interrupt()
    assert t.lp.regs[RFLAGS] == RFLAGS_FIXED | (0 if bit in CLEARED else held) << bit


@pytest.mark.parametrize("entered", [False, True])
def test_synthetic_tf_after_opt_out_is_that_of_the_entry(entered: bool) -> None:
    t = inside(tf=entered)
    assert not t.lp.regs[RFLAGS] & RFLAGS_TF
    t.lp.interrupt()
    assert bool(t.lp.regs[RFLAGS] & RFLAGS_TF) is entered


@pytest.mark.parametrize("entered", [False, True])
@pytest.mark.parametrize("held", [0, RFLAGS_TF])
def test_synthetic_tf_after_opt_in_is_unchanged(held: int, entered: bool) -> None:
    t = inside(opt_in=True, tf=entered)
    t.lp.regs[RFLAGS] = FLAGS | held
    t.lp.interrupt()
    assert t.lp.regs[RFLAGS] == FLAGS | held


def legacy(t: Thread) -> tuple[int, int, int]:
    """FCW, FSW, MXCSR."""
    fcw, fsw = struct.unpack_from("<HH", t.lp.x.legacy, 0)
    return fcw, fsw, int.from_bytes(t.lp.x.legacy[24:28], "little")


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        (MF, (0x037E, 0x8081, 0x1F80)),
        (XM, (0x037F, 0, 0x1F01)),
        (UD, (0x037F, 0, 0x1F80)),
        (PF, (0x037F, 0, 0x1F80)),
        (GP, (0x037F, 0, 0x1F80)),
        (0xFB, (0x037F, 0, 0x1F80)),
    ],
)
def test_synthetic_x87_and_sse(vector: int, expected: tuple[int, int, int]) -> None:
    """A pending #MF or #XM must be one that the handler can see, and reveal nothing else."""
    t = inside()
    t.lp.x.legacy = b"\x00" * 24 + b"\xc0\x1f\x00\x00" + b"\xff" * (512 - 28)
    t.lp.deliver(vector)
    assert legacy(t) == expected
    assert t.lp.x.legacy[4:24] == bytes(20), "FTW, FOP, FIP, FDP"
    assert t.lp.x.legacy[28:32] == b"\xff\xff\x00\x00", "MXCSR_MASK"
    assert t.lp.x.legacy[32:] == bytes(480), "ST and XMM registers"


@pytest.mark.parametrize("vector", [MF, XM])
def test_interrupt_with_the_vector_of_mf_or_xm_loads_init_state(vector: int) -> None:
    t = inside()
    t.lp.interrupt(vector)
    assert legacy(t) == (0x037F, 0, 0x1F80)


@pytest.mark.parametrize("mxcsr", [0x1F80, 0x1FB0])
def test_reading_aex_mxcsr(mxcsr: int) -> None:
    readings = Readings(aex_mxcsr=mxcsr)
    for vector, expected in ((UD, mxcsr), (0xFB, mxcsr), (MF, mxcsr), (XM, 0x1F01)):
        t = inside(readings=readings)
        t.lp.deliver(vector)
        assert legacy(t)[2] == expected


def test_components_of_xfrm_go_to_init_state() -> None:
    t = inside()
    t.lp.x.components[2] = b"\xee" * 256
    t.lp.interrupt()
    assert t.lp.x.components == {}


def test_aex_restores_fs_gs_and_xcr0() -> None:
    t = thread(xfrm=3)
    outside(t.lp)
    t.enter()
    t.lp.fsbase, t.lp.gsbase = 0x11_1000, 0x22_2000
    assert t.lp.xcr0 == 3
    t.lp.interrupt()
    assert (t.lp.fsbase, t.lp.gsbase, t.lp.xcr0) == (0x7000_0000_1000, 0x7000_0000_2000, 7)


@pytest.mark.parametrize("address", [0x7F00_0000_5FFF, 0x1234, ENCLAVE_BASE, MASK64])
def test_cr2_loses_its_low_12_bits(address: int) -> None:
    """The operating system learns the page, and the error code as it is."""
    t = inside()
    delivered = t.lp.deliver(PF, 0x8007, address)
    assert delivered == Delivered(PF, 0x8007, address & ~PAGE_MASK, from_enclave=True)


def test_cr2_is_whole_outside() -> None:
    t = thread()
    assert t.lp.deliver(PF, 6, 0x1234).cr2 == 0x1234
