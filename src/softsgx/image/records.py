"""The 64-byte blocks that ECREATE, EADD and EEXTEND hash into MRENCLAVE. SDM 3D, 39.4.1.

The same blocks, in the same order, are the SGXS format (`image.sgxs`). An EEXTEND block is followed
by the 256 bytes that it measures.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, Final

from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.structure import Structure, raw, u32, u64

if TYPE_CHECKING:
    from softsgx.image.image import Page, Segment

CHUNK_SIZE: Final = 256
CHUNKS_PER_PAGE: Final = PAGE_SIZE // CHUNK_SIZE
ZERO_CHUNK: Final = bytes(CHUNK_SIZE)
ZERO_PAGE: Final = bytes(PAGE_SIZE)
RECORD_SIZE: Final = 64

TAG_ECREATE: Final = b"ECREATE\0"
TAG_EADD: Final = b"EADD\0\0\0\0"
TAG_EEXTEND: Final = b"EEXTEND\0"


class EcreateRecord(Structure, size=RECORD_SIZE):
    """SECS.SSAFRAMESIZE, and SECS.SIZE at the unaligned byte 12."""

    TAG: bytes = raw(0, 8)
    SSAFRAMESIZE: int = u32(8)
    SIZE_: int = u64(12)


class EaddRecord(Structure, size=RECORD_SIZE):
    """Offset of the page from BASEADDR, then the first 48 bytes of its SECINFO."""

    TAG: bytes = raw(0, 8)
    OFFSET: int = u64(8)
    FLAGS: int = u64(16)


class EextendRecord(Structure, size=RECORD_SIZE):
    """Offset of the chunk from BASEADDR; the 256 bytes follow."""

    TAG: bytes = raw(0, 8)
    OFFSET: int = u64(8)


# EADD blocks hashed or written at a time where nothing is measured but offset and flags.
_BATCH_PAGES: Final = 1024


@cache
def _page_codec(chunks: int) -> Struct:
    """EADD and `chunks` EEXTENDs with their data, as one structure."""
    extend = EextendRecord.S.format.lstrip("<") + f"{CHUNK_SIZE}s"
    return Struct(EaddRecord.S.format + extend * chunks)


def ecreate(size: int, ssaframesize: int) -> bytes:
    """The ECREATE block."""
    return EcreateRecord(TAG=TAG_ECREATE, SSAFRAMESIZE=ssaframesize, SIZE_=size).pack()


def page_blocks(page: Page) -> bytes:
    """The blocks of one page: EADD, then EEXTEND and data for each measured chunk, in order."""
    content = page.content or ZERO_PAGE
    values: list[int | bytes] = [TAG_EADD, page.offset, page.flags]
    for chunk in page.chunks:
        at = chunk * CHUNK_SIZE
        values += (TAG_EEXTEND, page.offset + at, content[at : at + CHUNK_SIZE])
    return _page_codec(len(page.chunks)).pack(*values)


def segment_blocks(segment: Segment) -> Iterator[bytes]:
    """The blocks of all pages of a segment, in pieces of any length."""
    if segment.chunks:
        for page in segment.pages():
            yield page_blocks(page)
        return
    pack, flags = EaddRecord.S.pack, segment.flags
    for start in range(segment.offset, segment.end, PAGE_SIZE * _BATCH_PAGES):
        end = min(segment.end, start + PAGE_SIZE * _BATCH_PAGES)
        yield b"".join(pack(TAG_EADD, at, flags) for at in range(start, end, PAGE_SIZE))
