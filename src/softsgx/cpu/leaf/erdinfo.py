"""ERDINFO, ENCLS leaf 10H: type and state of an EPC page. SDM 3D, ERDINFO."""

from softsgx.cpu.fault import GP, SUCCESS, Status, inform, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.epcm import BLOCKED, PT_MASK, SAVED, SECS, VALID
from softsgx.spec.paging import RDINFO
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PG_INVLD, SGX_PG_NONEPC

_RDINFO_USED = 24


def erdinfo(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> Status:
    """Write RDINFO of the EPC page at RCX to the buffer at RBX."""
    if rbx & 31:
        raise GP("ERDINFO.01")  # RBX (RDINFO) not 32-byte aligned
    if rcx & 4095:
        raise GP("ERDINFO.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx)
    if page < 0:
        return inform("ERDINFO.03", SGX_PG_NONEPC)  # RCX is not in the EPC
    if lp.busy & BUSY_TARGET:
        return refuse("ERDINFO.04", SGX_EPC_PAGE_CONFLICT)  # another leaf uses the page
    processor = lp.processor
    word = processor.epcm.state[page]
    if not word & VALID:
        return inform("ERDINFO.05", SGX_PG_INVLD)  # EPCM: VALID = 0

    readings = processor.readings
    blocked = 1 << readings.rdinfo_blocked_bit if word & BLOCKED else 0
    status = context = 0
    secs = processor.secs_of(page)
    if secs is not None:
        context = secs.ENCLAVECONTEXT
        if word & PT_MASK == SECS:
            status |= 1 << readings.rdinfo_childpresent_bit if secs.children else 0
            status |= 1 << readings.rdinfo_virtchildpresent_bit if secs.VIRTCHILDCNT else 0
    info = RDINFO(STATUS=status, FLAGS=word & SAVED | blocked, ENCLAVECONTEXT=context)
    lp.system_write(rbx, info.pack()[:_RDINFO_USED])
    return SUCCESS
