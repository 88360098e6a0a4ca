"""Access control at address translation: what happens at a TLB miss.

SDM 3D, 38.3 "Access-control Requirements"; SDM 3A, 4.6 "Access Rights", 4.7 "Page-Fault
Exceptions". The layers in their order: ordinary paging first, then, for an access from inside to
ELRANGE, the EPCM. The result is a TLB entry, which serves until the architecture flushes it; that
is the only place where the EPCM is enforced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.cpu.fault import GP, PF, Fault
from softsgx.events.cpu import AccessFaulted, TlbFilled
from softsgx.mem.pagetable import (
    DIRECT_MAP,
    DIRECT_MAP_SIZE,
    PTE_A,
    PTE_D,
    PTE_NX,
    PTE_P,
    PTE_PFN_MASK,
    PTE_U,
    PTE_W,
)
from softsgx.mem.tlb import (
    ABORT,
    CLEAN,
    FETCH,
    READ,
    SHADOW,
    SHADOW_READ,
    SHADOW_WRITE,
    WRITE,
)
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, canonical
from softsgx.spec.cet import SH_STK_EN
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
    X,
    shadow_stack_type,
)
from softsgx.spec.faults import PFEC_I, PFEC_P, PFEC_SGX, PFEC_SS, PFEC_U, PFEC_W
from softsgx.spec.msr import CR4_CET

if TYPE_CHECKING:
    from softsgx.cpu.state import LpState

_PFEC_OF: Final = {
    READ: PFEC_U,
    WRITE: PFEC_U | PFEC_W,
    FETCH: PFEC_U | PFEC_I,
    SHADOW_READ: PFEC_U | PFEC_SS,
    SHADOW_WRITE: PFEC_U | PFEC_SS | PFEC_W,
}
_KINDS: Final = "READ, WRITE, FETCH, SHADOW_READ, SHADOW_WRITE"
# What a PT_REG page must permit; no PT_REG page permits a shadow-stack access.
_RIGHT_OF: Final = {READ: R, WRITE: W, FETCH: X, SHADOW_READ: 0, SHADOW_WRITE: 0}


def check_shadow_access(lp: LpState, access: int) -> None:
    """ValueError for an access of an unknown kind; RuntimeError for a shadow-stack access while no
    shadow stack is in use, when the instructions that make one are #UD."""
    if access not in (SHADOW_READ, SHADOW_WRITE):
        raise ValueError(f"access {access!r}: one of {_KINDS} (mem.tlb) is needed")
    if not (lp.cr4 & CR4_CET and lp.u_cet & SH_STK_EN):
        raise RuntimeError("a shadow-stack access, yet no shadow stack is in use")


def fill(lp: LpState, address: int, access: int) -> int:
    """Translate `address` for one access (`mem.tlb`), load the TLB, return the entry.

    Raises the fault that the access causes. `lp.tlb` had no entry that permits the access.
    """
    inside = lp.secs is not None
    in_elrange = inside and lp.elrange_base <= address < lp.elrange_end
    fetch_leaves = access == FETCH and inside and not in_elrange
    if access & SHADOW and inside and not in_elrange:
        raise _shadow_stack_outside()
    if fetch_leaves and lp.processor.readings.fetch_outside_elrange_first:
        raise GP("ACCESS.01")  # fetch outside ELRANGE while in enclave mode
    if not canonical(address):
        raise _bad_address(address)
    page = address >> PAGE_SHIFT
    if not fetch_leaves:
        _stale_narrow(lp, address, page, access)
    pte = walk(lp, address, access)
    if fetch_leaves:
        raise GP("ACCESS.03")  # fetch outside ELRANGE, after paging (an open reading)
    number = lp.processor.epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
    if not in_elrange:
        # From outside, or from inside through an alias: EPC is the abort page, never a fault.
        rights = _pte_rights(lp, pte) | (ABORT if number >= 0 else 0)
        if inside:
            # So that a fetch or shadow-stack access after a load comes here and gets its #GP(0).
            rights &= ~(FETCH | SHADOW)
    elif number < 0:
        sgx = PFEC_SGX if lp.processor.readings.nonepc_in_elrange_sgx else 0
        raise _violation(lp, address, "ACCESS.04", PFEC_P | _PFEC_OF[access] | sgx)  # not EPC
    else:
        rights = _pte_rights(lp, pte) & _epcm_rights(lp, number, address, access)
    entry = pte & PTE_PFN_MASK | rights
    lp.tlb.entries[page] = entry
    if lp.log.on:
        lp.log.emit(TlbFilled(lp.id, page, entry))
    return entry


def split_fetch(lp: LpState, address: int, size: int) -> None:
    """#GP(0) for a fetch across the end of ELRANGE, before its part inside is tested: a reading."""
    if lp.elrange_base <= address < lp.elrange_end < address + size:
        refused = GP("ACCESS.14")  # fetch over the end of ELRANGE (an open reading, off by default)
        if lp.log.on:
            vector, rule = refused.vector, refused.rule
            lp.log.emit(AccessFaulted(lp.id, address, FETCH, vector, 0, rule, 0))
        raise refused


def walk(lp: LpState, address: int, access: int) -> int:
    """The ordinary page walk at CPL 3: check the entry, set A (and D for a write), return it."""
    page = address >> PAGE_SHIFT
    ptes = lp.space.ptes
    pte = ptes.get(page, 0)
    if not pte and lp.space.host_pte is not None:
        pte = lp.space.host_pte(address)
    if not pte & PTE_P:
        if not canonical(address):
            raise _bad_address(address)
        raise PF(address, "PAGING.01", _PFEC_OF[access])  # page not present
    if not pte & PTE_U:
        raise PF(address, "PAGING.02", PFEC_P | _PFEC_OF[access])  # supervisor page
    if access == WRITE and not pte & PTE_W:
        raise PF(address, "PAGING.03", PFEC_P | PFEC_U | PFEC_W)  # page not writable
    if access == FETCH and pte & PTE_NX:
        raise PF(address, "PAGING.04", PFEC_P | PFEC_U | PFEC_I)  # page not executable
    if access & SHADOW and pte & (PTE_W | PTE_D) != PTE_D:
        # shadow-stack access to a page that is not a shadow-stack page: R/W = 1 or D = 0
        raise PF(address, "PAGING.07", PFEC_P | _PFEC_OF[access])
    used = pte | PTE_A | (PTE_D if access == WRITE else 0)
    if used != pte:
        ptes[page] = used
        lp.space.digest_stale = True
    return used


def supervisor_physical(lp: LpState, address: int, write: bool) -> int:
    """Physical address of a CPL 0 access: direct map, or a mapping of the current space."""
    offset = address - DIRECT_MAP
    if 0 <= offset < DIRECT_MAP_SIZE:
        return offset
    if not canonical(address):
        raise _bad_address(address)
    code = PFEC_W if write else 0
    pte = lp.space.ptes.get(address >> PAGE_SHIFT, 0)
    if not pte & PTE_P:
        raise PF(address, "PAGING.05", code)  # supervisor access to a page not present
    if write and not pte & PTE_W:
        raise PF(address, "PAGING.06", PFEC_P | code)  # supervisor write, CR0.WP = 1
    used = pte | PTE_A | (PTE_D if write else 0)
    if used != pte:
        lp.space.ptes[address >> PAGE_SHIFT] = used
        lp.space.digest_stale = True
    return (pte & PTE_PFN_MASK) | (address & PAGE_MASK)


def _bad_address(address: int) -> Fault:
    if not 0 <= address < 1 << 64:
        raise ValueError(f"address {address:#x} is not a 64-bit linear address")
    return GP("ACCESS.02")  # address not canonical


def _shadow_stack_outside() -> Fault:
    return GP("ACCESS.15")  # shadow-stack access outside ELRANGE while in enclave mode


def _pte_rights(lp: LpState, pte: int) -> int:
    rights = READ
    if pte & PTE_W:
        # A write needs D set; without it the first write must walk again, as on hardware.
        rights |= WRITE if pte & PTE_D else CLEAN
    elif pte & PTE_D and lp.cr4 & CR4_CET:
        rights |= SHADOW
    if not pte & PTE_NX:
        rights |= FETCH
    return rights


def _epcm_rights(lp: LpState, number: int, address: int, access: int) -> int:
    """The EPCM check of an access from inside to ELRANGE; the rights the entry allows."""
    epcm = lp.processor.epcm
    word = epcm.state[number]
    if (
        word & USABLE_MASK != USABLE_REG
        or not word & _RIGHT_OF[access]
        or epcm.secs[number] != lp.secs_page
        or epcm.address[number] != address & ~PAGE_MASK
    ):
        rule = _unmet(lp, number, address, access)
        if rule:
            raise _violation(lp, address, rule, PFEC_P | PFEC_SGX | _PFEC_OF[access])
        return READ | SHADOW if lp.processor.readings.shadow_stack_pages_readable else SHADOW
    # R, W, X of the EPCM word are READ, WRITE, FETCH of a TLB entry; CLEAN goes with W.
    return word & (R | W | X) | (CLEAN if word & W else 0)


def _unmet(lp: LpState, number: int, address: int, access: int) -> str:
    """The first requirement that the EPCM entry does not meet, in the order of the manual's list.

    "" if it meets all: a shadow-stack page, and an access that such a page permits.
    """
    epcm = lp.processor.epcm
    word = epcm.state[number]
    if not word & VALID:
        return "ACCESS.05"  # EPCM: VALID = 0
    shadow_stack = shadow_stack_type(word)
    if word & PT_MASK != REG and not shadow_stack:
        return "ACCESS.06"  # EPCM: the page type is not PT_REG
    if epcm.secs[number] != lp.secs_page:
        return "ACCESS.07"  # EPCM: ENCLAVESECS is another enclave
    if epcm.address[number] != address & ~PAGE_MASK:
        return "ACCESS.08"  # EPCM: ENCLAVEADDRESS is another address
    if word & BLOCKED:
        return "ACCESS.09"  # EPCM: BLOCKED = 1
    if word & PENDING:
        return "ACCESS.10"  # EPCM: PENDING = 1
    if word & MODIFIED:
        return "ACCESS.11"  # EPCM: MODIFIED = 1
    if shadow_stack or access & SHADOW:
        return _unmet_by_shadow_stack(lp, shadow_stack, access)
    return "ACCESS.12"  # EPCM: R, W or X does not permit the access


def _unmet_by_shadow_stack(lp: LpState, shadow_stack: bool, access: int) -> str:
    """Shadow-stack accesses go to shadow-stack pages, which permit nothing else but loads."""
    if not shadow_stack:
        return (
            "ACCESS.16"  # EPCM: shadow-stack access to a page that is not PT_SS_FIRST or PT_SS_REST
        )
    readable = lp.processor.readings.shadow_stack_pages_readable
    if access in (WRITE, FETCH) or (access == READ and not readable):
        return "ACCESS.17"  # EPCM: ordinary write to a shadow-stack page, or a fetch from it
    return ""


def _violation(lp: LpState, address: int, rule: str, code: int) -> Fault:
    """An SGX-specific refusal: #PF, or #GP(0) on first-generation parts."""
    processor = lp.processor
    if not processor.part.sgx2 and processor.readings.sgx1_violation_is_gp:
        return GP(rule)
    return PF(address, rule, code)


def _stale_narrow(lp: LpState, address: int, page: int, access: int) -> None:
    """A cached translation that is narrower than the access may fault although a walk would not."""
    entry = lp.tlb.entries.get(page)
    if entry is None:
        return
    if access == WRITE and entry & CLEAN:
        # The first write walks again to set D; if that faults, the translation is dropped.
        del lp.tlb.entries[page]
        return
    if lp.processor.readings.stale_narrow_rewalks:
        return
    # The fault itself drops the entry, SDM 3A, 4.10.4.1 "Operations that Invalidate TLBs and
    # Paging-Structure Caches"; so will the AEX that follows.
    del lp.tlb.entries[page]
    code = PFEC_P | _PFEC_OF[access]
    try:
        walk(lp, address, access)
    except Fault:
        return  # the caller's walk will raise the same
    if lp.secs is not None and lp.elrange_base <= address < lp.elrange_end:
        number = lp.processor.epc.index((lp.space.lookup(address) & PTE_PFN_MASK) >> PAGE_SHIFT)
        if number < 0:
            return  # not EPC, which the caller refuses
        _epcm_rights(lp, number, address, access)  # raises if the EPCM denies the access by now
    sgx = PFEC_SGX if lp.processor.readings.stale_narrow_sgx else 0
    raise PF(address, "ACCESS.13", code | sgx)  # only the stale TLB entry denies the access
