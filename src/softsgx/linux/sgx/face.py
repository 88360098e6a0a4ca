"""What the rest of the kernel calls an SGX driver for. There are two: the one of this folder, in
Python, and the kernel's own, in C (`softsgx.cdriver`). Linux 6.12, struct vm_operations_struct.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.mm import Mm, Vma
    from softsgx.linux.process import Thread
    from softsgx.linux.sgx.encl import SgxEncl
    from softsgx.linux.vfs import File
    from softsgx.sim import Steps


class SgxDriver(Protocol):
    """The driver of a kernel. The file operations of its nodes are those of the files it opens."""

    def open(self, current: Thread, path: str, flags: int) -> Steps[File | int]:
        """An open description of a device node, or an errno; `path` is one of its nodes."""

    def fault(self, current: Thread, vma: Vma, address: int) -> Steps[str]:
        """The fault handler of an SGX area, mmap_lock held for reading: a VM_FAULT_*."""

    def pfn_mkwrite(self, current: Thread, vma: Vma, address: int) -> Steps[str]:
        """A write to a page that is mapped read-only in a writable area."""

    def vma_open(self, current: Thread, vma: Vma, mm: Mm) -> Steps[None]:
        """An area was copied to `mm` by fork; without an enclave if that cannot be registered."""

    def mprotect(self, current: Thread, vma: Vma, start: int, end: int, prot: int) -> Steps[int]:
        """Whether [start, end) of an area may have these rights: 0, or an errno."""

    def access(
        self, current: Thread, vma: Vma, address: int, buf: memoryview, write: bool
    ) -> Steps[int]:
        """A debugger moves `buf` to or from enclave memory: bytes moved, or an errno."""

    def ksgxd(self, current: Thread) -> Steps[None]:
        """The reclaim daemon, which does not end."""

    def reclaim(self, current: Thread) -> Steps[None]:
        """One pass of the reclaimer, whether or not EPC is short: for scenarios."""

    def free_pages(self, kernel: Kernel) -> tuple[list[int], int]:
        """The numbers of the EPC pages on the list of free pages that have been used, and how many
        pages are free in all."""

    def offer(self, kernel: Kernel, encl: SgxEncl, address: int) -> None:
        """Leave only one page, which must be resident, on the reclaimer's list: for scenarios."""
