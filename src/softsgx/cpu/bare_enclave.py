"""An enclave that `Bare` built, and the code inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from softsgx.cpu.fault import Status
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.ring0 import Ring0
from softsgx.mem.pagetable import PTE_D
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.cet import restore_token
from softsgx.spec.epcm import REG, RWX, SS_FIRST, SS_REST, R, W
from softsgx.spec.paging import SECINFO

AEP: Final = 0x40_1000
EXIT: Final = 0x40_2000


@dataclass
class BareEnclave:
    """An enclave built by `Bare`, and the code inside it. Addresses are linear addresses.

    `tcs` lists the TCS pages, `scratch` a page for SECINFO operands, `data` the RW pages, `heap`
    the first address after them.
    """

    bare: Ring0
    secs: int
    base: int
    size: int
    tcs: list[int] = field(default_factory=list)
    data: list[int] = field(default_factory=list)
    scratch: int = 0
    heap: int = 0
    pages: dict[int, int] = field(default_factory=dict)

    def map(self, address: int, page: int, *, write: bool = True, execute: bool = True) -> None:
        """Map an EPC page at a linear address of the enclave, in the first address space."""
        processor = self.bare.processor
        self.pages[address] = page
        processor.space.map(address, processor.epc.pfn(page), write=write, execute=execute)

    def add(
        self, address: int, content: bytes = b"", flags: int = REG | R | W, *, measure: bool = False
    ) -> int:
        """EADD, EEXTEND if `measure`, and map. Returns the EPC page."""
        page = self.bare.eadd(self.secs, address, content, flags)
        if measure:
            self.bare.eextend(self.secs, page)
        self.map(address, page)
        return page

    def add_shadow_stack(self, first: int, *rest: int, measure: bool = False) -> None:
        """EADD a PT_SS_FIRST page with its token at `first`, PT_SS_REST pages at `rest`; map."""
        token = restore_token(first, True).to_bytes(8, "little")
        content = bytes(PAGE_SIZE - 8) + token
        for address in (*rest, first):
            given = (content, SS_FIRST) if address == first else (b"", SS_REST)
            self.add(address, given[0], given[1] | R | W, measure=measure)
            self.map_shadow_stack(address, self.pages[address])

    def map_shadow_stack(self, address: int, page: int) -> None:
        """Map an EPC page as a shadow-stack page: R/W = 0 and D = 1."""
        self.map(address, page, write=False, execute=False)
        space = self.bare.processor.space
        space.set(address, space.lookup(address) | PTE_D)

    def eaug(self, address: int, flags: int = 0) -> int:
        """EAUG and map. `flags` is the SECINFO of a shadow-stack page. Returns the EPC page."""
        page = self.bare.eaug(self.secs, address, flags)
        if flags:
            self.map_shadow_stack(address, page)
        else:
            self.map(address, page)
        return page

    # The code inside

    def enter(self, lp: LogicalProcessor | None = None, thread: int = 0) -> None:
        """EENTER."""
        (lp or self.bare.lp).enclu(leaves.EENTER, self.tcs[thread], AEP)

    def resume(self, lp: LogicalProcessor | None = None, thread: int = 0) -> None:
        """ERESUME."""
        (lp or self.bare.lp).enclu(leaves.ERESUME, self.tcs[thread], AEP)

    def exit(self, lp: LogicalProcessor | None = None) -> None:
        """EEXIT."""
        (lp or self.bare.lp).enclu(leaves.EEXIT, EXIT)

    def secinfo(self, flags: int, lp: LogicalProcessor | None = None) -> int:
        """Store a SECINFO in the scratch page, from inside; return its linear address."""
        (lp or self.bare.lp).store(self.scratch, SECINFO(FLAGS=flags).pack())
        return self.scratch

    def eaccept(
        self, address: int, flags: int, lp: LogicalProcessor | None = None
    ) -> Status | None:
        """EACCEPT with the given SECINFO.FLAGS."""
        lp = lp or self.bare.lp
        return lp.enclu(leaves.EACCEPT, self.secinfo(flags, lp), address)

    def eacceptcopy(
        self, address: int, source: int, flags: int, lp: LogicalProcessor | None = None
    ) -> Status | None:
        """EACCEPTCOPY with the given SECINFO.FLAGS."""
        lp = lp or self.bare.lp
        return lp.enclu(leaves.EACCEPTCOPY, self.secinfo(flags, lp), address, source)

    def emodpe(self, address: int, rights: int, lp: LogicalProcessor | None = None) -> None:
        """EMODPE with the given R, W, X."""
        lp = lp or self.bare.lp
        lp.enclu(leaves.EMODPE, self.secinfo(REG | rights & RWX, lp), address)

    def live(self) -> Sequence[LogicalProcessor]:
        """The logical processors that are inside now."""
        return [lp for lp in self.bare.processor.lps if lp.secs_page == self.secs]
