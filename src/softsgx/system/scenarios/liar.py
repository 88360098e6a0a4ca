"""The host functions of a liar that controls the kernel: each call has a menu, 0 is the truth.

The menus have only what a kernel can do, as EPC belongs to the processor. For example, a page that
was evicted cannot be brought back in an older version: its slot in the version array has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from softsgx.linux.errno import EFAULT
from softsgx.linux.sgx import edmm
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx import main as m
from softsgx.linux.sgx.encls import encls
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import PT_SHIFT, PT_TCS, PT_TRIM, W
from softsgx.spec.paging import SECINFO
from softsgx.spec.translation import PTE_PFN_MASK
from softsgx.system.host import HostThread
from softsgx.system.runtimes.untrusted import Answer, Untrusted
from softsgx.system.scene import Scene

MENUS: Final = {
    "RESTRICT_PERMISSIONS": (
        "the truth",
        "nothing is done",
        "W stays",
        "count too high",
        "count negative",
        "an error",
        "EMODPR without ETRACK",
        "a fresh page in its place",
        "another frame at the address",
    ),
    "MODIFY_TYPES": (
        "the truth",
        "nothing is done",
        "the other type",
        "count too high",
        "an error",
        "EMODT without ETRACK",
    ),
    "REMOVE_PAGES": ("the truth", "nothing is done", "an error"),
    "mprotect": ("the truth", "nothing is done"),
}


class Liar(Untrusted):
    """Draws a lie for every call."""

    def __init__(self, honest: Untrusted, scene: Scene) -> None:
        super().__init__(honest.enclave)
        self.scene = scene
        self.draw: Callable[[int, str], int] = lambda n, what: 0

    def _lie(self, what: str) -> str:
        menu = MENUS[what]
        return menu[self.draw(len(menu), what)]

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        """RESTRICT_PERMISSIONS, or not."""
        lie = self._lie("RESTRICT_PERMISSIONS")
        if lie == "nothing is done":
            return Answer(0, 0, length)
        if lie == "an error":
            return Answer(-EFAULT, 0, 0)
        if lie == "EMODPR without ETRACK":
            yield from self._leaf(host, address, rights)
            return Answer(0, 0, length)
        asked = rights | W if lie == "W stays" else rights
        answer = yield from super().restrict(host, address, length, asked)
        if lie == "a fresh page in its place":
            yield from self._fresh(host, address)
        elif lie == "another frame at the address":
            self._other_frame(host, address)
        return _counted(lie, answer, length)

    def modify_types(
        self, host: HostThread, address: int, length: int, page_type: int
    ) -> Steps[Answer]:
        """MODIFY_TYPES, or not."""
        lie = self._lie("MODIFY_TYPES")
        if lie == "nothing is done":
            return Answer(0, 0, length)
        if lie == "an error":
            return Answer(-EFAULT, 0, 0)
        if lie == "EMODT without ETRACK":
            yield from self._leaf(host, address, 0, page_type)
            return Answer(0, 0, length)
        if lie == "the other type":
            page_type = PT_TRIM if page_type == PT_TCS else PT_TCS
        answer = yield from super().modify_types(host, address, length, page_type)
        return _counted(lie, answer, length)

    def remove(self, host: HostThread, address: int, length: int) -> Steps[Answer]:
        """REMOVE_PAGES, or not."""
        lie = self._lie("REMOVE_PAGES")
        if lie == "nothing is done":
            return Answer(0, 0, length)
        if lie == "an error":
            return Answer(-EFAULT, 0, 0)
        return (yield from super().remove(host, address, length))

    def mprotect(self, host: HostThread, address: int, length: int, rights: int) -> Steps[int]:
        """mprotect(2), or not."""
        if self._lie("mprotect") == "nothing is done":
            return 0
        return (yield from super().mprotect(host, address, length, rights))

    # What a kernel can do apart from its ioctls

    def _leaf(
        self, host: HostThread, address: int, rights: int, page_type: int | None = None
    ) -> Steps[None]:
        """EMODPR or EMODT alone."""
        entry = self.scene.encl.page(address)
        if entry is None or entry.epc_page is None:
            return
        current = host.thread
        if page_type is None:
            yield from edmm.sgx_emodpr(current, entry, rights)
        else:
            block = current.kernel.get_operands()
            secinfo = SECINFO(FLAGS=page_type << PT_SHIFT).pack()
            current.kernel.processor.memory.write(block.physical, secinfo)
            yield from encls(current, leaves.EMODT, block.address, entry.epc_page.address)
            current.kernel.put_operands(block)

    def _fresh(self, host: HostThread, address: int) -> Steps[None]:
        """EREMOVE, if no thread is inside; the next touch of the address adds a new page."""
        if (yield from self._take(host, address)):
            yield from e.sgx_zap_enclave_ptes(host.thread, self.scene.encl, address)

    def _take(self, host: HostThread, address: int) -> Steps[bool]:
        """Whether the page could be taken from the enclave; its PTEs are left."""
        encl, current = self.scene.encl, host.thread
        entry = encl.page(address)
        if entry is None or entry.epc_page is None:
            return False
        ret = yield from encls(current, leaves.EREMOVE, 0, entry.epc_page.address)
        if ret or m.sgx_unmark_page_reclaimable(current.kernel, entry.epc_page):
            return False
        m.sgx_free_epc_page(current.kernel, entry.epc_page)
        encl.secs_child_cnt -= 1
        del encl.page_array[address >> PAGE_SHIFT]
        return True

    def _other_frame(self, host: HostThread, address: int) -> None:
        """The PTE leads to the enclave's data page; no TLB is flushed."""
        other = self.scene.encl.page(self.scene.enclave.data[0])
        space = host.thread.mm.space
        pte = space.lookup(address)
        if pte and other is not None and other.epc_page is not None:
            pfn = self.scene.kernel.processor.epc.pfn(other.epc_page.number)
            space.set(address, pte & ~PTE_PFN_MASK | pfn << PAGE_SHIFT)


def _counted(lie: str, answer: Answer, length: int) -> Answer:
    if lie == "count too high":
        return answer._replace(done=2 * length)
    if lie == "count negative":
        return answer._replace(done=-length)
    return answer
