"""EXITINFO and EXINFO: what AEX reports to the enclave about the event.

SDM 3D, 38.9.1.1 "EXITINFO", 38.9.2.1 "EXINFO Structure".
"""

import pytest

from softsgx.cpu import Delivered, Fault
from softsgx.spec.attributes import MISC_EXINFO
from softsgx.spec.epcm import R
from softsgx.spec.faults import AC, BP, BR, DB, DE, GP, MF, PF, UD, XM
from softsgx.spec.ssa import EXINFO, GPRSGX
from tests.cpu.thread import Thread, thread

VALID = 1 << 31
HARDWARE, SOFTWARE = 3 << 8, 6 << 8
ADDRESS = 0x7F00_1234_5678
UNTOUCHED = b"\xa5" * 16

# Vector -> EXITINFO. All other vectors give 0.
ALWAYS = {
    **{vector: VALID | HARDWARE | vector for vector in (DE, DB, BR, UD, MF, AC, XM)},
    BP: VALID | SOFTWARE | BP,
}
WITH_EXINFO = {vector: VALID | HARDWARE | vector for vector in (GP, PF)}


def inside(misc: int) -> Thread:
    """A thread inside; EXINFO and EXITINFO hold something old."""
    t = thread(miscselect=misc)
    t.set_ssa(-GPRSGX.SIZE - EXINFO.SIZE, UNTOUCHED)
    t.set_gpr(EXITINFO=0xFFFF_FFFF)
    t.enter()
    return t


def exinfo_bytes(t: Thread) -> bytes:
    return t.ssa()[-GPRSGX.SIZE - EXINFO.SIZE : -GPRSGX.SIZE]


@pytest.mark.parametrize("misc", [0, MISC_EXINFO])
@pytest.mark.parametrize("vector", range(32))
def test_exitinfo_of_every_exception(vector: int, misc: int) -> None:
    t = inside(misc)
    delivered = t.lp.deliver(vector, 7, ADDRESS)
    expected = {**ALWAYS, **WITH_EXINFO} if misc else ALWAYS
    assert expected.get(vector, 0) == t.gpr().EXITINFO
    assert (delivered.vector, delivered.code, delivered.from_enclave) == (vector, 7, True)


@pytest.mark.parametrize("misc", [0, MISC_EXINFO])
@pytest.mark.parametrize("vector", range(32))
def test_exinfo_is_written_only_for_pf_and_gp(vector: int, misc: int) -> None:
    t = inside(misc)
    t.lp.deliver(vector, 7, ADDRESS)
    assert (exinfo_bytes(t) == UNTOUCHED) is not (vector in (GP, PF) and misc == MISC_EXINFO)


@pytest.mark.parametrize("vector", [*range(16, 32), 0x20, 0x80, 0xEF, 0xFF])
def test_exitinfo_of_interrupts_is_0(vector: int) -> None:
    """Whatever their vector: an interrupt with the number of #MF is not a #MF."""
    t = inside(MISC_EXINFO)
    assert t.lp.interrupt(vector) == Delivered(vector, 0, 0, from_enclave=True)
    assert t.gpr().EXITINFO == 0
    assert exinfo_bytes(t) == UNTOUCHED


@pytest.mark.parametrize("code", [0x4, 0x5, 0x6, 0x7, 0x14, 0x25, 0x8005, 0x8007, 0x8015])
def test_exinfo_of_pf(code: int) -> None:
    t = inside(MISC_EXINFO)
    t.lp.deliver(PF, code, ADDRESS)
    assert exinfo_bytes(t) == EXINFO(MADDR=ADDRESS, ERRCD=code).pack()


def test_exinfo_of_gp() -> None:
    t = inside(MISC_EXINFO)
    t.lp.deliver(GP, 0x18)
    assert exinfo_bytes(t) == EXINFO(MADDR=0, ERRCD=0x18).pack()


@pytest.mark.parametrize("code", [0x0, 0x1, 0x3, 0x8001])
def test_pf_of_a_supervisor_access_is_not_reported(code: int) -> None:
    """U/S = 0: an access of the processor's own, in the middle of enclave code."""
    t = inside(MISC_EXINFO)
    t.lp.deliver(PF, code, ADDRESS)
    assert exinfo_bytes(t) == UNTOUCHED
    assert t.gpr().EXITINFO == 0


def test_a_real_page_fault_is_reported_to_both_sides() -> None:
    """The enclave learns the whole address, the operating system the page and the error code."""
    t = inside(MISC_EXINFO)
    page = t.enclave.pages[t.enclave.data[0]]
    t.bare.emodpr(page, R, t.other)
    with pytest.raises(Fault) as fault:
        t.lp.store(t.enclave.data[0] + 0x123, b"x")
    delivered = t.lp.deliver_fault(fault.value)
    assert delivered == Delivered(PF, 0x8007, t.enclave.data[0], from_enclave=True)
    assert t.exinfo() == EXINFO(MADDR=t.enclave.data[0] + 0x123, ERRCD=0x8007)
    assert t.gpr().EXITINFO == VALID | HARDWARE | PF


def test_exitinfo_is_cleared_by_the_next_aex() -> None:
    t = inside(MISC_EXINFO)
    t.lp.deliver(UD)
    assert t.gpr().EXITINFO == VALID | HARDWARE | UD
    t.resume()
    t.lp.interrupt()
    assert t.gpr().EXITINFO == 0
