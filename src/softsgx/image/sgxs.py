"""SGXS, the SGX stream format: the blocks that MRENCLAVE hashes, one after the other, as a file.

Records of 64 bytes (`image.records`): ECREATE, then for each page EADD and its chunks; a chunk is
EEXTEND, or UNMEASRD if it is loaded but not measured, followed by its 256 bytes. Chunks that are
missing are zero and not measured. So SHA-256 of a stream without UNMEASRD is MRENCLAVE.

A stream is canonical if ECREATE comes first and once, page offsets ascend, chunks follow their own
page, and no chunk comes twice. `read` accepts a stream whose enclave can be loaded: one ECREATE, no
page or chunk twice. Pages may come in any order (`EnclaveImage.ascending`). The order of UNMEASRD
records among the chunks of a page is not kept.

Format: "SGX stream format" and "Enhanced SGX stream format" of the sgxs library of Fortanix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, NoReturn

from softsgx.image import records, rules
from softsgx.image.entering import attributes_for
from softsgx.image.errors import ImageError
from softsgx.image.image import ALL_CHUNKS, EnclaveImage, Page, content_fault, segments_of
from softsgx.image.records import (
    CHUNK_SIZE,
    RECORD_SIZE,
    TAG_EADD,
    TAG_ECREATE,
    TAG_EEXTEND,
    ZERO_CHUNK,
    EaddRecord,
    EcreateRecord,
    EextendRecord,
)
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE, ZERO_PAGE
from softsgx.spec.epcm import PT_MASK, PT_NAMES, PT_SHIFT, TCS, shadow_stack_type
from softsgx.spec.structure import Structure

TAG_UNMEASRD: Final = b"UNMEASRD"
TAG_UNSIZED: Final = b"UNSIZED\0"
MAGICS: Final = (TAG_ECREATE, TAG_UNSIZED)

_LAYOUTS: Final[dict[bytes, type[Structure]]] = {
    TAG_ECREATE: EcreateRecord,
    TAG_EADD: EaddRecord,
    TAG_EEXTEND: EextendRecord,
    TAG_UNMEASRD: EextendRecord,
}
# EADD, and 16 EEXTENDs with their data.
_USUAL_SIZE: Final = RECORD_SIZE + len(ALL_CHUNKS) * (RECORD_SIZE + CHUNK_SIZE)


class Record(NamedTuple):
    """One record: number from 0, byte at which it starts, tag, its 64 bytes, and its data."""

    number: int
    at: int
    tag: bytes
    raw: bytes
    data: bytes

    def refuse(self, field: str, offset: int, why: str) -> NoReturn:
        """Refuse the field at byte `offset` of the record."""
        name = self.tag.rstrip(b"\0").decode("ascii")
        raise ImageError(f"record {self.number} ({name}), {field} at byte {self.at + offset}", why)


def stream(image: EnclaveImage) -> Iterator[bytes]:
    """The stream of an image, in pieces. Canonical if `image.ascending`."""
    yield records.ecreate(image.size, image.ssaframesize)
    for segment in image.segments:
        if segment.chunks == ALL_CHUNKS or not segment.content:
            yield from segment.blocks()
            continue
        for page in segment.pages():
            yield records.page_blocks(*page)
            yield from _unmeasured(page)


def write(image: EnclaveImage) -> bytes:
    """The whole stream of an image."""
    return b"".join(stream(image))


def _unmeasured(page: Page) -> Iterator[bytes]:
    """UNMEASRD for the chunks of a page that are neither measured nor zero."""
    for chunk in ALL_CHUNKS:
        at = chunk * CHUNK_SIZE
        data = page.content[at : at + CHUNK_SIZE]
        if chunk not in page.chunks and data and data != ZERO_CHUNK:
            yield EextendRecord(TAG=TAG_UNMEASRD, OFFSET=page.offset + at).pack() + data


def read(data: bytes) -> EnclaveImage:
    """The image of a stream. Raises ImageError, naming record, field and byte offset.

    A stream has no ATTRIBUTES: they are those that its TCS pages need.
    """
    source = _Source(data)
    size, ssaframesize = _ecreate(source.record())
    segments = segments_of(_pages(source, size))
    return EnclaveImage(
        size=size,
        ssaframesize=ssaframesize,
        segments=segments,
        attributes=attributes_for(segments),
    )


class _Source:
    """A stream being cut into records; checks tags, lengths and reserved bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.number = data, 0, 0

    def record(self) -> Record | None:
        """The next record; None at the end."""
        data, at, number = self.data, self.at, self.number
        raw = data[at : at + RECORD_SIZE]
        if not raw:
            return None
        if len(raw) < RECORD_SIZE:
            why = f"the stream ends after {len(raw)} of {RECORD_SIZE} bytes"
            raise ImageError(f"record {number} at byte {at}", why)
        tag = raw[:8]
        layout = _LAYOUTS.get(tag)
        if layout is None:
            raise ImageError(f"record {number}, tag at byte {at}", _unknown(tag))
        end = at + RECORD_SIZE
        chunk = b""
        if layout is EextendRecord:
            chunk = data[end : end + CHUNK_SIZE]
            end += CHUNK_SIZE
        record = Record(number, at, tag, raw, chunk)
        if not layout.reserved_clear(raw):
            offset = next(i for a, b in layout.RESERVED for i in range(a, b) if raw[i])
            record.refuse("reserved bytes", offset, f"{raw[offset]:#x} is not 0")
        if end > len(data):
            why = f"the stream ends after {len(chunk)} of {CHUNK_SIZE} bytes"
            record.refuse("data", RECORD_SIZE, why)
        self.at, self.number = end, number + 1
        return record

    def usual_page(self, builder: _PageBuilder) -> Page | None:
        """The page, if what follows its EADD is what `write` writes for a measured page.

        Almost every page is of this kind, and one comparison is ten times faster than 16 records.
        """
        start = builder.record.at
        end = start + _USUAL_SIZE
        found = self.data[start:end]
        first, step = 2 * RECORD_SIZE, RECORD_SIZE + CHUNK_SIZE
        content = b"".join(found[at : at + CHUNK_SIZE] for at in range(first, _USUAL_SIZE, step))
        page = Page(builder.offset, builder.flags, content, ALL_CHUNKS)
        if len(content) < PAGE_SIZE or records.page_blocks(*page) != found:
            return None
        if self.data[end : end + 8] in (TAG_EEXTEND, TAG_UNMEASRD):
            return None  # one chunk more than a page has: the error is found below
        self.at, self.number = end, self.number + len(ALL_CHUNKS)
        return page if content != ZERO_PAGE else page._replace(content=b"")


def _unknown(tag: bytes) -> str:
    if tag == TAG_UNSIZED:
        return "UNSIZED: the size of the enclave is still open, so there is nothing to measure"
    return f"{tag.hex()} is none of ECREATE, EADD, EEXTEND, UNMEASRD"


def _ecreate(record: Record | None) -> tuple[int, int]:
    """SIZE and SSAFRAMESIZE."""
    if record is None:
        raise ImageError("record 0 at byte 0", "the stream is empty, it must begin with ECREATE")
    if record.tag != TAG_ECREATE:
        record.refuse("tag", 0, "the stream must begin with ECREATE")
    fields = EcreateRecord.unpack(record.raw)
    if why := rules.size_fault(fields.SIZE_):
        record.refuse("SIZE", 12, why)
    if why := rules.frame_fault(fields.SSAFRAMESIZE):
        record.refuse("SSAFRAMESIZE", 8, why)
    return fields.SIZE_, fields.SSAFRAMESIZE


def _pages(source: _Source, size: int) -> Iterator[Page]:
    """The pages, each with its chunks."""
    builder: _PageBuilder | None = None
    seen: dict[int, int] = {}
    while (record := source.record()) is not None:
        if record.tag in (TAG_EEXTEND, TAG_UNMEASRD):
            if builder is None:
                record.refuse("tag", 0, "no EADD of its page comes before it")
            builder.chunk(record)
        elif record.tag == TAG_EADD:
            if builder is not None:
                yield builder.done()
            builder = _PageBuilder(record, size)
            before = seen.setdefault(builder.offset, record.number)
            if before != record.number:
                why = f"{builder.offset:#x} was added by record {before} already"
                record.refuse("offset", 8, why)
            page = None if builder.is_checked else source.usual_page(builder)
            if page is not None:
                yield page
                builder = None
        else:
            record.refuse("tag", 0, "a second ECREATE")
    if builder is not None:
        yield builder.done()


class _PageBuilder:
    """A page whose chunks are being read."""

    def __init__(self, record: Record, size: int) -> None:
        fields = EaddRecord.unpack(record.raw)
        self.offset, self.flags = fields.OFFSET, fields.FLAGS
        self.record = record
        # A TCS and a shadow stack keep their records, because their contents are checked.
        self.is_checked = self.flags & PT_MASK == TCS or shadow_stack_type(self.flags)
        self.chunks: list[int] = []
        self.places: dict[int, Record] = {}
        if self.offset & PAGE_MASK:
            record.refuse("offset", 8, f"{self.offset:#x} is not a multiple of 4096")
        if self.offset >= size:
            record.refuse("offset", 8, f"{self.offset:#x} is outside the enclave of {size:#x}")
        if why := rules.flags_fault(self.flags):
            record.refuse("SECINFO.FLAGS", 16, why)

    def chunk(self, record: Record) -> None:
        """EEXTEND or UNMEASRD."""
        offset = EextendRecord.unpack(record.raw).OFFSET
        at = offset - self.offset
        if not 0 <= at < PAGE_SIZE:
            record.refuse("offset", 8, f"{offset:#x} is not in the page {self.offset:#x} before it")
        if at % CHUNK_SIZE:
            record.refuse("offset", 8, f"{offset:#x} is not a multiple of 256")
        number = at // CHUNK_SIZE
        if number in self.places:
            before = self.places[number].number
            record.refuse("offset", 8, f"{offset:#x} was loaded by record {before} already")
        self.places[number] = record
        if record.tag == TAG_EEXTEND:
            self.chunks.append(number)

    def done(self) -> Page:
        """The page, complete."""
        places = self.places
        content = b"".join(
            places[number].data if number in places else ZERO_CHUNK for number in ALL_CHUNKS
        )
        if self.is_checked and (fault := content_fault(self.flags, content)):
            name = PT_NAMES[(self.flags & PT_MASK) >> PT_SHIFT]
            number, offset = divmod(fault.offset, CHUNK_SIZE)
            if number not in places:  # a token that is missing
                self.record.refuse(f"{name}.{fault.field}", RECORD_SIZE, fault.why)
            # A byte that is not zero has been loaded, so its chunk has a record.
            places[number].refuse(f"{name}.{fault.field}", RECORD_SIZE + offset, fault.why)
        if content == ZERO_PAGE:
            content = b""
        chunks = ALL_CHUNKS if self.chunks == list(ALL_CHUNKS) else tuple(self.chunks)
        return Page(self.offset, self.flags, content, chunks)
