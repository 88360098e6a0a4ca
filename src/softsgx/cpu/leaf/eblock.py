"""EBLOCK, ENCLS leaf 09H: no new translations of a page. SDM 3D, EBLOCK."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, inform, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.tracking import stamp
from softsgx.spec.concurrency import BUSY_SECS_T, BUSY_TARGET
from softsgx.spec.epcm import BLOCKED, PT_MASK, SECS, VALID, child_type
from softsgx.spec.status import (
    SGX_BLKSTATE,
    SGX_ENTRYEPOCH_LOCKED,
    SGX_EPC_PAGE_CONFLICT,
    SGX_NOTBLOCKABLE,
    SGX_PG_INVLD,
    SGX_PG_IS_SECS,
)


def eblock(lp: LogicalProcessor, _rbx: int, rcx: int, _rdx: int) -> Status:
    """Set BLOCKED of the page at RCX, and stamp it with the epoch of its enclave."""
    if rcx & 4095:
        raise GP("EBLOCK.01")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EBLOCK.02", ENCLS_PFEC)  # RCX is not in the EPC
    if lp.busy & BUSY_TARGET:
        return refuse("EBLOCK.03", SGX_EPC_PAGE_CONFLICT)  # another leaf uses the page
    processor = lp.processor
    readings = processor.readings
    locked = lp.busy & BUSY_SECS_T
    if locked and readings.eblock_locked_first:
        return refuse("EBLOCK.04", SGX_ENTRYEPOCH_LOCKED)  # an ETRACK of the enclave executes
    epcm = processor.epcm
    word = epcm.state[page]
    if not word & VALID:
        return refuse("EBLOCK.05", SGX_PG_INVLD)  # EPCM: VALID = 0
    if word & PT_MASK == SECS:
        return inform("EBLOCK.06", SGX_PG_IS_SECS)  # the page is a SECS
    if not child_type(word):
        return inform("EBLOCK.07", SGX_NOTBLOCKABLE)  # the page type cannot be blocked (PT_VA)
    secs = processor.parent(page)
    if word & BLOCKED:
        if readings.repeated_eblock_restamps:
            stamp(processor, secs, page)
        return inform("EBLOCK.08", SGX_BLKSTATE)  # blocked already
    if locked:
        # an ETRACK of the enclave executes (an open reading: tested last)
        return refuse("EBLOCK.09", SGX_ENTRYEPOCH_LOCKED)

    epcm.put(page, word | BLOCKED)
    stamp(processor, secs, page)
    return SUCCESS
