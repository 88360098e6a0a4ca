"""Page tables lead where the kernel thinks they lead.

Verified: every present PTE into EPC, in every address space that maps the enclave, leads to the
resident page of the enclave at that address, and its EPCM entry is VALID with that address.
Not verified: rights, which VMA and EPCM each restrict; TLBs, which `wider_right` verifies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.mem.pagetable import PTE_P, PTE_PFN_MASK
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import VALID
from softsgx.system.checkers.checker import Checker

if TYPE_CHECKING:
    from softsgx.system.scene import Scene


class StaleMapping(Checker):
    """No PTE to a page that is gone or was moved."""

    rule = "stale mapping"

    def check(self, scene: Scene) -> None:
        """Raise the first stale PTE."""
        processor = scene.machine.processor
        epc, epcm = processor.epc, processor.epcm
        for encl_mm in scene.encl.mm_list:
            for page, pte in sorted(encl_mm.mm.space.ptes.items()):
                number = epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
                if not pte & PTE_P or number < 0:
                    continue
                address = page << PAGE_SHIFT
                entry = scene.encl.page(address)
                held = entry.epc_page if entry is not None else None
                if held is None or held.number != number:
                    has = "no page" if held is None else f"EPC page {held.number}"
                    raise self.violated(
                        f"PTE of {address:#x} leads to EPC page {number}, not {has}"
                    )
                if not epcm.state[number] & VALID or epcm.address[number] != address:
                    raise self.violated(f"PTE of {address:#x}: EPC page {number} is another's")
