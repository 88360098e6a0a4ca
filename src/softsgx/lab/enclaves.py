"""The enclaves of the lab: TCS pages, SSA frames, and the pages under test."""

from __future__ import annotations

from functools import cache

from softsgx.image.image import ALL_CHUNKS, NO_CHUNKS, Chunks, EnclaveImage, Segment
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT, MISC_EXINFO
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import REG, TCS, R, W
from softsgx.spec.paging import SECINFO
from softsgx.spec.tcs import TCS as TCS_PAGE


@cache
def with_hole(threads: int, pages: int, nssa: int = 1) -> EnclaveImage:
    """TCS pages, `nssa` frames each, SECINFO slots, a hole of `pages` for EAUG; no EEXTEND."""
    ssa = threads * PAGE_SIZE
    scratch = ssa + ssa * nssa
    end = scratch + ((threads * SECINFO.SIZE + PAGE_MASK) & ~PAGE_MASK)
    tcs = b"".join(_tcs(ssa + at * nssa * PAGE_SIZE, nssa) for at in range(threads))
    segments = (
        Segment(0, ssa, TCS, tcs, NO_CHUNKS, label="TCS"),
        Segment(ssa, ssa * nssa, REG | R | W, b"", NO_CHUNKS, label="SSA"),
        Segment(scratch, end - scratch, REG | R | W, b"", NO_CHUNKS, label="scratch"),
    )
    return EnclaveImage(
        size=_size(end + pages * PAGE_SIZE),
        segments=segments,
        attributes=ATTR_MODE64BIT | ATTR_DEBUG,
        miscselect=MISC_EXINFO,
    )


def static_heap(pages: int) -> EnclaveImage:
    """A TCS, its frame, and a heap that EADD adds; no EEXTEND."""
    return _one_thread(2 * PAGE_SIZE + pages * PAGE_SIZE, NO_CHUNKS)


def all_measured(pages: int) -> EnclaveImage:
    """`pages` pages, of which one is a TCS, all measured by EEXTEND."""
    return _one_thread(pages * PAGE_SIZE, ALL_CHUNKS)


def _one_thread(end: int, chunks: Chunks) -> EnclaveImage:
    return EnclaveImage(
        size=_size(end),
        segments=(
            Segment(0, PAGE_SIZE, TCS, _tcs(PAGE_SIZE, 1), chunks),
            Segment(PAGE_SIZE, end - PAGE_SIZE, REG | R | W, b"", chunks),
        ),
        attributes=ATTR_MODE64BIT | ATTR_DEBUG,
    )


def _tcs(ossa: int, nssa: int) -> bytes:
    return TCS_PAGE(OSSA=ossa, NSSA=nssa, OENTRY=0).pack()


def _size(end: int) -> int:
    """SECS.SIZE: the least power of two that holds it, two pages at least."""
    size = 2 * PAGE_SIZE
    while size < end:
        size *= 2
    return size
