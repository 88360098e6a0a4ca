"""EREMOVE, ENCLS leaf 03H: free an EPC page. SDM 3D, EREMOVE."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.tracking import clear_stamp
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.epcm import MODIFIED, PT_MASK, SECS, TRIM, VA, VALID
from softsgx.spec.status import SGX_CHILD_PRESENT, SGX_ENCLAVE_ACT


def eremove(lp: LogicalProcessor, _rbx: int, rcx: int, _rdx: int) -> Status:
    """Clear VALID of the page at RCX. Needs neither EBLOCK nor ETRACK, nor any permission."""
    if rcx & 4095:
        raise GP("EREMOVE.01")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EREMOVE.02", ENCLS_PFEC)  # RCX is not in the EPC
    if lp.busy & BUSY_TARGET:
        raise GP("EREMOVE.03")  # another leaf uses the page
    processor = lp.processor
    epcm = processor.epcm
    word = epcm.state[page]
    pt = word & PT_MASK
    accepted_trim = pt == TRIM and not word & MODIFIED
    if not word & VALID:
        return SUCCESS  # nothing to do
    if accepted_trim and not processor.readings.eremove_frees_accepted_trim:
        return SUCCESS  # the listing names it here as well (an open reading)
    if pt == VA:
        processor.memory.clear_page(processor.epc.pfn(page))
        epcm.free(page)
        return SUCCESS
    if pt == SECS:
        if processor.secs[page].children:
            return refuse("EREMOVE.04", SGX_CHILD_PRESENT)  # SECS with pages in the EPC
        del processor.secs[page]
        epcm.free(page)
        return SUCCESS
    secs = processor.parent(page)
    if secs.inside and not accepted_trim:
        return refuse("EREMOVE.05", SGX_ENCLAVE_ACT)  # a processor is inside the enclave

    secs.children -= 1
    clear_stamp(processor, page)
    processor.memory.clear_page(processor.epc.pfn(page))
    epcm.free(page)
    return SUCCESS
