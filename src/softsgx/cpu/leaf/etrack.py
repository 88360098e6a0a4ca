"""ETRACK, ENCLS leaf 0CH: open a tracking cycle of an enclave. SDM 3D, ETRACK."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.tracking import track
from softsgx.spec.concurrency import BUSY_SECS, BUSY_SECS_T
from softsgx.spec.epcm import PT_MASK, SECS, VALID
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PREV_TRK_INCMPL


def etrack(lp: LogicalProcessor, _rbx: int, rcx: int, _rdx: int) -> Status:
    """Open a tracking cycle: the processors that are now inside the enclave of RCX must leave."""
    if rcx & 4095:
        raise GP("ETRACK.01")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "ETRACK.02", ENCLS_PFEC)  # RCX is not in the EPC
    if lp.busy & (BUSY_SECS | BUSY_SECS_T):
        conflict = "ETRACK.03"  # another leaf uses the SECS or its tracking facility
        if lp.processor.readings.etrack_conflict_is_code and not lp.busy & BUSY_SECS:
            return refuse(conflict, SGX_EPC_PAGE_CONFLICT)
        raise GP(conflict)
    processor = lp.processor
    if processor.epcm.state[page] & (VALID | PT_MASK) != VALID | SECS:
        raise PF(rcx, "ETRACK.04", ENCLS_PFEC)  # RCX is no valid SECS page
    if not track(processor.secs[page]):
        return refuse("ETRACK.05", SGX_PREV_TRK_INCMPL)  # the previous cycle is not complete
    return SUCCESS
