"""EDBGRD, ENCLS leaf 04H: read 8 bytes of a debug enclave. SDM 3D, EDBGRD."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.spec.attributes import ATTR_DEBUG
from softsgx.spec.bits import MASK64, PAGE_SHIFT
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PT_MASK,
    REG,
    SS_FIRST,
    SS_REST,
    TCS,
    VA,
    VALID,
    shadow_stack_type,
)
from softsgx.spec.registers import RBX
from softsgx.spec.status import SGX_PAGE_NOT_DEBUGGABLE
from softsgx.spec.tcs import TCS_CET_SIZE


def edbgrd(lp: LogicalProcessor, _rbx: int, rcx: int, _rdx: int) -> Status:
    """RBX := the 8 bytes at RCX, whatever R, W, X and BLOCKED are.

    For a slot of a VA page RBX is all ones if the slot is used, else 0.
    """
    if rcx & 7:
        raise GP("EDBGRD.01")  # RCX not 8-byte aligned
    page = lp.system_epc_page(rcx)
    if page < 0:
        raise PF(rcx, "EDBGRD.02", ENCLS_PFEC)  # RCX is not in the EPC
    if lp.busy & BUSY_TARGET:
        raise GP("EDBGRD.03")  # another leaf uses the page
    processor = lp.processor
    word = processor.epcm.state[page]
    if not word & VALID:
        raise PF(rcx, "EDBGRD.04", ENCLS_PFEC)  # EPCM: VALID = 0
    pt = word & PT_MASK
    if pt not in (REG, TCS, VA, SS_FIRST, SS_REST):
        # EPCM: not PT_REG, PT_TCS, PT_VA or a PT_SS type
        raise PF(rcx, "EDBGRD.05", ENCLS_PFEC)
    if word & (PENDING | MODIFIED):
        return refuse("EDBGRD.06", SGX_PAGE_NOT_DEBUGGABLE)  # EPCM: PENDING or MODIFIED is 1
    offset = rcx & 4095
    limit = processor.readings.tcs_limit + (TCS_CET_SIZE if processor.part.cet else 0)
    if pt == TCS and offset >= limit:
        raise GP("EDBGRD.07")  # TCS: offset not below SGX_TCS_LIMIT
    as_slot = pt == VA or (shadow_stack_type(word) and processor.readings.edbgrd_shadow_stack_as_va)
    if not as_slot and not processor.parent(page).ATTRIBUTES & ATTR_DEBUG:
        raise GP("EDBGRD.08")  # not a debug enclave

    physical = processor.epc.pfn(page) << PAGE_SHIFT | offset
    value = int.from_bytes(processor.memory.read(physical, 8), "little")
    if as_slot:
        value = MASK64 if value >> 3 else 0
    lp.regs[RBX] = value
    return SUCCESS
