"""AEX and ERESUME in one step, for an interrupt whose handler returns to the AEP at once.

The pair drops the translations and moves the thread to the epoch of its new entry; registers and
extended state come back as they were. The frame is not written, so this is for clocks that only
count and price. SDM 3D, 40 "Enclave Exiting Events" and ERESUME.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.cpu import tracking
from softsgx.cpu.entry import FRAME, FRAME_MASK
from softsgx.mem.pagetable import PTE_P, PTE_PFN_MASK, PTE_U
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import USABLE_MASK, USABLE_TCS
from softsgx.spec.tcs import TCS_AEXNOTIFY, TCS_OFF_CSSA, TCS_OFF_FLAGS, TCS_OFF_OSSA
from softsgx.spec.translation import PTE_WRITE_DONE

if TYPE_CHECKING:
    from softsgx.cpu.state import LpState

_USER: Final = PTE_P | PTE_U


def aex_eresume(lp: LpState) -> bool:
    """Take an interrupt inside and resume. False, and nothing is changed, if ERESUME might fault.

    True only if TCS and a one-page frame are mapped and usable, AEX-Notify is off, and events are
    not logged. Otherwise execute `interrupt` and ERESUME.
    """
    secs = lp.secs
    if secs is None or lp.in_flight or lp.log.on or not _would_resume(lp):
        return False
    tracking.leave(lp, secs)
    tracking.enter(lp, secs)
    lp.tlb.flush()
    return True


def _would_resume(lp: LpState) -> bool:
    """Whether ERESUME of the current TCS would find everything in place."""
    secs, frame = lp.secs, lp.ssa_frame
    assert secs is not None
    if len(frame) != 1 or secs.CET_ATTRIBUTES or secs.CET_LEG_BITMAP_OFFSET:
        return False
    processor = lp.processor
    memory, epcm = processor.memory, processor.epcm
    tcs = processor.epc.physical(lp.tcs_page)
    if memory.read_int(tcs + TCS_OFF_FLAGS, 8) & TCS_AEXNOTIFY:
        return False
    ptes = lp.space.ptes
    pte = ptes.get(lp.tcs_address >> PAGE_SHIFT, 0)
    if pte & _USER != _USER or pte & PTE_PFN_MASK != tcs:
        return False
    if epcm.state[lp.tcs_page] & USABLE_MASK != USABLE_TCS:
        return False
    cssa = memory.read_int(tcs + TCS_OFF_CSSA, 4)
    ssa = secs.BASEADDR + memory.read_int(tcs + TCS_OFF_OSSA, 8) + cssa * PAGE_SIZE
    pte = ptes.get(ssa >> PAGE_SHIFT, 0)
    if pte & PTE_WRITE_DONE != PTE_WRITE_DONE or pte & PTE_PFN_MASK != frame[0] & ~PAGE_MASK:
        return False
    word = epcm.state[processor.epc.index(frame[0] >> PAGE_SHIFT)]
    return word & FRAME_MASK == FRAME
