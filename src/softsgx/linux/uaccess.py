"""Copying between the kernel and user memory. Linux 6.12, lib/usercopy.c, mm/gup.c.

A missing page is faulted in as any user access would; a bad address ends in -EFAULT. Enclave memory
reads as ones and swallows writes: the copy is an access from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from softsgx.linux.errno import EACCES, EFAULT
from softsgx.linux.fault import fault_in_user
from softsgx.linux.mm import VM_EXEC, VM_READ, anonymous_page
from softsgx.linux.trace import refused
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_P, PTE_PFN_MASK, PTE_U, PTE_W
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.linux.mm import Mm
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps


class UserMemory(Protocol):
    """Memory of a real process, without its enclave areas, which the model has."""

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes, None if they cannot all be read."""

    def write(self, address: int, data: bytes) -> bool:
        """Write; return whether all of it could be written."""

    def source_page(self, address: int) -> int:
        """The pfn of a frame that holds a copy of the page, for ADD_PAGES; or a negated errno."""


def copy_from_user(current: Thread, address: int, size: int) -> Steps[bytes | None]:
    """The `size` bytes at a user address; None stands for -EFAULT."""
    out = yield from _copy_from_user(current, address, size)
    if out is None:
        refused(current, EFAULT, "copy_from_user.address", address=address, size=size)
    return out


def _copy_from_user(current: Thread, address: int, size: int) -> Steps[bytes | None]:
    kernel, out = current.kernel, b""
    user = current.mm.user
    if user is not None and not _touches_enclave(current, address, size):
        return user.read(address, size)
    while size:
        offset = address & PAGE_MASK
        length = min(size, PAGE_SIZE - offset)
        if user is not None and not _touches_enclave(current, address, 1):
            part = user.read(address, length)  # half in enclave memory, half outside
            if part is None:
                return None
            out += part
            address += length
            size -= length
            continue
        pfn = yield from _user_pfn(current, address, write=False)
        if pfn < 0:
            return None
        if kernel.processor.epc.index(pfn) >= 0:
            out += b"\xff" * length
        else:
            out += kernel.processor.memory.read(pfn << PAGE_SHIFT | offset, length)
        address += length
        size -= length
    return out


def copy_to_user(current: Thread, address: int, data: bytes) -> Steps[int]:
    """Write `data` to a user address: 0, or -EFAULT, when part of it may have been written."""
    if (yield from _copy_to_user(current, address, data)):
        return 0
    return refused(current, EFAULT, "copy_to_user.address", address=address, size=len(data))


def _copy_to_user(current: Thread, address: int, data: bytes) -> Steps[bool]:
    kernel = current.kernel
    user = current.mm.user
    if user is not None and not _touches_enclave(current, address, len(data)):
        return user.write(address, data)
    while data:
        offset = address & PAGE_MASK
        length = min(len(data), PAGE_SIZE - offset)
        if user is not None and not _touches_enclave(current, address, 1):
            if not user.write(address, data[:length]):
                return False
            address += length
            data = data[length:]
            continue
        pfn = yield from _user_pfn(current, address, write=True)
        if pfn < 0:
            return False
        if kernel.processor.epc.index(pfn) < 0:
            kernel.processor.memory.write(pfn << PAGE_SHIFT | offset, data[:length])
        address += length
        data = data[length:]
    return True


def _touches_enclave(current: Thread, address: int, size: int) -> bool:
    areas = current.mm.for_each_vma(address, address + max(size, 1))
    return any(vma.sgx for vma in areas)


def pin_source_page(current: Thread, address: int) -> int:
    """The source page of ADD_PAGES, mmap_lock held: its pfn, -EFAULT, or -EACCES from noexec.

    As in the driver, the area tested is the first that ends above the address.
    """
    pfn = _source_page(current.mm, address)
    if pfn == -EACCES:
        return refused(current, EACCES, "__sgx_encl_add_page.noexec", src=address)
    return refused(current, -pfn, "get_user_pages.address", src=address) if pfn < 0 else pfn


def _source_page(mm: Mm, address: int) -> int:
    vma = mm.find_vma(address)
    if mm.user is not None:
        inside = vma is not None and vma.start <= address
        return -EFAULT if inside else mm.user.source_page(address)
    if vma is None:
        return -EFAULT
    if not vma.may & VM_EXEC:
        return -EACCES
    return get_user_page_remote(mm, address)


def get_user_page_remote(mm: Mm, address: int) -> int:
    """get_user_pages_remote of one page for reading, mmap_lock held: its pfn, or -EFAULT.

    Enclave memory cannot be pinned (VM_PFNMAP). Anonymous memory that was never touched reads from
    the shared zero page, without a PTE.
    """
    vma = mm.vma_lookup(address)
    if vma is None or vma.sgx or not vma.flags & VM_READ:
        return -EFAULT
    if vma.shared is not None:
        return anonymous_page(mm, vma, address)
    pte = mm.space.lookup(address)
    return (pte & PTE_PFN_MASK) >> PAGE_SHIFT if pte else mm.kernel.zero_page


def _user_pfn(current: Thread, address: int, *, write: bool) -> Steps[int]:
    """The pfn that a user address maps to, faulted in if need be; or -EFAULT."""
    if not 0 <= address < 1 << 47:
        return -EFAULT
    pte = current.mm.space.lookup(address)
    if not pte & PTE_P or not pte & PTE_U or (write and not pte & PTE_W):
        pfn = yield from fault_in_user(current, address, write)
        if pfn < 0:
            return pfn
    # The copy is an access like any other: the walk sets A, and D.
    pte = current.mm.space.lookup(address)
    used = pte | PTE_A | (PTE_D if write else 0)
    if used != pte:
        current.mm.space.set(address, used)
    return (pte & PTE_PFN_MASK) >> PAGE_SHIFT
