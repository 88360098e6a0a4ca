"""After a successful trusted protect no wider right can be used.

Verified: for every page that a scenario has declared protected (`Scene.protected`), the EPCM has no
right beyond those that the enclave relies on, and no logical processor inside holds a TLB entry
with more; at the end, and whenever the scenario asks.
Not verified: other pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.mem.tlb import CLEAN, FETCH, READ, WRITE
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import RWX, rwx_text
from softsgx.system.checkers.checker import Checker

if TYPE_CHECKING:
    from softsgx.system.scene import Scene


class WiderRight(Checker):
    """EPCM and TLBs of protected pages."""

    rule = "wider right"

    def check(self, scene: Scene) -> None:
        """Raise for the first right beyond those promised."""
        processor = scene.machine.processor
        for address, rights in scene.protected.items():
            allowed = rwx_text(rights)
            for lp in processor.lps:
                entry = lp.tlb.entries.get(address >> PAGE_SHIFT, 0)
                held = entry & (READ | WRITE | FETCH) | (WRITE if entry & CLEAN else 0)
                if lp.secs is not None and held & ~rights:
                    text = f"cpu {lp.id} still translates {address:#x} with {rwx_text(held)}"
                    raise self.violated(f"{text}, the enclave was promised {allowed}")
            word = scene.epcm_word(address)
            if word is not None and word & RWX & ~rights:
                has = rwx_text(word & RWX)
                raise self.violated(f"EPCM of {address:#x} has {has}, not {allowed}")
