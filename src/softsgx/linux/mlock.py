"""The mlock(2) family and msync(2), over SGX areas. Linux 6.12, mm/mlock.c, mm/msync.c.

An SGX area is VM_SPECIAL: it is never locked, counted or populated, and that is not an error.
RLIMIT_MEMLOCK is not tested, as for a process with CAP_IPC_LOCK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EINVAL, ENOMEM
from softsgx.linux.process import kernel_entry
from softsgx.linux.trace import refused, traced
from softsgx.sim import Unmodelled
from softsgx.spec.bits import MASK64, PAGE_MASK

if TYPE_CHECKING:
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps

MLOCK_ONFAULT: Final = 1
MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4
MS_ASYNC: Final = 1
MS_INVALIDATE: Final = 2
MS_SYNC: Final = 4


@kernel_entry
@traced
def sys_mlock(current: Thread, address: int, length: int) -> Steps[int]:
    """mlock(2)."""
    return (yield from _apply_vma_lock_flags(current, address, length))


@kernel_entry
@traced
def sys_mlock2(current: Thread, address: int, length: int, flags: int) -> Steps[int]:
    """mlock2(2)."""
    if flags & ~MLOCK_ONFAULT:
        return refused(current, EINVAL, "sys_mlock2.flags", flags=flags)
    return (yield from _apply_vma_lock_flags(current, address, length))


@kernel_entry
@traced
def sys_munlock(current: Thread, address: int, length: int) -> Steps[int]:
    """munlock(2)."""
    return (yield from _apply_vma_lock_flags(current, address, length))


@kernel_entry
@traced
def sys_mlockall(current: Thread, flags: int) -> Steps[int]:
    """mlockall(2): errors of single areas are dropped."""
    known = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT
    if not flags or flags & ~known or flags == MCL_ONFAULT:
        return refused(current, EINVAL, "sys_mlockall.flags", flags=flags)
    return 0
    yield


@kernel_entry
@traced
def sys_munlockall(current: Thread) -> Steps[int]:
    """munlockall(2)."""
    return 0
    yield


def lock_range(address: int, length: int) -> tuple[int, int] | None:
    """[start, end) of these calls, in whole pages; None if it wraps around."""
    start = address & ~PAGE_MASK
    rounded = (length + address - start + PAGE_MASK) & ~PAGE_MASK & MASK64
    return (start, start + rounded) if start + rounded <= MASK64 else None


def _apply_vma_lock_flags(current: Thread, address: int, length: int) -> Steps[int]:
    """apply_vma_lock_flags, up to the first hole."""
    found = lock_range(address, length)
    if found is None:
        return refused(current, EINVAL, "do_mlock.end", address=address, length=length)
    at, end = found
    with (yield from current.mm.mmap_lock.acquire_write()):
        for vma in current.mm.for_each_vma(at, end):
            if vma.start > at:
                return refused(current, ENOMEM, "apply_vma_lock_flags.hole", address=at)
            if not vma.sgx:
                raise Unmodelled("mlock of anonymous memory")
            at = min(vma.end, end)
    if at >= end:
        return 0
    return refused(current, ENOMEM, "apply_vma_lock_flags.hole", address=at)


@kernel_entry
@traced
def sys_msync(current: Thread, address: int, length: int, flags: int) -> Steps[int]:
    """msync(2): the device has no fsync, so MS_SYNC of an SGX area is -EINVAL."""
    if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or (flags & MS_ASYNC and flags & MS_SYNC):
        return refused(current, EINVAL, "sys_msync.flags", flags=flags)
    if address & PAGE_MASK:
        return refused(current, EINVAL, "sys_msync.aligned", address=address)
    end = address + ((length + PAGE_MASK) & ~PAGE_MASK & MASK64)
    if end > MASK64:
        return refused(current, ENOMEM, "sys_msync.hole", address=address)
    at, hole = address, False
    with (yield from current.mm.mmap_lock.acquire_read()):
        for vma in current.mm.for_each_vma(address, end):
            hole |= vma.start > at
            if hole and flags == MS_ASYNC:
                return refused(current, ENOMEM, "sys_msync.hole", address=at)
            if flags & MS_SYNC and vma.sgx:
                return refused(current, EINVAL, "vfs_fsync_range.none", address=vma.start)
            at = min(vma.end, end)
    return refused(current, ENOMEM, "sys_msync.hole", address=at) if hole or at < end else 0
