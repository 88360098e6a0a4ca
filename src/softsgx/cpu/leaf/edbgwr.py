"""EDBGWR, ENCLS leaf 05H: write 8 bytes of a debug enclave. SDM 3D, EDBGWR."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.spec.attributes import ATTR_DEBUG
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.epcm import MODIFIED, PENDING, PT_MASK, REG, SS_FIRST, SS_REST, TCS, VALID
from softsgx.spec.status import SGX_PAGE_NOT_DEBUGGABLE
from softsgx.spec.tcs import TCS_OFF_FLAGS


def edbgwr(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> Status:
    """The 8 bytes at RCX := RBX, whatever R, W, X and BLOCKED are. Of a TCS only FLAGS."""
    if rcx & 7:
        raise GP("EDBGWR.01")  # RCX not 8-byte aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EDBGWR.02", ENCLS_PFEC)  # RCX is not in the EPC
    if lp.busy & BUSY_TARGET:
        raise GP("EDBGWR.03")  # another leaf uses the page
    processor = lp.processor
    word = processor.epcm.state[page]
    if not word & VALID:
        raise PF(rcx, "EDBGWR.04", ENCLS_PFEC)  # EPCM: VALID = 0
    pt = word & PT_MASK
    if pt not in (REG, TCS, SS_FIRST, SS_REST):
        raise PF(rcx, "EDBGWR.05", ENCLS_PFEC)  # EPCM: not PT_REG, PT_TCS or a PT_SS type
    if word & (PENDING | MODIFIED):
        return refuse("EDBGWR.06", SGX_PAGE_NOT_DEBUGGABLE)  # EPCM: PENDING or MODIFIED is 1
    offset = rcx & 4095
    if pt == TCS and offset != TCS_OFF_FLAGS:
        raise GP("EDBGWR.07")  # TCS: only the FLAGS quadword may be written
    if not processor.parent(page).ATTRIBUTES & ATTR_DEBUG:
        raise GP("EDBGWR.08")  # not a debug enclave

    physical = processor.epc.pfn(page) << PAGE_SHIFT | offset
    processor.memory.write(physical, rbx.to_bytes(8, "little"))
    return SUCCESS
