"""Backing store of evicted pages: an unlinked shmem file per enclave. Linux 6.12, sgx/encl.c.

The file holds page contents by page index, then the SECS, then PCMDs, 32 to a page. A page that is
punched out of the file while a reference is held lives on as an orphan: what is written there is
lost with it. Races K9 and K10 come from that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EINVAL, ENOMEM
from softsgx.linux.trace import refused
from softsgx.mem.pagetable import direct
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.paging import PCMD

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.process import Thread

PCMDS_PER_PAGE: Final = 32
_NO_PCMD: Final = bytes(PCMD.SIZE)


class ShmemPage:
    """One page of the file: a frame of RAM, references, whether the file still contains it."""

    __slots__ = ("in_file", "pfn", "refs")

    def __init__(self, pfn: int) -> None:
        self.pfn = pfn
        self.refs = 0
        self.in_file = True


class SgxBacking:
    """struct sgx_backing: the pages for one enclave page, referenced until `put`."""

    __slots__ = ("contents", "kernel", "pcmd", "pcmd_offset")

    def __init__(self, kernel: Kernel, contents: ShmemPage, pcmd: ShmemPage, offset: int) -> None:
        self.kernel = kernel
        self.contents = contents
        self.pcmd = pcmd
        self.pcmd_offset = offset
        contents.refs += 1
        pcmd.refs += 1

    @property
    def contents_address(self) -> int:
        """Kernel address of the page of the file that holds the contents."""
        return direct(self.contents.pfn << PAGE_SHIFT)

    @property
    def pcmd_physical(self) -> int:
        """Physical address of the page's PCMD."""
        return (self.pcmd.pfn << PAGE_SHIFT) + self.pcmd_offset

    def clear_pcmd(self) -> bool:
        """Zero the PCMD; return whether the whole PCMD page is zero now."""
        memory = self.kernel.processor.memory
        memory.write(self.pcmd_physical, _NO_PCMD)
        return memory.is_zero(self.pcmd.pfn)

    def put(self) -> None:
        """Drop the references; an orphan goes with its last one."""
        for page in (self.contents, self.pcmd):
            page.refs -= 1
            if not page.refs and not page.in_file:
                self.kernel.free_page(page.pfn)


def shmem_file_setup(current: Thread, size: int) -> int:
    """Make the file: 0, -EINVAL if its size does not fit a signed 64-bit offset, or -ENOMEM."""
    if size >= 1 << 63:
        return refused(current, EINVAL, "shmem_file_setup.size", size=size)
    if current.kernel.fail("shmem_file_setup"):
        return refused(current, ENOMEM, "kmalloc.memory")
    return 0


class Shmem:
    """The file. A page of it is allocated when it is first looked up."""

    __slots__ = ("contents", "kernel", "pcmds")

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.contents: dict[int, ShmemPage] = {}
        self.pcmds: dict[int, ShmemPage] = {}

    def get(self, index: int) -> SgxBacking | None:
        """The backing of page `index`, with references; None if memory is short."""
        if self.kernel.fail("sgx_encl_get_backing"):
            return None
        contents = self.contents.get(index) or self._new_page(self.contents, index)
        number = index // PCMDS_PER_PAGE
        pcmd = self.pcmds.get(number) or self._new_page(self.pcmds, number)
        return SgxBacking(self.kernel, contents, pcmd, index % PCMDS_PER_PAGE * PCMD.SIZE)

    def truncate_contents(self, index: int) -> None:
        """Punch the contents of page `index` out of the file."""
        self._punch(self.contents, index)

    def truncate_pcmd(self, index: int) -> None:
        """Punch the PCMD page that serves page `index` out of the file."""
        self._punch(self.pcmds, index // PCMDS_PER_PAGE)

    def close(self) -> None:
        """The file goes away with all its pages."""
        for table in (self.contents, self.pcmds):
            for key in list(table):
                self._punch(table, key)

    def _new_page(self, table: dict[int, ShmemPage], key: int) -> ShmemPage:
        page = table[key] = ShmemPage(self.kernel.alloc_page())
        return page

    def _punch(self, table: dict[int, ShmemPage], key: int) -> None:
        page = table.pop(key, None)
        if page is not None:
            page.in_file = False
            if not page.refs:
                self.kernel.free_page(page.pfn)
