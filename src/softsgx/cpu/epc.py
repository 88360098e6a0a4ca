"""EPC sections: which physical pages are enclave page cache.

SDM 3D, 37.5 "Enclave Page Cache"; CPUID leaf 12H.

EPC pages are numbered 0, 1, 2.. through all sections in order; that number indexes the EPCM.
"""

from __future__ import annotations

from collections.abc import Sequence

from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE

DEFAULT_EPC_BASE = 1 << 40
EPC_BYTES_MAX = (1 << 46) - DEFAULT_EPC_BASE
"""From there to the end of what the kernel can map."""


def _section(section: object) -> tuple[int, int]:
    match section:
        case (int() as base, int() as pages):
            return base, pages
    raise TypeError(f"EPC section {section!r}: (physical base, pages) is needed")


class Epc:
    """The sections of a processor, as (physical base, pages) pairs in ascending order."""

    __slots__ = ("_last", "contiguous", "first", "pages", "sections")

    def __init__(self, sections: Sequence[tuple[int, int]]) -> None:
        end = 0
        for section in sections:
            base, pages = _section(section)
            if pages <= 0:
                raise ValueError(f"EPC section at {base:#x}: {pages} pages")
            if base % PAGE_SIZE or base < end:
                raise ValueError(f"EPC section at {base:#x}: not page aligned, or out of order")
            end = base + pages * PAGE_SIZE
        if not end:
            raise ValueError("EPC: no section given, at least 1 is needed")
        if end > 1 << 46:
            raise ValueError(f"EPC section ends at {end:#x}, above what the kernel can map (2^46)")
        self.sections = tuple(sections)
        self.pages = sum(pages for _, pages in sections)
        self.first = sections[0][0] >> PAGE_SHIFT
        self._last = end >> PAGE_SHIFT
        # The pages of the first section: their frames are `first` + number.
        self.contiguous = sections[0][1]

    def index(self, pfn: int) -> int:
        """EPC page number of a frame; -1 if the frame is not EPC."""
        number = pfn - self.first
        if 0 <= number < self.contiguous:
            return number
        if number < 0 or pfn >= self._last:
            return -1
        number = 0
        for base, pages in self.sections:
            offset = pfn - (base >> PAGE_SHIFT)
            if 0 <= offset < pages:
                return number + offset
            number += pages
        return -1

    def pfn(self, page: int) -> int:
        """Frame of an EPC page number."""
        if 0 <= page < self.contiguous:
            return self.first + page
        if not 0 <= page < self.pages:
            raise ValueError(f"EPC page {page}: the processor has pages 0 to {self.pages - 1}")
        for base, pages in self.sections:
            if page < pages:
                return (base >> PAGE_SHIFT) + page
            page -= pages
        raise AssertionError("unreachable: page was checked")

    def physical(self, page: int) -> int:
        """Physical address of an EPC page number."""
        if 0 <= page < self.contiguous:
            return (self.first + page) << PAGE_SHIFT
        return self.pfn(page) << PAGE_SHIFT

    def cpuid_sections(self) -> list[tuple[int, int]]:
        """(physical base, bytes) of each section, as CPUID leaf 12H lists them."""
        return [(base, pages * PAGE_SIZE) for base, pages in self.sections]
