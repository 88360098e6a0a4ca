"""An enclave as it is loaded: what goes into ECREATE, EADD and EEXTEND, in this order.

code = Segment(0x0, 0x2000, REG | R | X, program)
tcs = Segment(0x2000, 0x1000, TCS, TCS_PAGE(OSSA=0x3000, NSSA=1, OENTRY=0).pack())
image = EnclaveImage(size=0x8000, segments=(code, tcs, Segment(0x3000, 0x1000, REG | R | W)))
image.mrenclave()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Final, NamedTuple

from softsgx.image import records, rules
from softsgx.image.errors import Finding, ImageError
from softsgx.image.records import CHUNKS_PER_PAGE
from softsgx.spec.attributes import ATTR_MODE64BIT, XFRM_LEGACY
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE, ZERO_PAGE
from softsgx.spec.epcm import PT_MASK, PT_NAMES, PT_SHIFT, SS_FIRST, TCS, shadow_stack_type
from softsgx.spec.secs import SECS

# Which 256-byte chunks of a page are measured, in the order of their EEXTENDs.
Chunks = tuple[int, ...]
ALL_CHUNKS: Final[Chunks] = tuple(range(CHUNKS_PER_PAGE))
NO_CHUNKS: Final[Chunks] = ()


class Page(NamedTuple):
    """One page: byte offset from BASEADDR, SECINFO.FLAGS, content, measured chunks.

    `content` is 4096 bytes, or empty for a page of zeros.
    """

    offset: int
    flags: int
    content: bytes
    chunks: Chunks


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive pages with the same SECINFO.FLAGS, measured alike: one ADD_PAGES of Linux.

    `offset` from BASEADDR and `size` are bytes, multiples of 4096; `flags` are SECINFO.FLAGS with
    type and permissions; `content` holds the first bytes, the rest is zero; `chunks` are measured
    in each page. `label` is for the reader. Raises ImageError.
    """

    offset: int
    size: int
    flags: int
    content: bytes = b""
    chunks: Chunks = ALL_CHUNKS
    label: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.offset < 0 or self.offset & PAGE_MASK:
            raise self.error("offset", "not a multiple of 4096")
        if self.size <= 0 or self.size & PAGE_MASK:
            raise self.error("size", f"{self.size:#x} is not a positive multiple of 4096")
        if why := rules.flags_fault(self.flags):
            raise self.error("flags", why)
        if len(self.content) > self.size:
            raise self.error("content", f"{len(self.content):#x} bytes exceed size {self.size:#x}")
        if not set(self.chunks) <= set(ALL_CHUNKS) or len(set(self.chunks)) != len(self.chunks):
            raise self.error("chunks", f"{self.chunks} are not different numbers from 0 to 15")
        if self.is_tcs or self.is_shadow_stack:
            name = PT_NAMES[(self.flags & PT_MASK) >> PT_SHIFT]
            for page in self.pages():
                if fault := content_fault(self.flags, page.content or ZERO_PAGE):
                    place = f"{name} at {page.offset:#x}, {fault.field} at byte {fault.offset}"
                    raise ImageError(place, fault.why)

    def error(self, name: str, why: str) -> ImageError:
        """An error of the field `name`."""
        return ImageError(f"segment at {self.offset:#x}, {name}", why)

    @property
    def end(self) -> int:
        """Offset of the first byte after the segment."""
        return self.offset + self.size

    @property
    def is_tcs(self) -> bool:
        """Whether the pages are TCS pages."""
        return self.flags & PT_MASK == TCS

    @property
    def is_shadow_stack(self) -> bool:
        """Whether the pages are PT_SS_FIRST or PT_SS_REST."""
        return shadow_stack_type(self.flags)

    def data(self) -> bytes:
        """All `size` bytes, the zeros included."""
        return self.content.ljust(self.size, b"\0")

    def pages(self) -> Iterator[Page]:
        """The pages in ascending order; those past `content` cost next to nothing."""
        content, flags, chunks = self.content, self.flags, self.chunks
        for at in range(0, self.size, PAGE_SIZE):
            part = content[at : at + PAGE_SIZE]
            yield Page(self.offset + at, flags, part and part.ljust(PAGE_SIZE, b"\0"), chunks)

    def blocks(self) -> Iterator[bytes]:
        """What is hashed of the pages, in pieces of arbitrary length."""
        if not self.chunks:
            yield from records.unmeasured_blocks(self.offset, self.end, self.flags)
            return
        for page in self.pages():
            yield records.page_blocks(*page)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveImage:
    """A whole enclave. Segments are in the order of EADD, on which the measurement depends.

    `size` is SECS.SIZE in bytes, `ssaframesize` SECS.SSAFRAMESIZE in pages. Only these two and the
    segments are measured; `attributes`, `xfrm`, `miscselect` and `cet_attributes` are what the
    loader puts into the SECS. `baseaddr` is where the code must run, None for anywhere; the token
    of a PT_SS_FIRST page names it as well. Shadow-stack pages are for processors with CET. Raises
    ImageError.
    """

    size: int
    segments: tuple[Segment, ...]
    ssaframesize: int = 1
    attributes: int = ATTR_MODE64BIT
    xfrm: int = XFRM_LEGACY
    miscselect: int = 0
    cet_attributes: int = 0
    baseaddr: int | None = None

    def __post_init__(self) -> None:
        if why := rules.size_fault(self.size):
            raise ImageError("SIZE", why)
        if why := rules.xfrm_fault(self.xfrm):
            raise ImageError("XFRM", why)
        if why := rules.frame_fault(self.ssaframesize):
            raise ImageError("SSAFRAMESIZE", why)
        if self.baseaddr is not None and self.baseaddr & (self.size - 1):
            raise ImageError("BASEADDR", f"{self.baseaddr:#x} is not a multiple of {self.size:#x}")
        for segment in self.segments:
            if segment.end > self.size:
                raise segment.error("size", f"ends past SIZE {self.size:#x}")
            if segment.is_shadow_stack:
                self._check_shadow_stack(segment)
        for below, above in pairwise(sorted(self.segments, key=lambda s: s.offset)):
            if below.end > above.offset:
                raise above.error("offset", f"inside the segment at {below.offset:#x}")

    def _check_shadow_stack(self, segment: Segment) -> None:
        """Check place and tokens; the first token decides where the enclave must run."""
        if segment.offset == 0 or segment.end == self.size:
            raise segment.error("offset", "a shadow-stack page is not first or last in ELRANGE")
        for page in segment.pages() if segment.flags & PT_MASK == SS_FIRST else ():
            base = rules.token_base(page.offset, page.content)
            wide = self.attributes & ATTR_MODE64BIT
            if page.content[-8] & 1 != bool(wide):
                why = f"bit 0 is {page.content[-8] & 1}, not that of ATTRIBUTES.MODE64BIT"
            elif base & (self.size - 1):
                why = f"BASEADDR would be {base:#x}, which is not a multiple of {self.size:#x}"
            elif self.baseaddr not in (None, base):
                why = f"BASEADDR would be {base:#x}, not {self.baseaddr:#x}"
            else:
                object.__setattr__(self, "baseaddr", base)
                continue
            raise ImageError(f"SS_FIRST at {page.offset:#x}, RSTORSSP token", why)

    @property
    def tcs(self) -> tuple[int, ...]:
        """Offsets of the TCS pages, in the order of EADD."""
        return tuple(
            page for segment in self.segments if segment.is_tcs for page in _offsets(segment)
        )

    @property
    def ascending(self) -> bool:
        """Whether pages are added in ascending order."""
        return all(below.end <= above.offset for below, above in pairwise(self.segments))

    def pages(self) -> Iterator[Page]:
        """All pages, in the order of EADD."""
        for segment in self.segments:
            yield from segment.pages()

    def page_count(self) -> int:
        """Number of pages added."""
        return sum(segment.size for segment in self.segments) // PAGE_SIZE

    def blocks(self) -> Iterator[bytes]:
        """What is hashed, in pieces of arbitrary length. SDM 3D, 39.4.1 "Enclave Measurement"."""
        yield records.ecreate(self.size, self.ssaframesize)
        for segment in self.segments:
            yield from segment.blocks()

    def mrenclave(self) -> bytes:
        """The 32 bytes that EINIT compares with SIGSTRUCT.ENCLAVEHASH."""
        digest = sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.digest()

    def secs(self, baseaddr: int) -> SECS:
        """The source page of ECREATE, for an enclave at `baseaddr`."""
        return SECS(
            SIZE_=self.size,
            BASEADDR=baseaddr,
            SSAFRAMESIZE=self.ssaframesize,
            MISCSELECT=self.miscselect,
            CET_ATTRIBUTES=self.cet_attributes,
            ATTRIBUTES=self.attributes,
            XFRM=self.xfrm,
        )


def content_fault(flags: int, page: bytes) -> Finding | None:
    """What EADD would refuse in the contents of a page with these SECINFO.FLAGS."""
    if flags & PT_MASK == TCS:
        return rules.tcs_fault(page)
    return rules.shadow_stack_fault(flags, page) if shadow_stack_type(flags) else None


def segments_of(pages: Iterable[Page]) -> tuple[Segment, ...]:
    """Pages joined into segments. A page with content after a page of zeros begins a new one."""
    runs: list[list[Page]] = []
    for page in pages:
        last = runs[-1][-1] if runs else None
        if (
            last is not None
            and (last.offset + PAGE_SIZE, last.flags, last.chunks)
            == (page.offset, page.flags, page.chunks)
            and (last.content or not page.content)
        ):
            runs[-1].append(page)
        else:
            runs.append([page])
    return tuple(
        Segment(
            run[0].offset,
            len(run) * PAGE_SIZE,
            run[0].flags,
            b"".join(page.content for page in run),
            run[0].chunks,
        )
        for run in runs
    )


def _offsets(segment: Segment) -> range:
    return range(segment.offset, segment.end, PAGE_SIZE)
