"""ETRACKC, ENCLS leaf 11H: ETRACK by any page of the enclave. SDM 3D, ETRACKC."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, inform, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.tracking import track
from softsgx.spec.concurrency import BUSY_SECS_T, BUSY_TARGET
from softsgx.spec.epcm import VALID
from softsgx.spec.status import (
    SGX_EPC_PAGE_CONFLICT,
    SGX_PG_INVLD,
    SGX_PREV_TRK_INCMPL,
    SGX_TRACK_NOT_REQUIRED,
)


def etrackc(lp: LogicalProcessor, _rbx: int, rcx: int, _rdx: int) -> Status:
    """Open a tracking cycle of the enclave that owns the page at RCX."""
    if rcx & 4095:
        raise GP("ETRACKC.01")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "ETRACKC.02", ENCLS_PFEC)  # RCX is not in the EPC
    if lp.busy & BUSY_TARGET:
        return refuse("ETRACKC.03", SGX_EPC_PAGE_CONFLICT)  # another leaf uses the page
    processor = lp.processor
    if not processor.epcm.state[page] & VALID:
        return refuse("ETRACKC.04", SGX_PG_INVLD)  # EPCM: VALID = 0
    secs = processor.secs_of(page)
    if secs is None:
        return inform("ETRACKC.05", SGX_TRACK_NOT_REQUIRED)  # the page belongs to no enclave
    if lp.busy & BUSY_SECS_T:
        return refuse("ETRACKC.06", SGX_EPC_PAGE_CONFLICT)  # the tracking facility is in use
    if not track(secs):
        return refuse("ETRACKC.07", SGX_PREV_TRK_INCMPL)  # the previous cycle is not complete
    return SUCCESS
