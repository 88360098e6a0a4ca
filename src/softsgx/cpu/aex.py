"""Asynchronous enclave exit. SDM 3D, 40 "Enclave Exiting Events".

Before an event is delivered inside an enclave, AEX saves the thread to SSA frame CSSA, loads
synthetic state, and leaves enclave mode. It reaches SSA and TCS through the physical addresses that
entry cached, so it never faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.cpu import cet, tracking
from softsgx.cpu.entry import frame_page
from softsgx.cpu.xstate import LEGACY_INIT, XState, legacy_init
from softsgx.events.cpu import Left
from softsgx.spec import faults
from softsgx.spec.attributes import MISC_CPINFO, MISC_EXINFO
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.leaves import ERESUME
from softsgx.spec.msr import (
    RFLAGS_AF,
    RFLAGS_CF,
    RFLAGS_OF,
    RFLAGS_PF,
    RFLAGS_RF,
    RFLAGS_SF,
    RFLAGS_TF,
    RFLAGS_ZF,
)
from softsgx.spec.registers import RFLAGS
from softsgx.spec.ssa import (
    EXINFO,
    EXINFO_IN_PAGE,
    EXIT_HARDWARE,
    EXIT_TYPE_SHIFT,
    EXIT_VALID,
    GPR_OFF_EXITINFO,
    GPR_OFF_FSBASE,
    GPR_OFF_URSP,
    GPRSGX_IN_PAGE,
    MXCSR_INIT,
    REPORTED_ALWAYS,
    REPORTED_WITH_CPINFO,
    REPORTED_WITH_EXINFO,
    pack_gprs,
)
from softsgx.spec.structure import (
    pack_u32,
    pack_u64,
    pack_u64_pair,
    unpack_u32,
    unpack_u64,
    unpack_u64_pair,
)
from softsgx.spec.tcs import (
    TCS_INACTIVE,
    TCS_OFF_AEP,
    TCS_OFF_CSSA,
    TCS_OFF_STATE,
)

if TYPE_CHECKING:
    from softsgx.cpu.secs import Secs
    from softsgx.cpu.state import LpState
    from softsgx.mem import PhysicalMemory

_CLEARED: Final = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF | RFLAGS_RF
_TEN_ZEROS: Final = (0,) * 10
_INTERRUPT: Final = -1  # in place of a vector, where the event is no exception
# Exceptions of the fault class: the pushed RFLAGS image has RF set.
_FAULT_CLASS: Final = frozenset(
    {faults.DE, faults.BR, faults.UD, faults.NM, faults.SS, faults.GP, faults.PF}
    | {faults.MF, faults.AC, faults.XM, faults.CP}
)


class Delivered(NamedTuple):
    """What the OS handler finds: vector, error code, CR2 (#PF), and whether an AEX came first."""

    vector: int
    code: int
    cr2: int
    from_enclave: bool


def aex(lp: LpState, vector: int, code: int, address: int, *, exception: bool = True) -> Delivered:
    """Leave the enclave because of an event; return what the handler sees.

    An interrupt (`exception` False) may have any vector, even that of an exception.
    """
    secs = lp.secs
    assert secs is not None
    processor = lp.processor
    tcs = processor.memory.writable(processor.epc.pfn(lp.tcs_page))
    event = vector if exception else _INTERRUPT
    _save(lp, secs, event, code, address)
    _synthesise(lp, secs, tcs, event)
    (cssa,) = unpack_u32(tcs, TCS_OFF_CSSA)
    pack_u32(tcs, TCS_OFF_CSSA, cssa + 1)
    if processor.part.cet:
        cet.save_at_aex(lp)
    cr2 = address & ~PAGE_MASK if event == faults.PF else address
    leave_enclave(lp, tcs, "AEX", vector)
    return Delivered(vector, code, cr2, True)


def leave_enclave(lp: LpState, tcs: bytearray | memoryview, cause: str, vector: int) -> None:
    """What AEX and EEXIT share: leave enclave mode, restore FS, GS, XCR0, count out, flush the TLB.

    `tcs` is the page of the current TCS, to be written in place.
    """
    secs = lp.secs
    assert secs is not None
    pack_u64(tcs, TCS_OFF_STATE, TCS_INACTIVE)
    lp.fsbase, lp.gsbase, lp.xcr0, _ = lp.outside
    tcs_address = lp.tcs_address
    lp.secs, lp.secs_page, lp.tcs_page, lp.tcs_address = None, -1, -1, 0
    lp.elrange_base = lp.elrange_end = 0
    lp.ssa_frame = ()
    tracking.leave(lp, secs)
    lp.outside = (0, 0, 0, 0)
    lp.dbgoptin = False
    lp.flush_tlb(cause)
    if lp.log.on:
        lp.log.emit(Left(lp.id, secs.EID, tcs_address, vector))


def _save(lp: LpState, secs: Secs, vector: int, code: int, address: int) -> None:
    """Fill the SSA frame: extended state, GPRs, FS and GS base, EXITINFO, EXINFO."""
    memory, frame = lp.processor.memory, lp.ssa_frame
    _save_extended(memory, frame, lp.x.save(secs.XFRM))
    # EXINFO and GPRSGX field by field: URSP, URBP and AEXNOTIFY stay as they are.
    page = memory.writable(frame[-1] >> PAGE_SHIFT)
    gprs = lp.regs[:]
    gprs[RFLAGS] &= ~RFLAGS_TF
    if vector in _FAULT_CLASS:
        gprs[RFLAGS] |= RFLAGS_RF
    pack_gprs(page, GPRSGX_IN_PAGE, *gprs)
    pack_u64_pair(page, GPRSGX_IN_PAGE + GPR_OFF_FSBASE, lp.fsbase, lp.gsbase)
    exinfo = (secs.MISCSELECT & MISC_EXINFO and vector in REPORTED_WITH_EXINFO) or (
        secs.MISCSELECT & MISC_CPINFO and vector in REPORTED_WITH_CPINFO
    )
    if exinfo:
        maddr = address if vector == faults.PF else 0
        if vector == faults.PF and not code & faults.PFEC_U:
            exinfo = False  # a #PF of a supervisor access is not reported
        else:
            EXINFO.S.pack_into(page, EXINFO_IN_PAGE, maddr, code)
    pack_u32(page, GPRSGX_IN_PAGE + GPR_OFF_EXITINFO, _exitinfo(vector, bool(exinfo)))


def _save_extended(memory: PhysicalMemory, frame: tuple[int, ...], xsave: bytes) -> None:
    """Write the XSAVE image to the start of the frame."""
    if len(xsave) <= PAGE_SIZE:
        memory.writable(frame[0] >> PAGE_SHIFT)[: len(xsave)] = xsave
        return
    for at in range(0, len(xsave), PAGE_SIZE):
        piece = xsave[at : at + PAGE_SIZE]
        memory.write(frame_page(frame, at // PAGE_SIZE), piece)


def _exitinfo(vector: int, exinfo: bool) -> int:
    """EXITINFO for the event that caused the exit; 0 if the event is not reported."""
    kind = REPORTED_ALWAYS.get(vector)
    if kind is None and exinfo:
        kind = EXIT_HARDWARE
    return 0 if kind is None else EXIT_VALID | kind << EXIT_TYPE_SHIFT | vector


def _synthesise(lp: LpState, secs: Secs, tcs: bytearray | memoryview, vector: int) -> None:
    """Load the synthetic state, which the handler finds as the interrupted context."""
    processor = lp.processor
    (aep,) = unpack_u64(tcs, TCS_OFF_AEP)
    frame_end = processor.memory.page_view(lp.ssa_frame[-1] >> PAGE_SHIFT)
    rsp, rbp = unpack_u64_pair(frame_end, GPRSGX_IN_PAGE + GPR_OFF_URSP)
    regs = lp.regs
    flags = regs[RFLAGS] & ~_CLEARED & MASK64
    if not lp.dbgoptin:
        flags = flags & ~RFLAGS_TF | lp.outside[3]
    # RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 .. R15, RFLAGS, RIP
    regs[:] = (ERESUME, aep, 0, lp.tcs_address, rsp, rbp, *_TEN_ZEROS, flags, aep)
    legacy = _synthetic_legacy(vector, processor.readings.aex_mxcsr)
    if lp.x.legacy is not legacy or lp.x.components:
        state = XState(legacy)
        state.keep_others(lp.x, secs.XFRM)
        lp.x = state


def _synthetic_legacy(vector: int, mxcsr: int) -> bytes:
    """x87 and SSE state after AEX: INIT, but a pending #MF or #XM must be seen by the handler."""
    if vector == faults.MF:
        return legacy_init(fcw=0x037E, fsw=0x8081, mxcsr=mxcsr)
    if vector == faults.XM:
        return legacy_init(mxcsr=0x1F01)
    return LEGACY_INIT if mxcsr == MXCSR_INIT else legacy_init(mxcsr=mxcsr)
