"""How a program becomes an enclave: where its heap, stacks, TCS and SSA pages go.

`ThreadLayout`, from low to high offsets, `|` where the next part begins:

    ELF image | heap | guard, stack, TCS, SSA frames, thread data | guard, stack, TCS, ... | ...

* ELF image: the PT_LOAD segments, page by page, with their rights; bytes between segments, and
  .bss, are zero; everything is measured. A page may belong to two segments if they have the same
  rights. An ET_DYN is placed as linked, address 0 at BASEADDR, and runs anywhere: its code must
  relocate itself, as in a static-pie process. With `relocate_to` the R_X86_64_RELATIVE relocations
  are applied here, and measured, and the enclave must be loaded at that address. An ET_EXEC must be
  loaded where it is linked.
* heap: RW, from the first page after the image (the linker's `_end`, rounded up).
* guard: a hole, no page is added there.
* stack: RW zeros, measured. It ends where the TCS begins, so that its top is RBX after EENTER.
* TCS: OENTRY is e_entry, OSSA the page after the TCS, OFSBASGX and OGSBASGX the thread data (0 if
  there is none), FSLIMIT and GSLIMIT FFFFFFFFH, FLAGS 0 or AEXNOTIFY.
* SSA frames: NSSA times SSAFRAMESIZE pages RW, zero, measured.
* thread data: RW zeros, measured; FS and GS point to it.

Pages are added and measured in that order. SIZE is the smallest power of two that holds all.

`SelftestLayout` is that of the kernel's own SGX selftest: the first PT_LOAD, RW, holds the TCS
pages ready-made; the other segments follow as they are; then the heap. Linux 6.12,
tools/testing/selftests/sgx/load.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

from softsgx.image import elf
from softsgx.image.elf import Elf, Load
from softsgx.image.entering import attributes_for
from softsgx.image.errors import ImageError
from softsgx.image.image import ALL_CHUNKS, NO_CHUNKS, EnclaveImage, Segment
from softsgx.image.rules import ENCLAVE_SIZE_MIN, size_for
from softsgx.spec.bits import MASK32, PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import REG, TCS, R, W, X, rwx_text
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.spec.tcs import TCS_AEXNOTIFY

PAGES_MAX: Final = 1 << 24  # 64 GiB, more than the EPC of any processor
_LIMITS: Final = {
    "threads": (1, 4096),
    "nssa": (1, 4096),
    "ssaframesize": (1, 4096),
    "stack_pages": (1, PAGES_MAX),
    "heap_pages": (0, PAGES_MAX),
    "guard_pages": (0, PAGES_MAX),
    "thread_data_pages": (0, PAGES_MAX),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadLayout:
    """The layout of softsgx. Counts are pages, frames for `nssa`; stack and data per thread.

    `aexnotify` sets AEXNOTIFY in TCS.FLAGS of every thread, and so in ATTRIBUTES; DBGOPTIN cannot
    be chosen, EADD clears it. `relocate_to` is the BASEADDR for which relocations are applied.
    Raises ImageError.
    """

    threads: int = 1
    nssa: int = 2
    ssaframesize: int = 1
    stack_pages: int = 16
    heap_pages: int = 16
    guard_pages: int = 1
    thread_data_pages: int = 1
    measure_heap: bool = False
    aexnotify: bool = False
    relocate_to: int | None = None

    def __post_init__(self) -> None:
        _check_limits(self)

    def image(self, data: bytes) -> EnclaveImage:
        """The enclave made of an ELF file. Raises ImageError."""
        program = elf.read(data)
        if program.tcs_section:
            why = "the program brings its own TCS pages: use the selftest layout"
            raise ImageError("section .tcs", why)
        if not any(_enters(load, program.e_entry) for load in program.loads):
            program.header.refuse("e_entry", f"{program.e_entry:#x} is in no executable PT_LOAD")
        heap = _page_up(program.loads[-1].end)
        first_thread = heap + self.heap_pages * PAGE_SIZE
        end = first_thread + self.threads * self._thread_size()
        base, size = self._elrange(program, end)
        if self.relocate_to is not None:
            program = elf.relocate(program, self.relocate_to)
        linked = base if program.e_type == "ET_EXEC" else 0
        image = _Pages(linked)
        for run in _page_runs(program.loads):
            image.add(run.start, run.end, REG | run.rights, run.content, label=run.label)
        image.add_heap(heap, first_thread, self.measure_heap)
        for number in range(self.threads):
            start = first_thread + number * self._thread_size()
            self._add_thread(image, number, start, program.e_entry - linked)
        return EnclaveImage(
            size=size,
            segments=tuple(image.segments),
            ssaframesize=self.ssaframesize,
            attributes=attributes_for(image.segments),
            baseaddr=self.relocate_to if program.e_type == "ET_DYN" else base,
        )

    def _thread_size(self) -> int:
        ssa = self.nssa * self.ssaframesize
        return (self.guard_pages + self.stack_pages + 1 + ssa + self.thread_data_pages) * PAGE_SIZE

    def _elrange(self, program: Elf, end: int) -> tuple[int, int]:
        """BASEADDR in the address space of the link, and SIZE."""
        _check_pages(end - program.loads[0].p_vaddr)
        if program.e_type == "ET_EXEC":
            size = ENCLAVE_SIZE_MIN
            if self.relocate_to is not None:
                raise ImageError(
                    "relocate_to", "the program is ET_EXEC: it runs where it is linked"
                )
            while end > (base := program.loads[0].p_vaddr & -size) + size:
                size *= 2
            return base, size
        return 0, size_for(end)

    def _add_thread(self, image: _Pages, number: int, start: int, entry: int) -> None:
        name = f"thread {number}"
        stack = start + self.guard_pages * PAGE_SIZE
        tcs = stack + self.stack_pages * PAGE_SIZE
        ssa = tcs + PAGE_SIZE
        data = ssa + self.nssa * self.ssaframesize * PAGE_SIZE
        end = data + self.thread_data_pages * PAGE_SIZE
        segment = image.offset(data) if end > data else 0
        block = TCS_PAGE(
            FLAGS=TCS_AEXNOTIFY if self.aexnotify else 0,
            OSSA=image.offset(ssa),
            NSSA=self.nssa,
            OENTRY=entry,
            OFSBASGX=segment,
            OGSBASGX=segment,
            FSLIMIT=MASK32,
            GSLIMIT=MASK32,
        )
        image.add(stack, tcs, REG | R | W, label=f"{name} stack")
        image.add(tcs, ssa, TCS, block.pack(), label=f"{name} TCS")
        image.add(ssa, data, REG | R | W, label=f"{name} SSA")
        if end > data:
            image.add(data, end, REG | R | W, label=f"{name} data")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelftestLayout:
    """The layout of the kernel's SGX selftest: the program brings TCS, SSA and stack pages.

    The first PT_LOAD is at offset 0. `heap_pages` are RW and come last. Raises ImageError.
    """

    heap_pages: int = 1
    measure_heap: bool = False
    ssaframesize: int = 1

    def __post_init__(self) -> None:
        _check_limits(self)

    def image(self, data: bytes) -> EnclaveImage:
        """The enclave made of an ELF file. Raises ImageError."""
        program = elf.read(data)
        first = program.loads[0]
        if first.rights != R | W:
            why = f"{rwx_text(first.rights)}, but the selftest layout begins with TCS pages, rw-"
            first.header.refuse("p_flags", why)
        image = _Pages(first.p_vaddr & ~PAGE_MASK)
        for run in _page_runs(program.loads):
            tcs = run.start == image.base
            flags = TCS if tcs else REG | run.rights
            image.add(run.start, run.end, flags, run.content, label=run.label)
        heap = _page_up(program.loads[-1].end)
        end = heap + self.heap_pages * PAGE_SIZE
        _check_pages(end - image.base)
        image.add_heap(heap, end, self.measure_heap)
        return EnclaveImage(
            size=size_for(image.offset(end)),
            segments=tuple(image.segments),
            ssaframesize=self.ssaframesize,
            attributes=attributes_for(image.segments),
        )


Layout = ThreadLayout | SelftestLayout


class _Pages:
    """Segments being collected; addresses are those of the link."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.segments: list[Segment] = []

    def offset(self, address: int) -> int:
        return address - self.base

    def add(
        self,
        start: int,
        end: int,
        flags: int,
        content: bytes = b"",
        *,
        measure: bool = True,
        label: str,
    ) -> None:
        chunks = ALL_CHUNKS if measure else NO_CHUNKS
        self.segments.append(
            Segment(self.offset(start), end - start, flags, content, chunks, label)
        )

    def add_heap(self, start: int, end: int, measure: bool) -> None:
        if end > start:
            self.add(start, end, REG | R | W, measure=measure, label="heap")


class _Run(NamedTuple):
    """Whole pages of one or more PT_LOADs with the same rights."""

    start: int
    end: int
    rights: int
    content: bytes
    label: str


def _page_runs(loads: tuple[Load, ...]) -> Iterator[_Run]:
    """Segments widened to pages; two that share a page become one, or are refused."""
    runs: list[_Run] = []
    for load in loads:
        start = load.p_vaddr & ~PAGE_MASK
        end = _page_up(load.end)
        content = bytes(load.p_vaddr - start) + load.content
        last = runs[-1] if runs else None
        if last is not None and start < last.end:
            if last.rights != load.rights:
                rights = f"{rwx_text(load.rights)}, but {last.label} is {rwx_text(last.rights)}"
                why = f"{rights} in the same page {start:#x}: link with -z max-page-size=4096"
                load.header.refuse("p_flags", why)
            before = last.content.ljust(load.p_vaddr - last.start, b"\0")
            runs[-1] = _Run(
                last.start, end, last.rights, before + load.content, f"{last.label}, {load.number}"
            )
        else:
            runs.append(_Run(start, end, load.rights, content, str(load)))
    yield from runs


def _enters(load: Load, entry: int) -> bool:
    return bool(load.rights & X) and load.p_vaddr <= entry < load.end


def _page_up(address: int) -> int:
    return (address + PAGE_MASK) & ~PAGE_MASK


def _check_limits(layout: ThreadLayout | SelftestLayout) -> None:
    for part in fields(layout):
        if part.name in _LIMITS:
            low, high = _LIMITS[part.name]
            value = getattr(layout, part.name)
            if not low <= value <= high:
                raise ImageError(part.name, f"{value} is not from {low} to {high}")


def _check_pages(size: int) -> None:
    if size > PAGES_MAX * PAGE_SIZE:
        raise ImageError("layout", f"{size // PAGE_SIZE} pages: {PAGES_MAX} are the limit")
