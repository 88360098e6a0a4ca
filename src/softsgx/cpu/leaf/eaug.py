"""EAUG, ENCLS leaf 0DH: add a zeroed page to an initialised enclave. SDM 3D, EAUG."""

from softsgx.cpu import cet
from softsgx.cpu.fault import ENCLS_PFEC, GP, PF
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.operands import system_secinfo
from softsgx.spec.concurrency import BUSY_SECS, BUSY_TARGET
from softsgx.spec.epcm import (
    PENDING,
    PT_MASK,
    REG,
    RWX,
    SECS,
    SS_FIRST,
    VALID,
    R,
    W,
    shadow_stack_type,
)
from softsgx.spec.paging import PAGEINFO


def eaug(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> None:
    """Make the free EPC page at RCX a PENDING PT_REG page of the enclave, R and W, all zero.

    With a SECINFO, on a CET part: a shadow-stack page; PT_SS_FIRST ends with its RSTORSSP token.
    The enclave must accept it. No RAX, no flags, no measurement.
    """
    if rbx & 31:
        raise GP("EAUG.01")  # RBX (PAGEINFO) not 32-byte aligned
    if rcx & 4095:
        raise GP("EAUG.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EAUG.03", ENCLS_PFEC)  # RCX is not in the EPC
    linaddr, srcpge, secinfo, secs_address = PAGEINFO.S.unpack(lp.system_read(rbx, 32))
    if secinfo & 63:
        raise GP("EAUG.04")  # PAGEINFO.SECINFO not 64-byte aligned
    if secs_address & 4095:
        raise GP("EAUG.05")  # PAGEINFO.SECS not 4 KiB aligned
    if linaddr & 4095:
        raise GP("EAUG.06")  # PAGEINFO.LINADDR not 4 KiB aligned
    if srcpge:
        raise GP("EAUG.07")  # PAGEINFO.SRCPGE not zero
    secs_page = lp.system_epc_page(secs_address, write=True)
    if secs_page < 0:
        raise PF(secs_address, "EAUG.08", ENCLS_PFEC)  # PAGEINFO.SECS is not in the EPC
    if lp.busy & BUSY_TARGET:
        raise GP("EAUG.09")  # another leaf uses the page
    processor = lp.processor
    epcm = processor.epcm
    if epcm.state[page] & VALID:
        raise PF(rcx, "EAUG.10", ENCLS_PFEC)  # EPCM: VALID = 1
    flags = REG | R | W
    if secinfo:
        flags = system_secinfo(lp, secinfo, "EAUG.11")  # SECINFO reserved not zero
        if not (shadow_stack_type(flags) and processor.part.cet):
            raise GP("EAUG.12")  # SECINFO given, yet only shadow-stack pages may have one
        cet.check_eaug_secinfo(lp, flags)
    if lp.busy & BUSY_SECS:
        raise GP("EAUG.13")  # another leaf uses the SECS
    if epcm.state[secs_page] & (VALID | PT_MASK) != VALID | SECS:
        raise PF(secs_address, "EAUG.14", ENCLS_PFEC)  # PAGEINFO.SECS is no valid SECS page
    secs = processor.secs[secs_page]
    if not secs.initialised:
        raise GP("EAUG.15")  # the enclave is not initialised
    if not secs.BASEADDR <= linaddr < secs.elrange_end:
        raise GP("EAUG.16")  # PAGEINFO.LINADDR outside ELRANGE
    if secinfo:
        cet.check_eaug_place(secs, linaddr)

    if flags & PT_MASK == SS_FIRST:
        content = cet.augmented_content(secs, linaddr)
        processor.memory.write_page(processor.epc.pfn(page), content)
    else:
        processor.memory.clear_page(processor.epc.pfn(page))
    epcm.install(page, VALID | PENDING | flags & (PT_MASK | RWX), secs_page, linaddr)
    secs.children += 1
