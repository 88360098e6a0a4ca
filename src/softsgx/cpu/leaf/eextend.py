"""EEXTEND, ENCLS leaf 06H: measure 256 bytes of a page. SDM 3D, EEXTEND."""

from softsgx.cpu import measurement
from softsgx.cpu.fault import ENCLS_PFEC, GP, PF
from softsgx.cpu.lp import LogicalProcessor
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.concurrency import BUSY_SECS_B, BUSY_TARGET
from softsgx.spec.epcm import PT_MASK, REG, SS_FIRST, SS_REST, TCS, VALID


def eextend(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> None:
    """Hash the 256-byte chunk at RCX into MRENCLAVE of the enclave whose SECS is at RBX."""
    if rbx & 4095:
        raise GP("EEXTEND.01")  # RBX (SECS) not 4 KiB aligned
    secs_page = lp.system_epc_page(rbx, write=True)
    if secs_page < 0:
        raise PF(rbx, "EEXTEND.02", ENCLS_PFEC)  # RBX is not in the EPC
    if rcx & 255:
        raise GP("EEXTEND.03")  # RCX not 256-byte aligned
    page = lp.system_epc_page(rcx)
    if page < 0:
        raise PF(rcx, "EEXTEND.04", ENCLS_PFEC)  # RCX is not in the EPC
    if lp.busy & BUSY_TARGET:
        raise GP("EEXTEND.05")  # another leaf uses the page
    processor = lp.processor
    epcm = processor.epcm
    word = epcm.state[page]
    if not word & VALID:
        raise PF(rcx, "EEXTEND.06", ENCLS_PFEC)  # EPCM: VALID = 0
    if word & PT_MASK not in (REG, TCS, SS_FIRST, SS_REST):
        raise PF(rcx, "EEXTEND.07", ENCLS_PFEC)  # EPCM: not PT_REG, PT_TCS or a PT_SS type
    if epcm.secs[page] != secs_page:
        raise GP("EEXTEND.08")  # RBX is not the SECS of the page
    if lp.busy & BUSY_SECS_B:
        raise GP("EEXTEND.09")  # the enclave is being measured or initialised by another leaf
    secs = processor.secs[secs_page]
    if secs.initialised:
        raise GP("EEXTEND.10")  # the enclave is initialised

    offset = rcx & 4095
    chunk = processor.memory.read(processor.epc.pfn(page) << PAGE_SHIFT | offset, 256)
    measurement.extend(secs, epcm.address[page] - secs.BASEADDR + offset, chunk)
