"""The 64-byte blocks that ECREATE, EADD and EEXTEND hash into MRENCLAVE.

SDM 3D, 39.4.1 "Enclave Measurement".

The same blocks, in the same order, are the SGXS format (`image.sgxs`). An EEXTEND block is followed
by the 256 bytes that it measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from struct import Struct
from typing import Final

from softsgx.spec.bits import PAGE_SIZE, ZERO_PAGE
from softsgx.spec.structure import Structure, raw, u32, u64

CHUNK_SIZE: Final = 256
CHUNKS_PER_PAGE: Final = PAGE_SIZE // CHUNK_SIZE
ZERO_CHUNK: Final = bytes(CHUNK_SIZE)
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


# EADD blocks hashed or written at a time, of pages without measured chunks.
_BATCH_PAGES: Final = 1024


@cache
def _page_codec(chunks: int) -> Struct:
    """EADD and `chunks` EEXTENDs with their data, as one structure."""
    extend = EextendRecord.S.format.lstrip("<") + f"{CHUNK_SIZE}s"
    return Struct(EaddRecord.S.format + extend * chunks)


def ecreate(size: int, ssaframesize: int) -> bytes:
    """The ECREATE block."""
    return EcreateRecord(TAG=TAG_ECREATE, SSAFRAMESIZE=ssaframesize, SIZE_=size).pack()


def page_blocks(offset: int, flags: int, content: bytes, chunks: Sequence[int]) -> bytes:
    """The blocks of one page: EADD, then EEXTEND and data for each measured chunk, in order."""
    content = content or ZERO_PAGE
    values: list[int | bytes] = [TAG_EADD, offset, flags]
    for chunk in chunks:
        at = chunk * CHUNK_SIZE
        values += (TAG_EEXTEND, offset + at, content[at : at + CHUNK_SIZE])
    return _page_codec(len(chunks)).pack(*values)


def unmeasured_blocks(start: int, end: int, flags: int) -> Iterator[bytes]:
    """The EADD blocks of the pages from offset `start` to `end`, in pieces of arbitrary length."""
    pack = EaddRecord.S.pack
    for first in range(start, end, PAGE_SIZE * _BATCH_PAGES):
        last = min(end, first + PAGE_SIZE * _BATCH_PAGES)
        yield b"".join(pack(TAG_EADD, at, flags) for at in range(first, last, PAGE_SIZE))
