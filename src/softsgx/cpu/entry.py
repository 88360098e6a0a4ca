"""What EENTER, ERESUME and EDECCSSA share: tests of TCS and SSA frames, and the entry itself.

The rules are numbered once: ENTRY for tests on the TCS and the machine, FRAME for tests on a frame.
SDM 3D, EENTER, ERESUME, EDECCSSA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.cpu import cet, tracking
from softsgx.cpu.access import walk
from softsgx.cpu.fault import ENCLU_PFEC, ENCLU_PFEC_W, GP, PF, Fault
from softsgx.cpu.part import xsave_size
from softsgx.cpu.secs import Secs
from softsgx.events.cpu import Entered
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.mem.tlb import READ, WRITE
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_MODE64BIT, XFRM_LEGACY
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, canonical
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PT_MASK,
    REG,
    USABLE_MASK,
    USABLE_REG,
    VALID,
    R,
    W,
)
from softsgx.spec.leaves import ENCLU_LENGTH
from softsgx.spec.msr import CR4_OSFXSR, CR4_OSXSAVE, RFLAGS_TF
from softsgx.spec.registers import RAX, RBP, RCX, RFLAGS, RIP, RSP
from softsgx.spec.ssa import GPR_OFF_URSP, GPRSGX_IN_PAGE, GPRSGX_SIZE
from softsgx.spec.structure import pack_u32, pack_u64, pack_u64_pair
from softsgx.spec.tcs import (
    TCS,
    TCS_ACTIVE,
    TCS_AEXNOTIFY,
    TCS_DBGOPTIN,
    TCS_FLAGS_DEFINED,
    TCS_OFF_AEP,
    TCS_OFF_CSSA,
    TCS_OFF_FLAGS,
    TCS_OFF_STATE,
)
from softsgx.spec.translation import PTE_READ_DONE, PTE_WRITE_DONE

if TYPE_CHECKING:
    from softsgx.cpu.state import LpState


# What the EPCM word of an SSA page must be, under the mask.
FRAME_MASK: Final = USABLE_MASK | R | W
FRAME: Final = USABLE_REG | R | W


def check_tcs(lp: LpState, tcs: TCS, secs: Secs) -> None:
    """The tests between those on the TCS's EPCM entry and those on CSSA."""
    if tcs.OSSA & PAGE_MASK:
        raise GP("ENTRY.01")  # TCS.OSSA not 4 KiB aligned
    if tcs.OFSBASGX & PAGE_MASK:
        raise GP("ENTRY.02")  # TCS.OFSBASGX not 4 KiB aligned
    if tcs.OGSBASGX & PAGE_MASK:
        raise GP("ENTRY.03")  # TCS.OGSBASGX not 4 KiB aligned
    if tcs.FLAGS & ~TCS_FLAGS_DEFINED:
        raise GP("ENTRY.04")  # TCS.FLAGS has a reserved bit
    if not secs.initialised:
        raise GP("ENTRY.05")  # the enclave is not initialised
    if not secs.ATTRIBUTES & ATTR_MODE64BIT:
        raise GP("ENTRY.06")  # a 32-bit enclave, entered in 64-bit mode
    if not lp.cr4 & CR4_OSFXSR:
        raise GP("ENTRY.07")  # CR4.OSFXSR = 0
    if not lp.cr4 & CR4_OSXSAVE:
        if secs.XFRM != XFRM_LEGACY:
            raise GP("ENTRY.08")  # CR4.OSXSAVE = 0 and XFRM is not 3
    elif secs.XFRM & ~lp.xcr0:
        raise GP("ENTRY.09")  # XFRM has a bit that XCR0 lacks
    if not tcs.FLAGS & TCS_DBGOPTIN and bool(tcs.FLAGS & TCS_AEXNOTIFY) != bool(
        secs.ATTRIBUTES & ATTR_AEXNOTIFY
    ):
        raise GP("ENTRY.10")  # TCS.FLAGS.AEXNOTIFY differs from ATTRIBUTES.AEXNOTIFY


def check_bases(rip: int, fsbase: int, gsbase: int) -> None:
    """The tests on the address where execution goes on, and on the bases of FS and GS."""
    if not canonical(rip):
        raise GP("ENTRY.11")  # entry or resume address not canonical
    if not canonical(fsbase):
        raise GP("ENTRY.12")  # FS base not canonical
    if not canonical(gsbase):
        raise GP("ENTRY.13")  # GS base not canonical


def check_inactive(tcs: TCS) -> None:
    """#GP(0) if a processor runs on the TCS already."""
    if tcs.STATE == TCS_ACTIVE:
        raise GP("ENTRY.14")  # TCS.STATE is active: another processor runs on it


def tcs_operand(lp: LpState, rbx: int, rcx: int, rule: str) -> int:
    """Translate RBX to the EPC page of the TCS; #PF `rule` if it is not EPC. RCX is the AEP.

    To paging this is one write, to the last byte of the page: measured on silicon. So a TCS that is
    mapped read-only cannot be entered, and its page is dirty afterwards.
    """
    readings = lp.processor.readings
    wanted = PTE_WRITE_DONE if readings.tcs_written else PTE_READ_DONE
    pte = lp.space.ptes.get(rbx >> PAGE_SHIFT, 0)
    if pte & wanted != wanted:
        address = rbx | PAGE_MASK if readings.tcs_last_byte else rbx
        pte = walk(lp, address, WRITE if readings.tcs_written else READ)
    page = lp.processor.epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
    if page < 0:
        raise tcs_refusal(lp, rbx, rule)
    if not readings.aep_before_tcs and not canonical(rcx):
        raise GP("ENTRY.15")  # RCX (AEP) not canonical, tested after the page (an open reading)
    return page


def tcs_refusal(lp: LpState, rbx: int, rule: str) -> Fault:
    """The #PF for an RBX that paging permits, but that is no TCS that can be entered."""
    readings = lp.processor.readings
    address = rbx | PAGE_MASK if readings.tcs_last_byte else rbx
    return PF(address, rule, ENCLU_PFEC_W if readings.tcs_written else ENCLU_PFEC)


def frame_address(secs: Secs, tcs: TCS, index: int) -> int:
    """Linear address of SSA frame `index`."""
    return (secs.BASEADDR + tcs.OSSA + PAGE_SIZE * secs.SSAFRAMESIZE * index) & MASK64


def check_frame(lp: LpState, secs: Secs, address: int) -> tuple[int, ...]:
    """Test the pages of the frame that AEX will write; their physical page addresses.

    Tests and caches the pages of the XSAVE region and, last in the result, the GPRSGX page, which
    also holds MISC. A frame may be huge; the pages between are not tested.
    """
    last = secs.SSAFRAMESIZE - 1
    if last == 0:
        return (_frame_page(lp, secs, address),)
    xsave = xsave_size(secs.XFRM)
    if not lp.processor.readings.xsave_end_inclusive:
        xsave -= 1
    pages = [
        _frame_page(lp, secs, address + number * PAGE_SIZE)
        for number in range(min(xsave // PAGE_SIZE, last - 1) + 1)
    ]
    # The last page is touched at GPRSGX, unless the XSAVE region reaches into it.
    gpr = 0 if last <= xsave // PAGE_SIZE else PAGE_SIZE - GPRSGX_SIZE
    return (*pages, _frame_page(lp, secs, address + last * PAGE_SIZE + gpr))


def frame_page(frame: tuple[int, ...], number: int) -> int:
    """Physical address of page `number` of a frame: a page of the XSAVE region, or the last."""
    return frame[number] if number < len(frame) - 1 else frame[-1]


def _frame_page(lp: LpState, secs: Secs, address: int) -> int:
    pte = lp.space.ptes.get(address >> PAGE_SHIFT, 0)
    if pte & PTE_WRITE_DONE != PTE_WRITE_DONE:
        walk(lp, address, READ)
        pte = walk(lp, address, WRITE)
    processor = lp.processor
    frame = pte & PTE_PFN_MASK
    page = processor.epc.index(frame >> PAGE_SHIFT)
    if page < 0:
        raise PF(address, "FRAME.01", ENCLU_PFEC_W)  # SSA page is not in the EPC
    epcm = processor.epcm
    word = epcm.state[page]
    if (
        word & FRAME_MASK == FRAME
        and epcm.address[page] == address & ~PAGE_MASK
        and epcm.secs[page] == secs.page
    ):
        return frame
    # Some test fails: find the first, in the order of the listing.
    if not word & VALID:
        raise PF(address, "FRAME.02", ENCLU_PFEC_W)  # SSA page, EPCM: VALID = 0
    if word & BLOCKED:
        raise PF(address, "FRAME.03", ENCLU_PFEC_W)  # SSA page, EPCM: BLOCKED = 1
    if word & (PENDING | MODIFIED):
        raise PF(address, "FRAME.04", ENCLU_PFEC_W)  # SSA page, EPCM: PENDING or MODIFIED is 1
    if (
        epcm.address[page] != address & ~PAGE_MASK
        or word & PT_MASK != REG
        or epcm.secs[page] != secs.page
    ):
        raise PF(address, "FRAME.05", ENCLU_PFEC_W)  # SSA page: address, type or enclave differs
    raise PF(address, "FRAME.06", ENCLU_PFEC_W)  # SSA page, EPCM: R = 0 or W = 0


def enter_at_oentry(
    lp: LpState, secs: Secs, tcs: TCS, page: int, rbx: int, rcx: int, *, resumed: bool
) -> tuple[int, ...]:
    """Enter at TCS.OENTRY on frame CSSA: EENTER, and ERESUME that notifies the enclave of an AEX.

    RAX := CSSA, RCX := the address after ENCLU. Returns the pages of the frame.
    """
    frame = check_frame(lp, secs, frame_address(secs, tcs, tcs.CSSA))
    entry = (secs.BASEADDR + tcs.OENTRY) & MASK64
    fsbase = (secs.BASEADDR + tcs.OFSBASGX) & MASK64
    gsbase = (secs.BASEADDR + tcs.OGSBASGX) & MASK64
    check_bases(entry, fsbase, gsbase)
    check_inactive(tcs)
    has_cet = lp.processor.part.cet
    cet_state = cet.check_entry(lp, secs, tcs, tcs.CSSA) if has_cet else None

    enter(lp, secs, page, rbx, frame, cssa=tcs.CSSA, aep=rcx, resumed=resumed)
    load_entry(lp, frame, tcs.CSSA, entry, fsbase, gsbase)
    if cet_state is not None:
        cet.load(lp, cet_state)
    return frame


def load_entry(
    lp: LpState, frame: tuple[int, ...], cssa: int, entry: int, fsbase: int, gsbase: int
) -> None:
    """The registers after an entry at OENTRY; those of the outside stack go to the frame."""
    store_outside_stack(lp, frame)
    regs = lp.regs
    regs[RAX] = cssa
    regs[RCX] = (regs[RIP] + ENCLU_LENGTH) & MASK64
    regs[RIP] = entry
    lp.fsbase, lp.gsbase = fsbase, gsbase


def enter(
    lp: LpState,
    secs: Secs,
    tcs_page: int,
    tcs_address: int,
    frame: tuple[int, ...],
    *,
    cssa: int,
    aep: int,
    resumed: bool,
) -> None:
    """Enter enclave mode on a TCS whose next AEX goes to `frame`. The caller loads registers."""
    processor = lp.processor
    tcs = processor.memory.writable(processor.epc.pfn(tcs_page))
    pack_u64(tcs, TCS_OFF_STATE, TCS_ACTIVE)
    pack_u64(tcs, TCS_OFF_AEP, aep)
    pack_u32(tcs, TCS_OFF_CSSA, cssa)
    lp.outside = (lp.fsbase, lp.gsbase, lp.xcr0, lp.regs[RFLAGS] & RFLAGS_TF)
    lp.dbgoptin = bool(tcs[TCS_OFF_FLAGS] & TCS_DBGOPTIN)
    if not lp.dbgoptin:
        lp.regs[RFLAGS] &= ~RFLAGS_TF
    if lp.cr4 & CR4_OSXSAVE:
        lp.xcr0 = secs.XFRM
    lp.secs = secs
    lp.secs_page = secs.page
    lp.tcs_page = tcs_page
    lp.tcs_address = tcs_address
    lp.elrange_base = secs.BASEADDR
    lp.elrange_end = secs.elrange_end
    lp.ssa_frame = frame
    tracking.enter(lp, secs)
    lp.flush_tlb("ERESUME" if resumed else "EENTER")
    if lp.log.on:
        lp.log.emit(Entered(lp.id, secs.EID, tcs_address, cssa, resumed))


def store_outside_stack(lp: LpState, frame: tuple[int, ...]) -> None:
    """URSP and URBP of the frame := RSP and RBP of the outside, for the next AEX."""
    page = lp.processor.memory.writable(frame[-1] >> PAGE_SHIFT)
    pack_u64_pair(page, GPRSGX_IN_PAGE + GPR_OFF_URSP, lp.regs[RSP], lp.regs[RBP])
