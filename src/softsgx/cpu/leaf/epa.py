"""EPA, ENCLS leaf 0AH: make a version array page. SDM 3D, EPA."""

from softsgx.cpu.fault import ENCLS_PFEC, GP, PF
from softsgx.cpu.lp import LogicalProcessor
from softsgx.spec.concurrency import BUSY_TARGET
from softsgx.spec.epcm import PT_VA, VA, VALID


def epa(lp: LogicalProcessor, rbx: int, rcx: int, _rdx: int) -> None:
    """Turn the free EPC page at RCX into 512 empty version slots."""
    if rbx != PT_VA:
        raise GP("EPA.01")  # RBX is not PT_VA
    if rcx & 4095:
        raise GP("EPA.02")  # RCX not 4 KiB aligned
    page = lp.system_epc_page(rcx, write=True)
    if page < 0:
        raise PF(rcx, "EPA.03", ENCLS_PFEC)  # RCX is not in the EPC
    if lp.busy & BUSY_TARGET:
        raise GP("EPA.04")  # another leaf uses the page
    processor = lp.processor
    if processor.epcm.state[page] & VALID:
        raise PF(rcx, "EPA.05", ENCLS_PFEC)  # EPCM: VALID = 1

    processor.memory.clear_page(processor.epc.pfn(page))
    processor.epcm.install(page, VALID | VA, 0, 0)
