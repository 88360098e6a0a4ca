"""EACCEPT, ENCLU leaf 05H: the enclave accepts a change to one of its pages. SDM 3D, EACCEPT."""

from softsgx.cpu import cet
from softsgx.cpu.fault import ENCLU_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import (
    enclave_page,
    enclave_secinfo,
    epc_read,
    tcs_limits_end_in_fff,
    usable_page,
)
from softsgx.cpu.tracking import clear_stamp, tracked
from softsgx.spec.attributes import ATTR_MODE64BIT
from softsgx.spec.concurrency import BUSY_TARGET, BUSY_TARGET_M
from softsgx.spec.epcm import (
    BLOCKED,
    CHILD_TYPES,
    EACCEPT_COMPARED,
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    REG,
    TCS,
    TRIM,
    VALID,
    R,
    shadow_stack_type,
)
from softsgx.spec.status import SGX_PAGE_ATTRIBUTES_MISMATCH, SGX_PAGE_NOT_TRACKED
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.spec.tcs import TCS_DBGOPTIN, TCS_FLAGS_DEFINED, tcs_reserved_clear


def eaccept(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> Status:
    """Accept the page at RCX as the SECINFO at RBX describes it: clear PENDING, MODIFIED, PR.

    Permissions are verified, never changed: R, W, X, PT, PENDING and MODIFIED must equal the EPCM;
    PR is not compared. After EMODPR or EMODT it also verifies that tracking is complete.
    """
    if rbx & 63:
        raise GP("EACCEPT.01")  # RBX (SECINFO) not 64-byte aligned
    if not lp.elrange_base <= rbx < lp.elrange_end:
        raise GP("EACCEPT.02")  # RBX outside ELRANGE
    info = enclave_page(lp, rbx, False, "EACCEPT.03")  # RBX is not in the EPC
    usable_page(lp, info, rbx, "EACCEPT.04")  # SECINFO not in a readable PT_REG page of the enclave
    flags = enclave_secinfo(lp, info, rbx, "EACCEPT.05")  # SECINFO reserved field not zero
    if rcx & 4095:
        raise GP("EACCEPT.06")  # RCX not 4 KiB aligned
    if not lp.elrange_base <= rcx < lp.elrange_end:
        raise GP("EACCEPT.07")  # RCX outside ELRANGE
    page = enclave_page(lp, rcx, False, "EACCEPT.08")  # RCX is not in the EPC
    pt = flags & PT_MASK
    if pt == REG:
        if flags & MODIFIED:
            raise GP("EACCEPT.09")  # SECINFO: PT_REG with MODIFIED
        if not flags & (PR | PENDING):
            raise GP("EACCEPT.10")  # SECINFO: PT_REG with neither PR nor PENDING
    elif pt in (TCS, TRIM):
        if flags & (PR | PENDING | MODIFIED) != MODIFIED:
            raise GP("EACCEPT.11")  # SECINFO: PT_TCS or PT_TRIM without MODIFIED alone
    elif shadow_stack_type(flags) and lp.processor.part.cet:
        cet.check_eaccept_secinfo(flags)
    else:
        # SECINFO.PT is not PT_REG, PT_TCS, PT_TRIM or (with CET) PT_SS_FIRST, PT_SS_REST
        raise GP("EACCEPT.12")
    epcm = lp.processor.epcm
    word = epcm.state[page]
    if not word & VALID:
        raise PF(rcx, "EACCEPT.13", ENCLU_PFEC)  # EPCM: VALID = 0
    if word & BLOCKED:
        raise PF(rcx, "EACCEPT.14", ENCLU_PFEC)  # EPCM: BLOCKED = 1
    held_type = word & PT_MASK
    if held_type not in CHILD_TYPES:
        raise PF(rcx, "EACCEPT.15", ENCLU_PFEC)  # EPCM: PT_SECS or PT_VA
    if epcm.secs[page] != lp.secs_page:
        raise PF(rcx, "EACCEPT.16", ENCLU_PFEC)  # EPCM: ENCLAVESECS is another enclave
    if held_type == REG and not word & R and lp.processor.readings.eaccept_needs_read:
        raise PF(rcx, "EACCEPT.17", ENCLU_PFEC)  # EPCM: R = 0 (an open reading, off by default)
    if lp.busy & (BUSY_TARGET | BUSY_TARGET_M):
        raise GP("EACCEPT.18")  # another leaf uses the page
    # The listing tests VALID and ENCLAVESECS again here. The model need not: a leaf that could have
    # changed them since would have held the page, EACCEPT.18.
    if epcm.address[page] != rcx:
        return refuse("EACCEPT.19", SGX_PAGE_ATTRIBUTES_MISMATCH)  # ENCLAVEADDRESS is not RCX
    if (word ^ flags) & EACCEPT_COMPARED:
        # R, W, X, PT, PENDING or MODIFIED differs
        return refuse("EACCEPT.20", SGX_PAGE_ATTRIBUTES_MISMATCH)
    secs = lp.secs
    assert secs is not None
    if not tracked(lp.processor, secs, page):
        return refuse("EACCEPT.21", SGX_PAGE_NOT_TRACKED)  # tracking is not complete
    if pt == TCS:
        _tcs_contents(lp, page, rcx)

    epcm.put(page, word & ~(PENDING | MODIFIED | PR))
    clear_stamp(lp.processor, page)
    return SUCCESS


def _tcs_contents(lp: LogicalProcessor, page: int, rcx: int) -> None:
    """A page that becomes a TCS must already hold a legal one."""
    raw = epc_read(lp, page, rcx, 4096)
    tcs = TCS_PAGE.unpack(raw)
    has_cet = lp.processor.part.cet
    if not tcs_reserved_clear(raw, has_cet):
        raise GP("EACCEPT.22")  # TCS: reserved area not zero
    if tcs.FLAGS & TCS_DBGOPTIN:
        raise GP("EACCEPT.23")  # TCS: DBGOPTIN = 1
    if tcs.CSSA >= tcs.NSSA and (tcs.CSSA or lp.processor.readings.eaccept_needs_nssa):
        raise GP("EACCEPT.24")  # TCS: CSSA >= NSSA (of 0 and 0 an open reading, off by default)
    if tcs.AEP:
        raise GP("EACCEPT.25")  # TCS: AEP not zero
    if tcs.STATE:
        raise GP("EACCEPT.26")  # TCS: STATE not inactive
    if has_cet:
        cet.check_eaccept_tcs(tcs)
    assert lp.secs is not None
    if not lp.secs.ATTRIBUTES & ATTR_MODE64BIT and not tcs_limits_end_in_fff(tcs):
        raise GP("EACCEPT.27")  # TCS of a 32-bit enclave: FSLIMIT or GSLIMIT not ending in FFFH
    if tcs.FLAGS & ~TCS_FLAGS_DEFINED and lp.processor.readings.tcs_flags_reserved_at_eaccept:
        raise GP("EACCEPT.28")  # TCS: reserved FLAGS bit (an open reading, off by default)
