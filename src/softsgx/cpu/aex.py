"""Asynchronous enclave exit. SDM 3D, "Enclave Exiting Events".

Every event that would be delivered while inside first saves the thread to the SSA frame CSSA, loads
synthetic state, and leaves enclave mode. SSA and TCS are reached through the physical addresses
that entry cached, so an AEX never faults.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.cpu import tracking
from softsgx.cpu.xstate import LEGACY_INIT, XState, legacy_init
from softsgx.sim.cpu_events import Left
from softsgx.spec import faults
from softsgx.spec.attributes import MISC_EXINFO
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE
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
from softsgx.spec.registers import R8, R15, RAX, RBP, RBX, RCX, RDI, RDX, RFLAGS, RIP, RSI, RSP
from softsgx.spec.ssa import (
    EXIT_HARDWARE,
    EXIT_TYPE_SHIFT,
    EXIT_VALID,
    GPR_OFF_EXITINFO,
    GPR_OFF_FSBASE,
    GPR_OFF_URSP,
    GPRSGX_SIZE,
    REPORTED_ALWAYS,
    REPORTED_WITH_EXINFO,
)
from softsgx.spec.tcs import (
    TCS_INACTIVE,
    TCS_OFF_AEP,
    TCS_OFF_CSSA,
    TCS_OFF_STATE,
)

if TYPE_CHECKING:
    from softsgx.cpu.lp import LogicalProcessor

_GPRS: Final = struct.Struct("<18Q")
_INACTIVE: Final = TCS_INACTIVE.to_bytes(8, "little")
_TWO: Final = struct.Struct("<QQ")
_U32: Final = struct.Struct("<I")
_EXINFO: Final = struct.Struct("<QII")
_CLEARED: Final = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF | RFLAGS_RF
_INTERRUPT: Final = -1  # in place of a vector: the event is no exception
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


def aex(
    lp: LogicalProcessor, vector: int, code: int, address: int, *, exception: bool = True
) -> Delivered:
    """Leave the enclave because of an event; return what the handler sees.

    An interrupt (`exception` False) may have any vector, also one of an exception.
    """
    secs = lp.secs
    assert secs is not None
    memory = lp.processor.memory
    tcs = lp.processor.epc.physical(lp.tcs_page)
    event = vector if exception else _INTERRUPT
    _save(lp, event, code, address)
    _synthesise(lp, event)
    cssa = int.from_bytes(memory.read(tcs + TCS_OFF_CSSA, 4), "little")
    memory.write(tcs + TCS_OFF_CSSA, (cssa + 1).to_bytes(4, "little"))
    cr2 = address & ~PAGE_MASK if event == faults.PF else address
    leave_enclave(lp, "AEX", vector)
    return Delivered(vector, code, cr2, from_enclave=True)


def leave_enclave(lp: LogicalProcessor, cause: str, vector: int) -> None:
    """What AEX and EEXIT share: restore FS, GS, XCR0; mode off; TCS inactive; flush; tracking."""
    secs = lp.secs
    assert secs is not None
    processor = lp.processor
    tcs = processor.epc.physical(lp.tcs_page)
    processor.memory.write(tcs + TCS_OFF_STATE, _INACTIVE)
    lp.fsbase, lp.gsbase, lp.xcr0, _ = lp.outside
    tcs_address = lp.tcs_address
    lp.secs, lp.secs_page, lp.tcs_page, lp.tcs_address = None, -1, -1, 0
    lp.elrange_base = lp.elrange_end = 0
    lp.ssa_frame = ()
    tracking.leave(secs, lp.epoch)
    lp.epoch = lp.entry = 0
    lp.outside = (0, 0, 0, 0)
    lp.dbgoptin = False
    lp.flush_tlb(cause)
    if lp.log.on:
        lp.log.emit(Left(lp.id, secs.EID, tcs_address, vector))


def _frame_page(lp: LogicalProcessor, offset: int) -> int:
    """Physical page of an offset in the frame: a page of XSAVE, or else the last one."""
    frame = lp.ssa_frame
    number = offset // PAGE_SIZE
    return frame[number] if number < len(frame) - 1 else frame[-1]


def ssa_write(lp: LogicalProcessor, offset: int, data: bytes) -> None:
    """Write into the current SSA frame through its cached physical pages."""
    memory = lp.processor.memory
    while data:
        at = offset & PAGE_MASK
        length = min(len(data), PAGE_SIZE - at)
        memory.write(_frame_page(lp, offset) | at, data[:length])
        offset += length
        data = data[length:]


def ssa_read(lp: LogicalProcessor, offset: int, size: int) -> bytes:
    """Read from the current SSA frame through its cached physical pages."""
    memory, out = lp.processor.memory, b""
    while size:
        at = offset & PAGE_MASK
        length = min(size, PAGE_SIZE - at)
        out += memory.read(_frame_page(lp, offset) | at, length)
        offset += length
        size -= length
    return out


def _save(lp: LogicalProcessor, vector: int, code: int, address: int) -> None:
    """Fill the SSA frame: GPRs, FS and GS base, extended state, EXITINFO, EXINFO."""
    secs = lp.secs
    assert secs is not None
    gpr = secs.SSAFRAMESIZE * PAGE_SIZE - GPRSGX_SIZE
    image = lp.regs[:]
    image[RFLAGS] &= ~RFLAGS_TF
    if vector in _FAULT_CLASS:
        image[RFLAGS] |= RFLAGS_RF
    ssa_write(lp, 0, lp.x.save(secs.XFRM))
    # EXINFO and GPRSGX as one: read, because URSP, URBP and AEXNOTIFY stay as they are.
    area = bytearray(ssa_read(lp, gpr - _EXINFO.size, _EXINFO.size + GPRSGX_SIZE))
    _GPRS.pack_into(area, _EXINFO.size, *image)
    _TWO.pack_into(area, _EXINFO.size + GPR_OFF_FSBASE, lp.fsbase, lp.gsbase)
    exinfo = bool(secs.MISCSELECT & MISC_EXINFO)
    if exinfo and vector in REPORTED_WITH_EXINFO:
        maddr = address if vector == faults.PF else 0
        if vector == faults.PF and not code & faults.PFEC_U:
            exinfo = False  # a #PF of a supervisor access is not reported
        else:
            _EXINFO.pack_into(area, 0, maddr, code, 0)
    _U32.pack_into(area, _EXINFO.size + GPR_OFF_EXITINFO, _exitinfo(vector, exinfo))
    ssa_write(lp, gpr - _EXINFO.size, bytes(area))


def _exitinfo(vector: int, exinfo: bool) -> int:
    """EXITINFO for the event that caused the exit; 0 where the enclave is told nothing."""
    kind = REPORTED_ALWAYS.get(vector)
    if kind is None and exinfo and vector in REPORTED_WITH_EXINFO:
        kind = EXIT_HARDWARE
    return 0 if kind is None else EXIT_VALID | kind << EXIT_TYPE_SHIFT | vector


def _synthesise(lp: LogicalProcessor, vector: int) -> None:
    """Load what the handler finds in the interrupted context."""
    secs = lp.secs
    assert secs is not None
    processor = lp.processor
    tcs = processor.epc.physical(lp.tcs_page)
    gpr = secs.SSAFRAMESIZE * PAGE_SIZE - GPRSGX_SIZE
    aep = int.from_bytes(processor.memory.read(tcs + TCS_OFF_AEP, 8), "little")
    regs = lp.regs
    regs[RAX], regs[RBX], regs[RCX] = ERESUME, lp.tcs_address, aep
    regs[RDX] = regs[RSI] = regs[RDI] = 0
    for number in range(R8, R15 + 1):
        regs[number] = 0
    regs[RSP], regs[RBP] = _TWO.unpack(ssa_read(lp, gpr + GPR_OFF_URSP, 16))
    regs[RIP] = aep
    flags = regs[RFLAGS] & ~_CLEARED & MASK64
    if not lp.dbgoptin:
        flags = flags & ~RFLAGS_TF | lp.outside[3]
    regs[RFLAGS] = flags
    state = XState(_synthetic_legacy(vector, processor.readings.aex_mxcsr))
    state.keep_others(lp.x, secs.XFRM)
    lp.x = state


def _synthetic_legacy(vector: int, mxcsr: int) -> bytes:
    """x87 and SSE state after AEX: INIT, but a pending #MF or #XM must be seen by the handler."""
    if vector == faults.MF:
        return legacy_init(fcw=0x037E, fsw=0x8081, mxcsr=mxcsr)
    if vector == faults.XM:
        return legacy_init(mxcsr=0x1F01)
    return LEGACY_INIT if mxcsr == 0x1F80 else legacy_init(mxcsr=mxcsr)
