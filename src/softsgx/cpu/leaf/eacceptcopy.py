"""EACCEPTCOPY, ENCLU leaf 07H: accept a PENDING page and fill it. SDM 3D, EACCEPTCOPY."""

from softsgx.cpu.fault import GP, SUCCESS, Status, refuse
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import (
    enclave_page,
    enclave_secinfo,
    epc_read,
    in_elrange,
    usable_page,
)
from softsgx.spec.concurrency import BUSY_TARGET_M
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PT_MASK, REG, RWX, VALID, R, W
from softsgx.spec.status import SGX_PAGE_ATTRIBUTES_MISMATCH


def eacceptcopy(lp: LogicalProcessor, rbx: int, rcx: int, rdx: int) -> Status:
    """Copy the page at RDX to the PENDING page at RCX, with the rights of the SECINFO at RBX."""
    if rbx & 63:
        raise GP("EACCEPTCOPY.01")  # RBX (SECINFO) not 64-byte aligned
    if rcx & 4095 or rdx & 4095:
        raise GP("EACCEPTCOPY.02")  # RCX or RDX not 4 KiB aligned
    if not (in_elrange(lp, rbx) and in_elrange(lp, rcx) and in_elrange(lp, rdx)):
        raise GP("EACCEPTCOPY.03")  # RBX, RCX or RDX outside ELRANGE
    info = enclave_page(lp, rbx, False, "EACCEPTCOPY.04")  # RBX is not in the EPC
    page = enclave_page(lp, rcx, True, "EACCEPTCOPY.05")  # RCX is not in the EPC
    source = enclave_page(lp, rdx, False, "EACCEPTCOPY.06")  # RDX is not in the EPC
    usable_page(lp, info, rbx, "EACCEPTCOPY.07")  # SECINFO not in a readable PT_REG page
    flags = enclave_secinfo(
        lp,
        info,
        rbx,
        "EACCEPTCOPY.08",  # SECINFO reserved field not zero
        lp.processor.secinfo_reserved,
    )
    if flags & (R | W) == W:
        raise GP("EACCEPTCOPY.09")  # SECINFO asks for W without R
    if flags & PT_MASK != REG:
        raise GP("EACCEPTCOPY.10")  # SECINFO.PT is not PT_REG
    usable_page(lp, source, rdx, "EACCEPTCOPY.11")  # source not a readable PT_REG page
    epcm = lp.processor.epcm
    word = epcm.state[page]
    blocked = BLOCKED if lp.processor.readings.eacceptcopy_tests_blocked else 0
    if word & (VALID | PENDING | MODIFIED | blocked) != VALID | PENDING:
        # EPCM of the destination: not VALID, not PENDING, MODIFIED or BLOCKED
        return refuse("EACCEPTCOPY.12", SGX_PAGE_ATTRIBUTES_MISMATCH)
    if word & PT_MASK != REG:
        return refuse("EACCEPTCOPY.13", SGX_PAGE_ATTRIBUTES_MISMATCH)  # destination not PT_REG
    if epcm.secs[page] != lp.secs_page:
        # EPCM of the destination: ENCLAVESECS is another enclave
        return refuse("EACCEPTCOPY.14", SGX_PAGE_ATTRIBUTES_MISMATCH)
    if lp.busy & BUSY_TARGET_M:
        raise GP("EACCEPTCOPY.15")  # another SGX2 leaf uses the destination
    if word & RWX != R | W:
        # EPCM of the destination: not exactly R and W
        return refuse("EACCEPTCOPY.16", SGX_PAGE_ATTRIBUTES_MISMATCH)
    if epcm.address[page] != rcx:
        # EPCM of the destination: ENCLAVEADDRESS is not RCX
        return refuse("EACCEPTCOPY.17", SGX_PAGE_ATTRIBUTES_MISMATCH)

    processor = lp.processor
    processor.memory.write_page(processor.epc.pfn(page), epc_read(lp, source, rdx, 4096))
    epcm.put(page, VALID | REG | flags & RWX | word & BLOCKED)
    return SUCCESS
