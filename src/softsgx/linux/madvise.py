"""madvise(2) of SGX areas. Linux 6.12, mm/madvise.c.

An SGX area is VM_SHARED, VM_PFNMAP, VM_IO, VM_DONTEXPAND and VM_DONTDUMP, and its file is a
character device: `_SGX` says what each advice does there. It changes nothing but flags.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.linux.errno import EACCES, EAGAIN, EFAULT, EINVAL, ENODEV, ENOMEM
from softsgx.linux.mm import (
    VM_DONTCOPY,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    VM_RAND_READ,
    VM_SEQ_READ,
    private_frames,
)
from softsgx.linux.process import kernel_entry
from softsgx.linux.smp import flush_tlb_mm
from softsgx.linux.trace import refused, traced
from softsgx.linux.uapi import PROT_WRITE
from softsgx.sim import Unmodelled
from softsgx.spec.bits import PAGE_MASK

if TYPE_CHECKING:
    from softsgx.linux.mm import Vma
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps

MADV_NORMAL: Final = 0
MADV_RANDOM: Final = 1
MADV_SEQUENTIAL: Final = 2
MADV_WILLNEED: Final = 3
MADV_DONTNEED: Final = 4
MADV_FREE: Final = 8
MADV_REMOVE: Final = 9
MADV_DONTFORK: Final = 10
MADV_DOFORK: Final = 11
MADV_MERGEABLE: Final = 12
MADV_UNMERGEABLE: Final = 13
MADV_HUGEPAGE: Final = 14
MADV_NOHUGEPAGE: Final = 15
MADV_DONTDUMP: Final = 16
MADV_DODUMP: Final = 17
MADV_WIPEONFORK: Final = 18
MADV_KEEPONFORK: Final = 19
MADV_COLD: Final = 20
MADV_PAGEOUT: Final = 21
MADV_POPULATE_READ: Final = 22
MADV_POPULATE_WRITE: Final = 23
MADV_DONTNEED_LOCKED: Final = 24
MADV_COLLAPSE: Final = 25
MADV_HWPOISON: Final = 100
MADV_SOFT_OFFLINE: Final = 101
# Linux 6.18, mm/madvise.c
MADV_GUARD_INSTALL: Final = 102
MADV_GUARD_REMOVE: Final = 103

_POPULATE: Final = (MADV_POPULATE_READ, MADV_POPULATE_WRITE)
_INJECT: Final = (MADV_HWPOISON, MADV_SOFT_OFFLINE)
_GUARD: Final = (MADV_GUARD_INSTALL, MADV_GUARD_REMOVE)
# These stop at the first hole; the others go on after it and return the error at the end.
PAGE_BY_PAGE: Final = _POPULATE + _INJECT
# madvise_need_mmap_write: all but these.
_READERS: Final = (
    *(MADV_REMOVE, MADV_WILLNEED, MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_COLD, MADV_PAGEOUT),
    *(MADV_FREE, MADV_COLLAPSE, *_POPULATE, *_GUARD),
)


class Advice(NamedTuple):
    """The effect of an advice on an SGX area: an errno, or flags that are set and cleared."""

    error: int = 0
    set: int = 0
    clear: int = 0


_REFUSED: Final = Advice(EINVAL)
_IGNORED: Final = Advice()

_SGX: Final = MappingProxyType(
    {
        MADV_NORMAL: Advice(clear=VM_RAND_READ | VM_SEQ_READ),
        MADV_RANDOM: Advice(set=VM_RAND_READ, clear=VM_SEQ_READ),
        MADV_SEQUENTIAL: Advice(set=VM_SEQ_READ, clear=VM_RAND_READ),
        MADV_WILLNEED: _IGNORED,  # the result of vfs_fadvise is dropped
        MADV_DONTNEED: _REFUSED,  # VM_PFNMAP
        MADV_FREE: _REFUSED,  # VM_PFNMAP
        MADV_REMOVE: Advice(ENODEV),  # vfs_fallocate: neither a regular file nor a block device
        MADV_DONTFORK: Advice(set=VM_DONTCOPY),
        MADV_DOFORK: _REFUSED,  # VM_IO
        MADV_MERGEABLE: _IGNORED,  # VM_SHARED
        MADV_UNMERGEABLE: _IGNORED,
        MADV_HUGEPAGE: Advice(set=VM_HUGEPAGE, clear=VM_NOHUGEPAGE),
        MADV_NOHUGEPAGE: Advice(set=VM_NOHUGEPAGE, clear=VM_HUGEPAGE),
        MADV_DONTDUMP: _IGNORED,  # it is VM_DONTDUMP
        MADV_DODUMP: _REFUSED,  # VM_SPECIAL
        MADV_WIPEONFORK: _REFUSED,  # it has a file
        MADV_KEEPONFORK: _IGNORED,  # it never was VM_WIPEONFORK
        MADV_COLD: _REFUSED,  # VM_PFNMAP
        MADV_PAGEOUT: _REFUSED,  # VM_PFNMAP
        MADV_POPULATE_READ: _REFUSED,  # VM_PFNMAP, in check_vma_flags
        MADV_POPULATE_WRITE: _REFUSED,
        MADV_DONTNEED_LOCKED: _REFUSED,  # VM_PFNMAP
        MADV_COLLAPSE: _REFUSED,  # VM_NO_KHUGEPAGED
        MADV_HWPOISON: Advice(EFAULT),  # VM_PFNMAP, in check_vma_flags; needs CAP_SYS_ADMIN
        MADV_SOFT_OFFLINE: Advice(EFAULT),
        MADV_GUARD_INSTALL: _REFUSED,  # VM_SPECIAL, in is_valid_guard_vma
        MADV_GUARD_REMOVE: _REFUSED,
    }
)


@kernel_entry
@traced
def sys_madvise(current: Thread, address: int, length: int, advice: int) -> Steps[int]:
    """madvise(2). A hole is -ENOMEM; all but PAGE_BY_PAGE advise the areas after it first."""
    if advice not in _SGX or (advice in _GUARD and not current.kernel.version.guard_advice):
        return refused(current, EINVAL, "do_madvise.advice", advice=advice)
    if address & PAGE_MASK:
        return refused(current, EINVAL, "do_madvise.aligned", address=address)
    rounded = (length + PAGE_MASK) & ~PAGE_MASK
    if address + rounded >= 1 << 64:
        return refused(current, EINVAL, "do_madvise.end", address=address, length=length)
    if not rounded:
        return 0
    mm, end, at, hole = current.mm, address + rounded, address, False
    lock = mm.mmap_lock
    with (yield from lock.acquire_read() if advice in _READERS else lock.acquire_write()):
        for vma in list(mm.for_each_vma(address, end)):
            hole |= vma.start > at
            if hole and advice in PAGE_BY_PAGE:
                break
            at = min(vma.end, end)
            start = max(vma.start, address)
            if vma.sgx:
                ret = _advise_sgx(current, vma, start, at, advice)
            else:
                ret = yield from _advise_anonymous(current, vma, start, at, advice)
            if ret:
                return ret
    if not hole and at == end:
        return 0
    errno = EFAULT if advice in _INJECT else ENOMEM
    return refused(current, errno, "do_madvise.hole", address=address, length=rounded)


def _advise_sgx(current: Thread, vma: Vma, start: int, end: int, advice: int) -> int:
    """madvise_vma_behavior; mmap_lock held. An area is split where its flags change."""
    found = _SGX[advice]
    mm = current.mm
    if advice == MADV_REMOVE and not vma.may & PROT_WRITE:
        return refused(current, EACCES, "madvise_remove.write", address=start)
    if found.error:
        return refused(current, found.error, "madvise_vma_behavior.advice", advice=advice)
    advised = vma.advised & ~found.clear | found.set
    if advised == vma.advised:
        return 0
    for address in (start, end):
        if vma.start < address < vma.end:
            if mm.split_vma(vma, address):
                limit = mm.max_map_count
                return refused(current, EAGAIN, "split_vma.map_count", limit=limit)
            vma = mm.vma_lookup(start) or vma
    vma.advised = advised
    return 0


def _advise_anonymous(current: Thread, vma: Vma, start: int, end: int, advice: int) -> Steps[int]:
    if advice not in (MADV_DONTNEED, MADV_FREE):
        raise Unmodelled(f"madvise with advice {advice} of anonymous memory")
    mm = current.mm
    if advice == MADV_DONTNEED:
        yield ("pte", (mm.name, start), True)
        if zapped := mm.zap_page_range(start, end):
            yield from flush_tlb_mm(current, mm)
        for pfn in private_frames(vma, zapped):
            mm.kernel.free_page(pfn)
    return 0
