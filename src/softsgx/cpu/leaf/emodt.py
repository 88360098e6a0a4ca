"""EMODT, ENCLS leaf 0FH: change the type of an EPC page to PT_TCS or PT_TRIM. SDM 3D, EMODT."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import system_secinfo
from softsgx.cpu.tracking import stamp
from softsgx.spec.concurrency import BUSY_TARGET, BUSY_TARGET_M
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PT_MASK,
    REG,
    TCS,
    TRIM,
    VALID,
    shadow_stack_type,
)
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PAGE_NOT_MODIFIABLE


def emodt(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> Status:
    """Give the page at RCX the type in the SECINFO at RBX; set MODIFIED, clear R, W, X and PR.

    Allowed: REG to TCS; REG, TCS and the shadow-stack types to TRIM. The contents stay. EACCEPT
    completes it.
    """
    if rbx & 63:
        raise GP("EMODT.01")  # RBX (SECINFO) not 64-byte aligned
    if rcx & 4095:
        raise GP("EMODT.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EMODT.03", ENCLS_PFEC)  # RCX is not in the EPC
    flags = system_secinfo(
        lp,
        rbx,
        "EMODT.04",  # SECINFO reserved field not zero
        lp.processor.secinfo_reserved,
    )
    new = flags & PT_MASK
    if new not in (TCS, TRIM):
        raise GP("EMODT.05")  # SECINFO.PT is neither PT_TCS nor PT_TRIM
    if lp.busy & BUSY_TARGET:
        return refuse("EMODT.06", SGX_EPC_PAGE_CONFLICT)  # another leaf uses the page
    processor = lp.processor
    epcm = processor.epcm
    word = epcm.state[page]
    if not word & VALID:
        raise PF(rcx, "EMODT.07", ENCLS_PFEC)  # EPCM: VALID = 0
    if lp.busy & BUSY_TARGET_M:
        return refuse("EMODT.08", SGX_EPC_PAGE_CONFLICT)  # another SGX2 leaf uses the page
    old = word & PT_MASK
    trimmed = (old == TCS or shadow_stack_type(word)) and new == TRIM
    if old != REG and not trimmed:
        # not REG to TCS, and not REG, TCS or a PT_SS type to TRIM
        raise PF(rcx, "EMODT.09", ENCLS_PFEC)
    if word & (PENDING | MODIFIED):
        return refuse("EMODT.10", SGX_PAGE_NOT_MODIFIABLE)  # EPCM: PENDING or MODIFIED is 1
    secs = processor.secs[epcm.secs[page]]
    if not secs.initialised:
        raise GP("EMODT.11")  # the enclave is not initialised

    stamp(processor, secs, page)
    epcm.put(page, VALID | MODIFIED | new | word & BLOCKED)
    return SUCCESS
