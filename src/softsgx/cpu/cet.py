"""CET inside enclaves: every test that only a CET part makes, and the CET state of entry and exit.

The tests under CPUID.12H.1:EAX[6] in the listings are the rules CET.01 and following, leaf by leaf
in the manual's order. `Part.cet` means shadow stacks and indirect-branch tracking together.

The CET state is IA32_U_CET and SSP of the logical processor. Inside they are the enclave's: entry
makes IA32_U_CET from SECS.CET_ATTRIBUTES; AEX saves SSP and the tracker in the 16-byte frame CSSA
of the CET state save area, which lies in a PT_SS_REST page; EEXIT and AEX leave SSP in TCS.PREVSSP
for the next EENTER. SDM 3D, EENTER, ERESUME, EEXIT, 40 "Enclave Exiting Events".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.cpu.access import walk
from softsgx.cpu.fault import CP, ENCLU_PFEC_W, GP, PF, Status, refuse
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.mem.tlb import READ, SHADOW_READ, SHADOW_WRITE, WRITE
from softsgx.sim import Unmodelled
from softsgx.spec.attributes import ATTR_CET, ATTR_MODE64BIT
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, canonical
from softsgx.spec.cet import (
    CET_ATTRIBUTES_DEFINED,
    CETSSA_FRAME,
    CETSSA_FRAME_SIZE,
    CP_ENDBRANCH,
    ENDBR_EN,
    IB_SUPPRESS,
    IB_TRACKER,
    LEG_IW_EN,
    SH_STK_EN,
    U_CET_SUPPRESS,
    U_CET_TRACKER,
    restore_token,
)
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    RWX,
    SS_FIRST,
    SS_REST,
    USABLE_MASK,
    VALID,
    R,
    W,
    shadow_stack_type,
)
from softsgx.spec.faults import PFEC_SS
from softsgx.spec.msr import CR4_CET
from softsgx.spec.status import SGX_INVALID_ATTRIBUTE
from softsgx.spec.tcs import TCS_OFF_PREVSSP

if TYPE_CHECKING:
    from softsgx.cpu.secs import Secs
    from softsgx.cpu.state import LpState
    from softsgx.spec.secs import SECS
    from softsgx.spec.sigstruct import SIGSTRUCT
    from softsgx.spec.tcs import TCS

_IN_USE: Final = SH_STK_EN | ENDBR_EN
_TRACKER_STATE: Final = U_CET_SUPPRESS | U_CET_TRACKER
_SAVE_PAGE_MASK: Final = USABLE_MASK | R | W
_SAVE_PAGE: Final = VALID | SS_REST | R | W


class CetState(NamedTuple):
    """What an entry loads: IA32_U_CET, SSP, and the physical address of the frame for AEX."""

    u_cet: int = 0
    ssp: int = 0
    save_area: int = 0


# Building


def check_ecreate(secs: SECS) -> None:
    """ECREATE: the CET fields of the source."""
    attributes, offset = secs.CET_ATTRIBUTES, secs.CET_LEG_BITMAP_OFFSET
    if not secs.ATTRIBUTES & ATTR_CET and attributes:
        raise GP("CET.01")  # ECREATE: CET_ATTRIBUTES without ATTRIBUTES.CET
    if not secs.ATTRIBUTES & ATTR_CET and offset:
        raise GP("CET.02")  # ECREATE: CET_LEG_BITMAP_OFFSET without ATTRIBUTES.CET
    bitmap = secs.BASEADDR + offset & MASK64
    wide = secs.ATTRIBUTES & ATTR_MODE64BIT
    if wide and not canonical(bitmap):
        raise GP("CET.03")  # ECREATE: legacy code page bitmap not canonical (64-bit enclave)
    if not wide and bitmap >> 32:
        raise GP("CET.04")  # ECREATE: legacy code page bitmap above 4 GiB (32-bit enclave)
    if attributes & ~CET_ATTRIBUTES_DEFINED:
        raise GP("CET.05")  # ECREATE: CET_ATTRIBUTES has a reserved bit
    if offset & PAGE_MASK:
        raise GP("CET.06")  # ECREATE: CET_LEG_BITMAP_OFFSET not 4 KiB aligned


def check_einit(secs: Secs, sig: SIGSTRUCT) -> Status | None:
    """EINIT: the signed CET_ATTRIBUTES."""
    if (secs.CET_ATTRIBUTES ^ sig.CET_ATTRIBUTES) & sig.CET_ATTRIBUTES_MASK:
        # EINIT: CET_ATTRIBUTES differ from the SIGSTRUCT under its mask
        return refuse("CET.07", SGX_INVALID_ATTRIBUTE)
    return None


def check_eadd_enabled(lp: LpState, flags: int) -> None:
    """EADD: the processor must use CET when a shadow-stack page is added."""
    if shadow_stack_type(flags) and not lp.cr4 & CR4_CET:
        raise GP("CET.08")  # EADD: shadow-stack page with CR4.CET = 0


def check_eadd_tcs(tcs: TCS) -> None:
    """EADD: a TCS starts without a shadow stack."""
    if tcs.PREVSSP:
        raise GP("CET.09")  # EADD: TCS.PREVSSP not zero


def check_eadd_page(secs: Secs, linaddr: int, flags: int, content: bytes) -> None:
    """EADD: place, contents and rights of a shadow-stack page."""
    if _first_or_last(secs, linaddr):
        raise GP("CET.10")  # EADD: shadow-stack page first or last in ELRANGE
    if any(content[: PAGE_SIZE - 8]):
        raise GP("CET.11")  # EADD: shadow-stack page not zero before its last 8 bytes
    last = int.from_bytes(content[PAGE_SIZE - 8 :], "little")
    if flags & PT_MASK == SS_FIRST:
        if last != restore_token(linaddr, bool(secs.ATTRIBUTES & ATTR_MODE64BIT)):
            raise GP("CET.12")  # EADD: PT_SS_FIRST without its RSTORSSP token
    elif last:
        raise GP("CET.13")  # EADD: PT_SS_REST whose last 8 bytes are not zero
    if flags & RWX != R | W:
        raise GP("CET.14")  # EADD: shadow-stack page without exactly R and W


def check_eaug_secinfo(lp: LpState, flags: int) -> None:
    """EAUG: the SECINFO of a shadow-stack page."""
    if flags & RWX != R | W:
        raise GP("CET.15")  # EAUG: shadow-stack page without exactly R and W
    if not lp.cr4 & CR4_CET:
        raise GP("CET.16")  # EAUG: shadow-stack page with CR4.CET = 0


def check_eaug_place(secs: Secs, linaddr: int) -> None:
    """EAUG: where a shadow-stack page may lie."""
    if _first_or_last(secs, linaddr):
        raise GP("CET.17")  # EAUG: shadow-stack page first or last in ELRANGE


def augmented_content(secs: Secs, linaddr: int) -> bytes:
    """The page that EAUG makes as PT_SS_FIRST: zeros and the RSTORSSP token."""
    token = restore_token(linaddr, bool(secs.ATTRIBUTES & ATTR_MODE64BIT))
    return bytes(PAGE_SIZE - 8) + token.to_bytes(8, "little")


def _first_or_last(secs: Secs, linaddr: int) -> bool:
    return linaddr in (secs.BASEADDR, secs.elrange_end - PAGE_SIZE)


# Inside


def check_eaccept_secinfo(flags: int) -> None:
    """EACCEPT: the SECINFO of a shadow-stack page."""
    if flags & (PR | PENDING | MODIFIED) != PENDING:
        raise GP("CET.18")  # EACCEPT: SECINFO: PT_SS_FIRST or PT_SS_REST without PENDING alone


def check_eaccept_tcs(tcs: TCS) -> None:
    """EACCEPT: a page that becomes a TCS starts without a shadow stack."""
    if tcs.PREVSSP:
        raise GP("CET.19")  # EACCEPT: TCS.PREVSSP not zero


def check_enclu(lp: LpState) -> None:
    """#CP for an ENCLU that is no ENDBRANCH. Called only while the tracker may wait for one."""
    if lp.u_cet & ENDBR_EN and not lp.u_cet & U_CET_SUPPRESS and lp.cr4 & CR4_CET:
        if lp.u_cet & LEG_IW_EN:
            raise Unmodelled("ENCLU without ENDBRANCH under a legacy code page bitmap")
        raise CP("CET.20", CP_ENDBRANCH)  # ENCLU where ENDBRANCH must stand


# Entry and exit


def check_entry(lp: LpState, secs: Secs, tcs: TCS, index: int) -> CetState:
    """EENTER and ERESUME, after the test of TCS.STATE; AEX will save to CET frame `index`.

    The state is that of EENTER: SSP from TCS.PREVSSP, the tracker idle.
    """
    attributes = secs.CET_ATTRIBUTES
    if not lp.cr4 & CR4_CET and (attributes or secs.CET_LEG_BITMAP_OFFSET):
        raise GP("CET.21")  # the enclave uses CET, yet CR4.CET = 0
    if not attributes & _IN_USE:
        return CetState()
    if tcs.OCETSSA & CETSSA_FRAME_SIZE - 1:
        raise GP("CET.22")  # TCS.OCETSSA not 16-byte aligned
    u_cet = attributes
    if attributes & LEG_IW_EN and attributes & ENDBR_EN:
        u_cet += secs.BASEADDR + secs.CET_LEG_BITMAP_OFFSET
    save_area = check_save_area(lp, secs, tcs, index)
    return CetState(u_cet & MASK64, tcs.PREVSSP if attributes & SH_STK_EN else 0, save_area)


def check_save_area(lp: LpState, secs: Secs, tcs: TCS, index: int) -> int:
    """Test the page of CET frame `index`; return the frame's physical address, 0 without CET.

    SDM 3D, EENTER, ERESUME, EDECCSSA.
    """
    if not secs.CET_ATTRIBUTES & _IN_USE:
        return 0
    area = secs.BASEADDR + tcs.OCETSSA + CETSSA_FRAME_SIZE * index & MASK64
    address = area & ~PAGE_MASK
    processor = lp.processor
    shadow = processor.readings.cet_save_area_shadow_access
    walk(lp, address, SHADOW_READ if shadow else READ)
    pte = walk(lp, address, SHADOW_WRITE if shadow else WRITE)
    code = ENCLU_PFEC_W | (PFEC_SS if shadow else 0)
    page = processor.epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
    if page < 0:
        raise PF(address, "CET.23", code)  # CET save area: not in the EPC
    epcm = processor.epcm
    if (
        epcm.state[page] & _SAVE_PAGE_MASK != _SAVE_PAGE
        or epcm.address[page] != address
        or epcm.secs[page] != secs.page
    ):
        # CET save area: not a usable PT_SS_REST page of the enclave at this address
        raise PF(address, "CET.24", code)
    return processor.epc.physical(page) | area & PAGE_MASK


def check_resume(lp: LpState, secs: Secs, tcs: TCS) -> CetState:
    """ERESUME: the tests of an entry, but SSP and tracker from the frame that the AEX filled."""
    state = check_entry(lp, secs, tcs, tcs.CSSA - 1)
    if not state.save_area:
        return state
    frame = CETSSA_FRAME.unpack(lp.processor.memory.read(state.save_area, CETSSA_FRAME_SIZE))
    if not canonical(frame.SSP):
        raise GP("CET.25")  # ERESUME: saved SSP not canonical
    if frame.SSP & 3:
        raise GP("CET.26")  # ERESUME: saved SSP not 4-byte aligned
    track = frame.IB_TRACK_STATE
    if track & (IB_TRACKER | IB_SUPPRESS) == IB_TRACKER | IB_SUPPRESS:
        raise GP("CET.27")  # ERESUME: saved tracker waits for ENDBRANCH and is suppressed
    if track & ~(IB_TRACKER | IB_SUPPRESS):
        raise GP("CET.28")  # ERESUME: reserved bits of the CET frame not zero
    u_cet = state.u_cet
    u_cet |= U_CET_TRACKER if track & IB_TRACKER else 0
    u_cet |= U_CET_SUPPRESS if track & IB_SUPPRESS else 0
    return CetState(u_cet, frame.SSP, state.save_area)


def load(lp: LpState, state: CetState) -> None:
    """Entry: save the program's CET state, load the enclave's."""
    lp.outside_cet = (lp.u_cet, lp.ssp)
    lp.u_cet, lp.ssp, lp.cet_save_area = state


def save_at_aex(lp: LpState) -> None:
    """AEX: SSP and tracker to the CET frame, SSP to TCS.PREVSSP; restore the program's state."""
    if lp.cet_save_area:
        track = IB_TRACKER if lp.u_cet & U_CET_TRACKER else 0
        track |= IB_SUPPRESS if lp.u_cet & U_CET_SUPPRESS else 0
        frame = CETSSA_FRAME(SSP=lp.ssp, IB_TRACK_STATE=track)
        lp.processor.memory.write(lp.cet_save_area, frame.pack())
        if lp.processor.readings.aex_records_prevssp:
            _record_ssp(lp)
    _restore_outside(lp)


def leave_by_eexit(lp: LpState) -> None:
    """EEXIT: SSP to TCS.PREVSSP; restore the program's state, and wait for its ENDBRANCH."""
    _record_ssp(lp)
    _restore_outside(lp)
    if lp.cr4 & CR4_CET and lp.u_cet & ENDBR_EN:
        lp.u_cet = lp.u_cet & ~_TRACKER_STATE | U_CET_TRACKER


def _record_ssp(lp: LpState) -> None:
    if lp.u_cet & SH_STK_EN:
        tcs = lp.processor.epc.physical(lp.tcs_page)
        lp.processor.memory.write(tcs + TCS_OFF_PREVSSP, lp.ssp.to_bytes(8, "little"))


def _restore_outside(lp: LpState) -> None:
    lp.u_cet, lp.ssp = lp.outside_cet
    lp.outside_cet = (0, 0)
    lp.cet_save_area = 0
