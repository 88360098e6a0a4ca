"""Address spaces: VMAs and the calls that change them. Linux 6.12, mm/mmap.c, mprotect.c, mremap.c.

Only what an SGX process can see is here: areas are anonymous memory or mappings of
/dev/sgx_enclave. SGX areas are VM_PFNMAP and VM_IO, hence never merged; each mprotect or partial
munmap may split.

Locking: `mmap_lock` protects the VMAs and the insertion of PTEs; the functions say what is held.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EINVAL, ENOMEM
from softsgx.linux.uapi import PROT_EXEC, PROT_READ, PROT_WRITE
from softsgx.mem.pagetable import (
    PTE_A,
    PTE_D,
    PTE_NX,
    PTE_P,
    PTE_PFN_MASK,
    PTE_U,
    PTE_W,
    AddressSpace,
)
from softsgx.sim.locks import RwLock
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.process import Thread
    from softsgx.linux.sgx.encl import SgxEncl
    from softsgx.linux.uaccess import UserMemory
    from softsgx.linux.vfs import File
    from softsgx.sim import Steps

TASK_SIZE: Final = (1 << 47) - PAGE_SIZE
MMAP_BASE: Final = 0x7FFF_F000_0000
DEFAULT_MMAP_MIN_ADDR: Final = 0x1_0000
DEFAULT_MAX_MAP_COUNT: Final = 65530

# VM_READ, VM_WRITE, VM_EXEC have the values of PROT_*, and of SECINFO's R, W, X.
VM_READ: Final = PROT_READ
VM_WRITE: Final = PROT_WRITE
VM_EXEC: Final = PROT_EXEC
VM_RWX: Final = VM_READ | VM_WRITE | VM_EXEC
# Flags that madvise sets in an area.
VM_SEQ_READ: Final = 0x8000
VM_RAND_READ: Final = 0x1_0000
VM_DONTCOPY: Final = 0x2_0000
VM_HUGEPAGE: Final = 0x2000_0000
VM_NOHUGEPAGE: Final = 0x4000_0000


class SharedMemory:
    """The shmem file behind a MAP_SHARED anonymous area: frames by page, and areas that map it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.areas = 0
        self.frames: dict[int, int] = {}

    def page(self, number: int) -> int:
        """The frame of a page, allocated on first touch; its pfn."""
        if number not in self.frames:
            self.frames[number] = self.kernel.alloc_page()
        return self.frames[number]

    def put(self) -> None:
        """Drop the reference of an area that was unmapped; the last one frees the frames."""
        self.areas -= 1
        if not self.areas:
            for pfn in self.frames.values():
                self.kernel.free_page(pfn)
            self.frames.clear()


class Vma:
    """struct vm_area_struct: [start, end), rights, and for an SGX area its file and enclave.

    `may` are the VM_MAY* bits: what mprotect can ever grant. `encl` is vm_private_data: None in an
    SGX area whose registration failed at fork. `offset` in the file is only shown in `maps`.
    `shared` is the memory of an anonymous MAP_SHARED area, `pgoff` the area's first page in it.
    `advised` are the flags that madvise set.
    """

    __slots__ = (
        *("advised", "encl", "end", "file", "flags", "may", "offset", "pgoff", "shared", "start"),
    )

    def __init__(
        self,
        start: int,
        end: int,
        flags: int,
        *,
        may: int = VM_RWX,
        file: File | None = None,
        encl: SgxEncl | None = None,
        offset: int = 0,
        shared: SharedMemory | None = None,
        pgoff: int = 0,
        advised: int = 0,
    ) -> None:
        self.start = start
        self.end = end
        self.flags = flags
        self.may = may
        self.file = file
        self.encl = encl
        self.offset = offset
        self.shared = shared
        self.pgoff = pgoff
        self.advised = advised

    def dup(self, start: int, end: int, by: int = 0) -> Vma:
        """vm_area_dup: a copy of the part [start, end) of this area, moved up by `by` bytes."""
        skipped = start - self.start
        return Vma(
            start + by,
            end + by,
            self.flags,
            may=self.may,
            file=self.file,
            encl=self.encl,
            offset=self.offset + skipped if self.sgx else 0,
            shared=self.shared,
            pgoff=self.pgoff + (skipped >> PAGE_SHIFT),
            advised=self.advised,
        )

    @property
    def sgx(self) -> bool:
        """Whether this is a mapping of /dev/sgx_enclave."""
        return self.file is not None

    def __repr__(self) -> str:
        rights = "".join(c if self.flags & b else "-" for c, b in (("r", 1), ("w", 2), ("x", 4)))
        what = " /dev/sgx_enclave" if self.sgx else ""
        return f"<{self.start:x}-{self.end:x} {rights}{what}>"


class Mm:
    """struct mm_struct: VMAs in order, page tables, mmap_lock, and the CPUs that have it loaded."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.name = name
        recursive = kernel.races.direct_reclaim_in_fault
        self.mmap_lock = RwLock(f"mmap_lock({name})", recursive=recursive)
        self.space = AddressSpace(name, kernel.processor.log)
        # Protected by mmap_lock:
        self.vmas: list[Vma] = []
        self._starts: list[int] = []
        self.max_map_count = DEFAULT_MAX_MAP_COUNT
        self.mmap_min_addr = DEFAULT_MMAP_MIN_ADDR
        # Processors on which a thread of this mm runs: logical processor number -> users.
        self.cpumask: dict[int, int] = {}
        self.read_implies_exec = False
        self.exited = False
        # The memory of a real process, outside the model; `vmas` then has only its SGX areas.
        self.user: UserMemory | None = None
        # MMU notifiers, called once, by the thread that runs exit_mmap.
        self.notifiers: list[Callable[[Thread], Steps[None]]] = []

    # Looking up

    def find_vma(self, address: int) -> Vma | None:
        """The first area that ends above `address`."""
        at = bisect_right(self._starts, address)
        if at and self.vmas[at - 1].end > address:
            return self.vmas[at - 1]
        return self.vmas[at] if at < len(self.vmas) else None

    def vma_lookup(self, address: int) -> Vma | None:
        """The area that contains `address`."""
        at = bisect_right(self._starts, address)
        if at and self.vmas[at - 1].end > address:
            return self.vmas[at - 1]
        return None

    def for_each_vma(self, start: int, end: int) -> Iterator[Vma]:
        """Areas that overlap [start, end), in order; the list may be changed while iterating."""
        at = bisect_right(self._starts, start)
        if at and self.vmas[at - 1].end > start:
            at -= 1
        for vma in self.vmas[at:]:
            if vma.start >= end:
                return
            yield vma

    def get_unmapped_area(self, address: int, length: int) -> int:
        """A free range: at `address` if that is free, else the highest gap below MMAP_BASE."""
        if length > TASK_SIZE:
            return -ENOMEM
        hint = address & ~PAGE_MASK
        if (
            hint >= self.mmap_min_addr
            and hint + length <= TASK_SIZE
            and next(self.for_each_vma(hint, hint + length), None) is None
        ):
            return hint
        top = MMAP_BASE
        for vma in reversed(self.vmas):
            if vma.start >= top:
                continue
            if top - max(vma.end, self.mmap_min_addr) >= length:
                break
            top = vma.start
        low = top - length
        return low if low >= self.mmap_min_addr else -ENOMEM

    def maps(self) -> str:
        """The text of /proc/<pid>/maps for the areas that the model has, one a line.

        Anonymous areas are listed as they were mapped; the kernel would merge equal neighbours.
        """
        return "".join(f"{_maps_line(vma)}\n" for vma in self.vmas)

    # Changing; mmap_lock held for writing

    def insert(self, vma: Vma) -> None:
        """Add an area; its range must be free."""
        at = bisect_right(self._starts, vma.start)
        assert at == 0 or self.vmas[at - 1].end <= vma.start, "VMAs overlap"
        assert at == len(self.vmas) or vma.end <= self.vmas[at].start, "VMAs overlap"
        self.vmas.insert(at, vma)
        self._starts.insert(at, vma.start)
        if vma.file is not None:
            vma.file.get()
        if vma.shared is not None:
            vma.shared.areas += 1

    def remove(self, vma: Vma) -> None:
        """Take an area out; the caller drops the area's reference to the file afterwards."""
        at = self._starts.index(vma.start)
        del self.vmas[at], self._starts[at]

    def split_vma(self, vma: Vma, address: int) -> int:
        """Cut an area in two at `address`; the upper half is a new area. 0, or -ENOMEM."""
        if len(self.vmas) >= self.max_map_count:
            return -ENOMEM
        return self.__split_vma(vma, address)

    def __split_vma(self, vma: Vma, address: int) -> int:
        """split_vma without the limit on the number of areas."""
        if self.kernel.fail("split_vma"):
            return -ENOMEM
        upper = vma.dup(address, vma.end)
        vma.end = address
        # The open hook of an SGX area runs here; the mm is registered already.
        self.insert(upper)
        return 0

    def isolate(self, start: int, end: int) -> int | list[Vma]:
        """For munmap: split areas at `start` and `end`; the areas in between, or -ENOMEM.

        The limit on areas applies only if a hole is cut in the middle of one area.
        """
        first = self.vma_lookup(start)
        if first is not None and first.start < start:
            if end < first.end and len(self.vmas) >= self.max_map_count:
                return -ENOMEM
            error = self.__split_vma(first, start)
            if error:
                return error
        last = self.vma_lookup(end - 1)
        if last is not None and last.end > end:
            error = self.__split_vma(last, end)
            if error:
                return error
        return list(self.for_each_vma(start, end))

    def pages_mapped(self, start: int, end: int) -> list[int]:
        """The numbers of the pages of [start, end) that have a PTE; the range may be huge."""
        ptes = self.space.ptes
        first, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
        if last - first > len(ptes):
            return sorted(page for page in ptes if first <= page < last)
        return [page for page in range(first, last) if page in ptes]

    def zap_page_range(self, start: int, end: int) -> list[int]:
        """Remove the PTEs of [start, end) and return them; the caller flushes if there are any."""
        return [self.space.unmap(page << PAGE_SHIFT) for page in self.pages_mapped(start, end)]

    def change_protection(self, vma: Vma, start: int, end: int) -> bool:
        """Rewrite the PTEs that exist in [start, end) to the rights of the area.

        Returns whether TLBs need a flush, that is, whether a PTE that was present has changed. (The
        kernel's function flushes by itself, and returns the number of PTEs.)
        """
        space, flush = self.space, False
        # vma_wants_writenotify: pfn_mkwrite is called at the first write to a clean page.
        notify = vma.sgx and self.kernel.version.interface.has_pfn_mkwrite
        for page in self.pages_mapped(start, end):
            pte = space.ptes[page]
            changed = pte & ~_PTE_RIGHTS | vm_pte_bits(vma.flags)
            if notify and not pte & PTE_D:
                changed &= ~PTE_W
            flush |= bool(pte & PTE_P and pte != changed)
            space.set(page << PAGE_SHIFT, changed)
        return flush

    def insert_pfn(self, address: int, pfn: int, flags: int) -> int:
        """vmf_insert_pfn: map `pfn` with R, W, X of `flags`. Keeps a present PTE. 0 or -ENOMEM."""
        if self.kernel.fail("vmf_insert_pfn"):
            return -ENOMEM
        if not self.space.lookup(address) & PTE_P:
            # Fresh entries are born accessed.
            self.space.set(address, pfn << PAGE_SHIFT | vm_pte_bits(flags) | _PTE_ACCESSED)
        return 0


_PTE_RIGHTS: Final = PTE_P | PTE_W | PTE_U | PTE_NX
_PTE_ACCESSED: Final = PTE_A


_MAPS_NAME_COLUMN: Final = 73
_DEVTMPFS: Final = "00:05"


def _maps_line(vma: Vma) -> str:
    """show_map_vma: range, rights, offset, device and inode of the file, its name."""
    rights = "".join(c if vma.flags & 1 << n else "-" for n, c in enumerate("rwx"))
    line = f"{vma.start:08x}-{vma.end:08x} {rights}"
    if vma.file is None:
        return f"{line}p 00000000 00:00 0 "
    line = f"{line}s {vma.offset:08x} {_DEVTMPFS} {vma.file.inode} "
    return f"{line:{_MAPS_NAME_COLUMN}}{vma.file.path}"


def private_frames(vma: Vma, zapped: list[int]) -> list[int]:
    """The frames of zapped PTEs, if the area is private anonymous memory, to be freed."""
    if vma.sgx or vma.shared is not None:
        return []
    return [(pte & PTE_PFN_MASK) >> PAGE_SHIFT for pte in zapped]


def anonymous_page(mm: Mm, vma: Vma, address: int) -> int:
    """The pfn of a page of an anonymous area; the frame is allocated on first touch."""
    pte = mm.space.lookup(address)
    if pte & PTE_P:
        return (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    held = pte & PTE_PFN_MASK
    if held:
        pfn = held >> PAGE_SHIFT
    elif vma.shared is not None:
        pfn = vma.shared.page(vma.pgoff + (address - vma.start >> PAGE_SHIFT))
    else:
        pfn = mm.kernel.alloc_page()
    mm.space.set(address, pfn << PAGE_SHIFT | vm_pte_bits(vma.flags))
    return pfn


def vm_pte_bits(flags: int) -> int:
    """vm_get_page_prot: x86 PTE bits for the rights of an area; PROT_NONE is not present."""
    if not flags & VM_RWX:
        return 0
    bits = PTE_P | PTE_U
    if flags & VM_WRITE:
        bits |= PTE_W
    if not flags & VM_EXEC:
        bits |= PTE_NX
    return bits


def page_aligned_range(address: int, length: int) -> int | tuple[int, int]:
    """[start, end) of a system call's address and length, rounded up; or -ENOMEM, -EINVAL."""
    rounded = (length + PAGE_MASK) & ~PAGE_MASK
    if address + rounded > TASK_SIZE:
        return -ENOMEM
    if address & PAGE_MASK or not length:
        return -EINVAL
    return address, address + rounded
