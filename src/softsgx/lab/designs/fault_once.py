"""Design `fault-once`: mprotect() unmaps and marks, the next fault restricts. 11 March 2022.

The handler runs EMODPR with R, ETRACK and IPIs under encl.lock, then maps the page and drops the
mark. It cannot know which rights the enclave wants, so it always leaves R.
"""

from softsgx.lab.designs.base import TO_READ, MprotectDesign
from softsgx.linux.errno import EIO
from softsgx.linux.mm import Mm
from softsgx.linux.process import Thread
from softsgx.linux.sgx.edmm import sgx_emodpr, sgx_enclave_etrack
from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import PT_REG, R


class FaultOnce(MprotectDesign):
    """mprotect(prot): VMA := prot, PTEs removed, pages marked; EPCM := EPCM and R at the fault."""

    name = "fault-once"
    about = "mprotect() unmaps and marks; the next fault runs EMODPR(R), ETRACK, IPIs"
    asks = TO_READ
    forgets = True

    def __init__(self) -> None:
        # Protected by mmap_lock: pages to restrict, by enclave and page number.
        self.marked: dict[tuple[SgxEncl, int], None] = {}

    def change_ptes(self, mm: Mm, encl: SgxEncl, start: int, end: int) -> bool:
        """Remove the PTEs of this address space, mark the pages that exist."""
        for page in range(start >> PAGE_SHIFT, end >> PAGE_SHIFT):
            if page in encl.page_array:
                self.marked[encl, page] = None
        return bool(mm.zap_page_range(start, end))

    def before_pte(self, current: Thread, encl: SgxEncl, entry: SgxEnclPage) -> Steps[int]:
        """EMODPR(R) and tracking of a marked page; a failure can only be reported by SIGBUS."""
        key = encl, entry.address >> PAGE_SHIFT
        if key not in self.marked or entry.type != PT_REG:
            return 0
        if (yield from sgx_emodpr(current, entry, R)):
            return -EIO
        if (yield from sgx_enclave_etrack(current, encl)):
            return -EIO
        if self.forgets:
            self.marked.pop(key, None)
        return 0
