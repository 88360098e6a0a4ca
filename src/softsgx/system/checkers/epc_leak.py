"""Every EPC page is free or has an owner.

Verified: the pages on the free list and those of the enclaves of the scene (children, SECS, version
arrays) are all of EPC, and no page is both.
Not verified: that a page is still needed. In the driver in C the daemon can be interrupted between
EWB and the list; if an execution ends there, one page is on its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.system.checkers.checker import Checker

if TYPE_CHECKING:
    from softsgx.system.scene import Scene


class EpcLeak(Checker):
    """Counts pages."""

    rule = "leaked EPC page"

    def check(self, scene: Scene) -> None:
        """Raise if a page has two owners, is free and in use, or neither."""
        kernel = scene.kernel
        used: dict[int, None] = {}
        for encl in scene.enclaves:
            pages = [page.epc_page for page in encl.page_array.values()]
            pages += [encl.secs.epc_page, *[va_page.epc_page for va_page in encl.va_pages]]
            for page in pages:
                if page is not None:
                    if page.number in used:
                        raise self.violated(f"EPC page {page.number} has two owners")
                    used[page.number] = None
        free, count = kernel.driver.free_pages(kernel)
        both = [number for number in free if number in used]
        if both:
            raise self.violated(f"EPC page {both[0]} is free and in use")
        missing = scene.machine.processor.epc.pages - count - len(used)
        on_its_way = scene.machine.driver is not None and kernel.ksgxd_running
        if missing not in (0, int(on_its_way)):
            raise self.violated(f"{missing} EPC pages are neither free nor in use")
