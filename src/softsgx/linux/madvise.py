"""madvise(2), as far as it matters to SGX areas. Linux 6.12, mm/madvise.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EINVAL, ENOMEM
from softsgx.linux.mm import private_frames
from softsgx.linux.process import kernel_entry
from softsgx.linux.smp import flush_tlb_mm
from softsgx.sim import Unmodelled
from softsgx.spec.bits import PAGE_MASK

if TYPE_CHECKING:
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps

MADV_DONTNEED: Final = 4
MADV_FREE: Final = 8
MADV_POPULATE_READ: Final = 22
MADV_POPULATE_WRITE: Final = 23


@kernel_entry
def sys_madvise(current: Thread, address: int, length: int, advice: int) -> Steps[int]:
    """An SGX area, which is VM_PFNMAP, refuses to be discarded or populated: -EINVAL.

    A hole between areas is -ENOMEM, after the areas behind it were treated as well.
    """
    if advice not in (MADV_DONTNEED, MADV_FREE, MADV_POPULATE_READ, MADV_POPULATE_WRITE):
        raise Unmodelled(f"madvise with advice {advice}")
    rounded = (length + PAGE_MASK) & ~PAGE_MASK
    if address & PAGE_MASK or address + rounded >= 1 << 64:
        return -EINVAL
    mm, end, at, hole = current.mm, address + rounded, address, False
    with (yield from mm.mmap_lock.acquire_read()):
        for vma in list(mm.for_each_vma(address, end)):
            hole |= vma.start > at
            if hole and advice in (MADV_POPULATE_READ, MADV_POPULATE_WRITE):
                return -ENOMEM
            if vma.sgx:
                return -EINVAL
            if advice in (MADV_POPULATE_READ, MADV_POPULATE_WRITE):
                raise Unmodelled(f"madvise with advice {advice} of anonymous memory")
            if advice == MADV_DONTNEED:
                start, stop = max(vma.start, address), min(vma.end, end)
                yield ("pte", (mm.name, start), True)
                if zapped := mm.zap_page_range(start, stop):
                    yield from flush_tlb_mm(current, mm)
                for pfn in private_frames(vma, zapped):
                    mm.kernel.free_page(pfn)
            at = vma.end
    return -ENOMEM if hole or at < end else 0
