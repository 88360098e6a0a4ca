"""Open readings of the manual, each a switch.

Where the manual is silent or contradicts itself and a test could tell the readings apart, the
choice is a field here: its default is what the model does, `why` gives the reason. What has been
measured on a processor is marked so: microcode of another part may still differ, hence the switch.
docs/readings.md is generated from this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

from softsgx.cpu.arguments import check_range, check_types
from softsgx.cpu.fault import ENCLS_PFEC
from softsgx.spec.bits import MASK32, PAGE_SIZE
from softsgx.spec.ssa import MXCSR_INIT
from softsgx.spec.status import SGX_INVALID_ATTRIBUTE
from softsgx.spec.tcs import SGX_TCS_LIMIT

# Family 6, model 207, CPL 3, SGX hidden by the hypervisor: no enclave and no EPC in reach.
EMERALD_RAPIDS: Final = "Emerald Rapids"


def _switch(default: Any, why: str, *, most: int = 0, measured: str = "") -> Any:
    """A reading; one that is a number lies between 0 and `most`. `measured` is a processor that
    was seen to do what the default says."""
    return field(default=default, metadata={"why": why, "most": most, "measured": measured})


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """One reading of every open point. Frozen; make another with `dataclasses.replace`."""

    # Operand checks
    eaccept_needs_read: bool = _switch(
        False,
        "EACCEPT of a PT_REG page whose EPCM.R is 0 gives #PF. The operand is labelled a read, but "
        "the operation listing tests no R, and a page restricted to no rights must be acceptable.",
    )
    emodpe_needs_read: bool = _switch(
        False,
        "EMODPE of a page whose EPCM.R is 0 gives #PF. As for EACCEPT; but the listing tests "
        "R only to refuse W without R.",
    )
    secinfo_state_bits_reserved: bool = _switch(
        False,
        "PENDING, MODIFIED, PR set in the SECINFO of EADD, EMODPR, EMODT, EMODPE, EACCEPTCOPY give "
        "#GP(0). They are defined bits, so they are no part of the reserved test.",
    )
    tcs_flags_reserved_at_eadd: bool = _switch(
        False,
        "EADD refuses reserved TCS.FLAGS bits. Only the reserved area is named; entry tests FLAGS.",
    )
    tcs_flags_reserved_at_eaccept: bool = _switch(
        False,
        "EACCEPT of a TCS refuses reserved TCS.FLAGS bits. As for EADD.",
    )
    eaccept_needs_nssa: bool = _switch(
        False,
        "EACCEPT of a TCS with CSSA = NSSA = 0 gives #GP(0), since the operation listing refuses "
        "CSSA >= NSSA. But the tests of Intel's enclave memory manager (intel/linux-sgx, "
        "external/sgx-emm/api_tests, test_sgx_mm_types) make a page of zeroes a TCS and require "
        "success, and Intel states that they pass on hardware. Nothing is known of CSSA above 0, "
        "which is refused; EENTER tests both in any case.",
    )
    eld_checks_secs: bool = _switch(
        True,
        "ELDB/ELDU give #PF when PAGEINFO.SECS is no valid SECS page. The listing has no test; "
        "without one a wrong page would read as an enclave id and end in SGX_MAC_COMPARE_FAIL.",
    )
    keyrequest_cet_mask_reserved: bool = _switch(
        True,
        "Byte 6 of KEYREQUEST must be zero on a part without CET, as older layouts have it. With "
        "CET it is CET_ATTRIBUTES_MASK.",
    )
    eremove_frees_accepted_trim: bool = _switch(
        True,
        "EREMOVE of an accepted PT_TRIM page frees it, also while the enclave runs. The listing "
        "names the case twice: once among pages where there is nothing to do, so that the page "
        "stays valid and RAX is 0, once among those that are freed. Linux relies on the latter.",
    )
    tcs_limit: int = _switch(
        SGX_TCS_LIMIT,
        "EDBGRD of a TCS at this offset or above gives #GP(0): SGX_TCS_LIMIT, not printed; the "
        "architectural size without CET. With CET it is 16 bytes more: OCETSSA and PREVSSP.",
        most=PAGE_SIZE,
    )
    xsave_end_inclusive: bool = _switch(
        False,
        "Entry also tests the page after an XSAVE region that ends exactly on a page boundary. "
        "The handling of the boundary is not spelled out.",
    )
    einit_attribute_code: int = _switch(
        SGX_INVALID_ATTRIBUTE,
        "RAX when EINIT's token disagrees in ATTRIBUTES: SGX_INVALID_EINIT_ATTRIBUTE has no number "
        "in the error table; SGX_INVALID_ATTRIBUTE is the nearest.",
        most=MASK32,
    )
    eblock_locked_first: bool = _switch(
        True,
        "EBLOCK reports SGX_ENTRYEPOCH_LOCKED before it looks at the page. Code 15 stands only in "
        "the error table, without a place in the listing.",
    )
    eacceptcopy_tests_blocked: bool = _switch(
        True,
        "EACCEPTCOPY to a BLOCKED page gives SGX_PAGE_ATTRIBUTES_MISMATCH. The listing prints the "
        "source's operand in the test, which would leave the destination untested.",
    )
    einit_initialised_is_pf: bool = _switch(
        False,
        "EINIT of an initialised enclave gives #PF instead of #GP(0): the exceptions list names "
        "the case under both.",
    )
    etrack_conflict_is_code: bool = _switch(
        False,
        "ETRACK while another leaf uses the tracking facility gives SGX_EPC_PAGE_CONFLICT, as the "
        "concurrency table prints it. The operation listing, which is followed, gives #GP(0).",
    )
    # Tracking
    etrack_needed_when_empty: bool = _switch(
        True,
        "EWB and EACCEPT ask for an ETRACK even if no processor is inside. The listings have "
        "no exception.",
    )
    late_entry_counts: bool = _switch(
        True,
        "A processor that entered after EBLOCK, EMODPR or EMODT but before ETRACK must leave as "
        "well. An epoch per ETRACK cannot tell it from one that entered before.",
    )
    repeated_emodpr_restamps: bool = _switch(
        True,
        "A second EMODPR of a page with PR=1 renews its epoch, so an older ETRACK no longer covers "
        "it. Needed for soundness when the second one removes more.",
    )
    noop_emodpr_restamps: bool = _switch(
        True,
        "An EMODPR that removes no right renews the epoch too. The listing has no such case.",
    )
    repeated_eblock_restamps: bool = _switch(
        False,
        "EBLOCK of a blocked page (SGX_BLKSTATE) renews its epoch. It is reported as information, "
        "not done again.",
    )
    reloaded_tracked: bool = _switch(
        True,
        "A page reloaded with PR or MODIFIED counts as tracked: since its EWB no processor can "
        "hold a translation from before.",
    )
    reloaded_blocked_tracked: bool = _switch(
        True,
        "A page that ELDB loaded, and so blocked, counts as tracked for a following EWB: no "
        "processor can have used it since.",
    )
    # Faults and error codes
    encls_pf_code: int = _switch(
        ENCLS_PFEC,
        "Error code of a #PF that an ENCLS leaf raises itself. KVM injects P, W, SGX; the manual "
        "prints only the SGX bit.",
        most=0xFFFF,
    )
    enclu_pf_write_bit: bool = _switch(
        True,
        "A #PF that an ENCLU leaf raises for an operand it writes has the W bit. Seen for a TCS "
        "operand that is not in the EPC: 8007H.",
        measured=EMERALD_RAPIDS,
    )
    tcs_written: bool = _switch(
        True,
        "The TCS operand of EENTER and ERESUME is a write access for paging, so that a TCS mapped "
        "read-only gives #PF with the W bit. The manual says read and write.",
        measured=EMERALD_RAPIDS,
    )
    tcs_last_byte: bool = _switch(
        True,
        "A #PF for the TCS operand has the address of the last byte of the page, RBX + FFFH. Seen "
        "where paging refuses and where the page is not in the EPC; taken over for refusals by "
        "the EPCM, which the listing words alike.",
        measured=EMERALD_RAPIDS,
    )
    aep_before_tcs: bool = _switch(
        True,
        "EENTER and ERESUME test that the AEP is canonical before they translate RBX. The listing "
        "has it after the test that RBX lies in the EPC.",
        measured=EMERALD_RAPIDS,
    )
    nonepc_in_elrange_sgx: bool = _switch(
        True,
        "A non-EPC page inside ELRANGE gives #PF with the SGX bit: the refusal is SGX's own.",
    )
    stale_narrow_rewalks: bool = _switch(
        False,
        "An access that a narrower, stale TLB entry denies walks again instead of faulting. The "
        "manual allows the spurious fault, and software must cope with it.",
    )
    stale_narrow_sgx: bool = _switch(
        False,
        "That spurious fault carries the SGX bit. The TLB does not know which layer was narrower.",
    )
    fetch_outside_elrange_first: bool = _switch(
        True,
        "A fetch outside ELRANGE gives #GP(0) even if the address is not mapped.",
    )
    fetch_split_gp_first: bool = _switch(
        False,
        "A fetch over the end of ELRANGE gives #GP(0) even if the half inside is not executable. "
        "The manual names the #GP(0) without an order; but the length of an instruction is not "
        "known before its first bytes are, so their #PF comes first. Concerns `fetch`, which is "
        "given a size; engines decode.",
    )
    sgx1_violation_is_gp: bool = _switch(
        True,
        "On a part without SGX2 an EPCM violation is #GP(0) instead of #PF, as Linux and KVM note.",
    )
    # Entry, exit
    aex_mxcsr: int = _switch(
        MXCSR_INIT,
        "MXCSR after AEX. Printed as 1FB0H, which is no INIT value; a misprint of 1F80H.",
        most=0xFFFF,
    )
    eresume_updates_ursp: bool = _switch(
        False,
        "ERESUME stores RSP and RBP as URSP and URBP of the frame. Only the notify case lists it.",
    )
    # Layouts the manual does not print
    rdinfo_blocked_bit: int = _switch(6, "Bit of BLOCKED in RDINFO.FLAGS; not printed.", most=63)
    rdinfo_childpresent_bit: int = _switch(
        0, "Bit of CHILDPRESENT in RDINFO.STATUS; not printed.", most=63
    )
    rdinfo_virtchildpresent_bit: int = _switch(
        1, "Bit of VIRTCHILDPRESENT in RDINFO.STATUS; not printed.", most=63
    )

    # CET
    cet_save_area_shadow_access: bool = _switch(
        True,
        "Entry and EDECCSSA reach the page of the CET save area by a shadow-stack access, so that "
        "paging must map it as such (R/W = 0, D = 1). The listings say read/write accessible; the "
        "page is PT_SS_REST, and a stack may share it, which only shadow-stack accesses reach.",
    )
    aex_records_prevssp: bool = _switch(
        True,
        "AEX leaves SSP in TCS.PREVSSP, as the description of the field says (AEX or EEXIT): the "
        "handler that EENTER starts then runs below what was interrupted.",
    )
    shadow_stack_pages_readable: bool = _switch(
        True,
        "Code inside reads PT_SS_FIRST and PT_SS_REST pages by ordinary loads. Paging lets "
        "shadow-stack pages be read, and their EPCM.R is 1; off: #PF, as for other restricted "
        "types.",
    )
    edbgrd_shadow_stack_as_va: bool = _switch(
        False,
        "EDBGRD of a shadow-stack page falls into the branch for PT_VA (all ones if a bit above 2 "
        "is set, DEBUG not asked), as the listing prints it. That would open production enclaves; "
        "EDBGWR treats the types as PT_REG.",
    )
    ecreate_measures_bitmap: bool = _switch(
        True,
        "The ECREATE record holds CET_LEG_BITMAP_OFFSET at bytes 20 to 27. The listing stores it "
        "and in its next line clears from byte 20 on; that line means the bytes after it.",
    )

    def __post_init__(self) -> None:
        check_types(self)
        for reading in fields(self):
            if isinstance(reading.default, int) and not isinstance(reading.default, bool):
                value = getattr(self, reading.name)
                check_range(f"Readings.{reading.name}", value, 0, reading.metadata["most"])


DEFAULT_READINGS = Readings()
