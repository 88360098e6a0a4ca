"""Copying between the kernel and user memory. Linux 6.12, lib/usercopy.c, mm/gup.c.

A missing page is faulted in as any user access would; a bad address ends in -EFAULT. Enclave memory
reads as ones and swallows writes: the copy is an access from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.linux.errno import EFAULT
from softsgx.linux.mm import VM_READ, vm_pte_bits
from softsgx.mem.pagetable import PTE_P, PTE_PFN_MASK, PTE_U, PTE_W
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.linux.mm import Mm
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps


def copy_from_user(current: Thread, address: int, size: int) -> Steps[bytes | None]:
    """`size` bytes at a user address; None stands for -EFAULT."""
    kernel, out = current.kernel, b""
    while size:
        pfn = yield from _user_pfn(current, address, write=False)
        if pfn < 0:
            return None
        offset = address & PAGE_MASK
        length = min(size, PAGE_SIZE - offset)
        if kernel.processor.epc.index(pfn) >= 0:
            out += b"\xff" * length
        else:
            out += kernel.processor.memory.read(pfn << PAGE_SHIFT | offset, length)
        address += length
        size -= length
    return out


def copy_to_user(current: Thread, address: int, data: bytes) -> Steps[bool]:
    """Write `data` to a user address; False stands for -EFAULT (some of it may be written)."""
    kernel = current.kernel
    while data:
        pfn = yield from _user_pfn(current, address, write=True)
        if pfn < 0:
            return False
        offset = address & PAGE_MASK
        length = min(len(data), PAGE_SIZE - offset)
        if kernel.processor.epc.index(pfn) < 0:
            kernel.processor.memory.write(pfn << PAGE_SHIFT | offset, data[:length])
        address += length
        data = data[length:]
    return True


def get_user_page(current: Thread, address: int) -> int:
    """get_user_pages for reading, mmap_lock held: the pfn, or -EFAULT, also for enclave memory."""
    return get_user_page_remote(current.mm, address)


def get_user_page_remote(mm: Mm, address: int) -> int:
    """get_user_page in any address space.

    Anonymous memory that was never touched is the shared zero page; it need not be mapped for that.
    """
    vma = mm.vma_lookup(address)
    if vma is None or vma.sgx or not vma.flags & VM_READ:
        return -EFAULT
    pte = mm.space.lookup(address)
    return (pte & PTE_PFN_MASK) >> PAGE_SHIFT if pte else mm.kernel.zero_page


def anonymous_page(mm: Mm, address: int, flags: int) -> int:
    """The frame of a page of anonymous memory, allocated on first touch; its pfn."""
    pte = mm.space.lookup(address)
    if pte & PTE_P:
        return (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    held = pte & PTE_PFN_MASK
    pfn = held >> PAGE_SHIFT if held else mm.kernel.alloc_page()
    mm.space.set(address, pfn << PAGE_SHIFT | vm_pte_bits(flags))
    return pfn


def free_anonymous(mm: Mm, start: int, end: int) -> None:
    """Give back the frames of [start, end), which is anonymous; the caller drops the PTEs."""
    first, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
    ptes = mm.space.ptes
    if last - first > len(ptes):
        pages = [p for p in ptes if first <= p < last]
    else:
        pages = [p for p in range(first, last) if p in ptes]
    for page in pages:
        mm.kernel.free_page((ptes[page] & PTE_PFN_MASK) >> PAGE_SHIFT)


def _user_pfn(current: Thread, address: int, *, write: bool) -> Steps[int]:
    """The frame behind a user address, faulted in if need be; -EFAULT."""
    if not 0 <= address < 1 << 47:
        return -EFAULT
    pte = current.mm.space.lookup(address)
    if pte & PTE_P and pte & PTE_U and (not write or pte & PTE_W):
        return (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    from softsgx.linux.fault import fault_in_user

    return (yield from fault_in_user(current, address, write))
