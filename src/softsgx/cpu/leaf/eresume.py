"""ERESUME, ENCLU leaf 03H: resume a thread that an AEX interrupted. SDM 3D, ERESUME."""

from softsgx.cpu import cet
from softsgx.cpu.entry import (
    check_bases,
    check_frame,
    check_inactive,
    check_tcs,
    enter,
    enter_at_oentry,
    frame_address,
    frame_page,
    store_outside_stack,
    tcs_operand,
    tcs_refusal,
)
from softsgx.cpu.fault import GP
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.part import xsave_size
from softsgx.cpu.xstate import XState
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, canonical
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, USABLE_MASK, USABLE_TCS, VALID
from softsgx.spec.msr import (
    RFLAGS_AC,
    RFLAGS_AF,
    RFLAGS_CF,
    RFLAGS_DF,
    RFLAGS_FIXED,
    RFLAGS_ID,
    RFLAGS_IF,
    RFLAGS_IOPL,
    RFLAGS_NT,
    RFLAGS_OF,
    RFLAGS_PF,
    RFLAGS_RF,
    RFLAGS_SF,
    RFLAGS_ZF,
)
from softsgx.spec.registers import RFLAGS, RIP
from softsgx.spec.ssa import GPR_OFF_AEXNOTIFY, GPR_OFF_FSBASE, GPRSGX_IN_PAGE, unpack_gprs
from softsgx.spec.structure import unpack_u64_pair
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.spec.tcs import TCS_AEXNOTIFY

_FROM_SSA = (
    RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_DF | RFLAGS_OF | RFLAGS_NT
) | (RFLAGS_AC | RFLAGS_ID | RFLAGS_RF)


def eresume(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> None:
    """Restore all state from SSA frame CSSA - 1 of the TCS at RBX; RCX is the AEP.

    With AEX-Notify set in TCS and frame it enters like EENTER instead, and the frame stays.
    """
    if rbx & 4095:
        raise GP("ERESUME.01")  # RBX (TCS) not 4 KiB aligned
    if not canonical(rcx) and lp.processor.readings.aep_before_tcs:
        raise GP("ERESUME.02")  # RCX (AEP) not canonical
    page = tcs_operand(lp, rbx, rcx, "ERESUME.03")  # RBX is not in the EPC
    if lp.busy & BUSY_TARGET:
        raise GP("ERESUME.04")  # another leaf uses the TCS
    processor = lp.processor
    epcm = processor.epcm
    word = epcm.state[page]
    if word & USABLE_MASK != USABLE_TCS or epcm.address[page] != rbx:
        if not word & VALID:
            raise tcs_refusal(lp, rbx, "ERESUME.05")  # EPCM: VALID = 0
        if word & BLOCKED:
            raise tcs_refusal(lp, rbx, "ERESUME.06")  # EPCM: BLOCKED = 1
        if word & (PENDING | MODIFIED):
            raise tcs_refusal(lp, rbx, "ERESUME.07")  # EPCM: PENDING or MODIFIED is 1
        raise tcs_refusal(lp, rbx, "ERESUME.08")  # EPCM: ENCLAVEADDRESS is not RBX, or no TCS
    tcs = TCS_PAGE.unpack(processor.memory.page_view(processor.epc.pfn(page)))
    secs = processor.parent(page)
    check_tcs(lp, tcs, secs)
    if tcs.CSSA == 0:
        raise GP("ERESUME.09")  # TCS.CSSA = 0: nothing to resume
    frame = check_frame(lp, secs, frame_address(secs, tcs, tcs.CSSA - 1))
    last = processor.memory.page_view(frame[-1] >> PAGE_SHIFT)
    if tcs.FLAGS & TCS_AEXNOTIFY and last[GPRSGX_IN_PAGE + GPR_OFF_AEXNOTIFY] & 1:
        # Enter the enclave's handler on the next frame, as EENTER would; this one stays as it is.
        if tcs.CSSA >= tcs.NSSA:
            raise GP("ERESUME.10")  # AEX-Notify: TCS.CSSA >= TCS.NSSA
        enter_at_oentry(lp, secs, tcs, page, rbx, rcx, resumed=True)
        return
    gprs = unpack_gprs(last, GPRSGX_IN_PAGE)
    fsbase, gsbase = unpack_u64_pair(last, GPRSGX_IN_PAGE + GPR_OFF_FSBASE)
    check_bases(gprs[RIP], fsbase, gsbase)
    check_inactive(tcs)
    cet_state = cet.check_resume(lp, secs, tcs) if processor.part.cet else None
    # XRSTOR from the frame faults: XSTATE_BV beyond XFRM, header or MXCSR malformed
    state = XState.load(_xsave_image(lp, frame, secs.XFRM), secs.XFRM, "ERESUME.11")

    enter(lp, secs, page, rbx, frame, cssa=tcs.CSSA - 1, aep=rcx, resumed=True)
    if processor.readings.eresume_updates_ursp:
        store_outside_stack(lp, frame)
    outside_flags = lp.regs[RFLAGS]
    lp.regs[:] = gprs
    lp.regs[RFLAGS] = _resumed_flags(outside_flags, gprs[RFLAGS])
    state.keep_others(lp.x, secs.XFRM)
    lp.x = state
    lp.fsbase, lp.gsbase = fsbase, gsbase
    if cet_state is not None:
        cet.load(lp, cet_state)


def _resumed_flags(outside: int, saved: int) -> int:
    """RFLAGS: status and control bits from the SSA; IF only if IOPL is 3. Never TF."""
    flags = outside & ~_FROM_SSA | saved & _FROM_SSA | RFLAGS_FIXED
    if outside & RFLAGS_IOPL == RFLAGS_IOPL:
        flags = flags & ~RFLAGS_IF | saved & RFLAGS_IF
    return flags


def _xsave_image(lp: LogicalProcessor, frame: tuple[int, ...], xfrm: int) -> bytes:
    """The XSAVE area at the start of the frame."""
    memory, size = lp.processor.memory, xsave_size(xfrm)
    if size <= PAGE_SIZE:
        return bytes(memory.page_view(frame[0] >> PAGE_SHIFT)[:size])
    pages = range((size + PAGE_MASK) // PAGE_SIZE)
    return b"".join(memory.read_page(frame_page(frame, n) >> PAGE_SHIFT) for n in pages)[:size]
