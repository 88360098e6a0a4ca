"""What the kernel has unmapped for an operation stays unmapped until the operation is done.

Verified: at the moment when EMODT makes a page PT_TCS, no address space has a PTE for it; the
driver zaps it just before, because an ordinary mapping of a TCS is useless.
Not verified: other operations. REMOVE_PAGES zaps too; a mapping that it leaves is stale, which
`stale_mapping` finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from softsgx.events.cpu import EpcmChanged
from softsgx.mem.pagetable import PTE_P
from softsgx.sim import Event
from softsgx.spec.epcm import PT_MASK, TCS
from softsgx.system.checkers.checker import Checker

if TYPE_CHECKING:
    from softsgx.system.scene import Scene


class Zapped(Checker):
    """Listens to EMODT."""

    rule = "mapped while its type changes"

    def __init__(self) -> None:
        self._unsubscribe: Callable[[], None] | None = None
        self._found = ""

    def start(self, scene: Scene) -> None:
        """Listen."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._found = ""

        def look(event: Event) -> None:
            if isinstance(event, EpcmChanged) and event.leaf == "EMODT":
                if event.after & PT_MASK == TCS:
                    self._look(scene, event.linear)

        self._unsubscribe = scene.machine.processor.log.subscribe(look)

    def check(self, scene: Scene) -> None:
        """Raise what was found."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._found:
            raise self.violated(self._found)

    def _look(self, scene: Scene, address: int) -> None:
        for encl_mm in scene.encl.mm_list:
            if encl_mm.mm.space.lookup(address) & PTE_P:
                self._found = f"{address:#x} has a PTE in {encl_mm.mm.name} while EMODT runs"
