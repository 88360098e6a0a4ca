"""Where two enclaves differ: SECS, which pages there are, how they are added, what they contain.

The images are compared piece by piece, a piece being a range that lies within one segment of each.
So the time goes with the number of segments, and with the pages whose contents differ. The order of
EADD is compared for the pages that both have; a page that only one has would shift all others, and
is reported by itself.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from softsgx.image.image import Chunks, EnclaveImage, Segment
from softsgx.image.records import CHUNK_SIZE
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE, ZERO_PAGE
from softsgx.spec.epcm import PT_MASK, TCS
from softsgx.spec.tcs import TCS as TCS_PAGE

_SECS: Final = (("SIZE", "size"), ("SSAFRAMESIZE", "ssaframesize"))


class Field(NamedTuple):
    """A field with its two values. `measured`: whether MRENCLAVE depends on it."""

    name: str
    a: int
    b: int
    measured: bool = True


class Pages(NamedTuple):
    """Pages at [offset, end), in bytes from BASEADDR, that one image lacks or adds differently.

    `a` and `b` are SECINFO.FLAGS and measured chunks, None where an image has no page.
    """

    offset: int
    end: int
    a: tuple[int, Chunks] | None
    b: tuple[int, Chunks] | None


class Contents(NamedTuple):
    """A page whose contents differ: its offset, the offset of the first such byte, their number.

    `measured` of them are in a chunk that one of the enclaves measures. `a` and `b` are up to 8
    bytes from the first on; `fields` are those of a TCS.
    """

    page: int
    first: int
    bytes_: int
    measured: int
    a: bytes
    b: bytes
    fields: tuple[Field, ...] = ()


class Moved(NamedTuple):
    """Pages that both have, but add at another place in the order.

    `after_a` and `after_b` are the pages that they follow, None for the first. Pages that only one
    has are not counted.
    """

    offset: int
    end: int
    after_a: int | None
    after_b: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """All differences. `mrenclave` has the measurements of both."""

    mrenclave: tuple[bytes, bytes]
    secs: tuple[Field, ...]
    pages: tuple[Pages, ...]
    moved: tuple[Moved, ...]
    contents: tuple[Contents, ...]

    def __bool__(self) -> bool:
        return any((self.secs, self.pages, self.moved, self.contents))


class _Piece(NamedTuple):
    """A range in which both images have one segment, or none."""

    offset: int
    end: int
    a: Segment | None
    b: Segment | None


def compare(a: EnclaveImage, b: EnclaveImage) -> Difference:
    """Where two images differ. ATTRIBUTES, XFRM and MISCSELECT are not compared: SGXS files do not
    have them."""
    pieces = list(_pieces(a, b))
    secs = [Field(name, getattr(a, at), getattr(b, at)) for name, at in _SECS]
    if a.baseaddr is not None and b.baseaddr is not None:
        secs.append(Field("BASEADDR", a.baseaddr, b.baseaddr, measured=False))
    return Difference(
        (a.mrenclave(), b.mrenclave()),
        tuple(field for field in secs if field.a != field.b),
        tuple(_joined(pieces)),
        tuple(_moved(a, b, [piece for piece in pieces if piece.a and piece.b])),
        tuple(page for piece in pieces for page in _contents(piece)),
    )


def _pieces(a: EnclaveImage, b: EnclaveImage) -> Iterator[_Piece]:
    """In ascending order. A segment is also cut where its content ends and zeros begin."""
    places = (_Places(a), _Places(b))
    cuts: dict[int, None] = {}
    for segment in (*a.segments, *b.segments):
        filled = segment.offset + (len(segment.content) + PAGE_MASK & ~PAGE_MASK)
        cuts.update(dict.fromkeys((segment.offset, segment.end, filled)))
    ordered = sorted(cuts)
    for offset, end in pairwise(ordered):
        in_a, in_b = (place.at(offset) for place in places)
        if in_a is not None or in_b is not None:
            yield _Piece(offset, end, in_a, in_b)


class _Places:
    """The segments of an image by offset."""

    def __init__(self, image: EnclaveImage) -> None:
        self._segments = sorted(image.segments, key=lambda segment: segment.offset)
        self._offsets = [segment.offset for segment in self._segments]

    def at(self, offset: int) -> Segment | None:
        number = bisect_right(self._offsets, offset) - 1
        if number < 0 or self._segments[number].end <= offset:
            return None
        return self._segments[number]


def _how(segment: Segment | None) -> tuple[int, Chunks] | None:
    return None if segment is None else (segment.flags, segment.chunks)


def _joined(pieces: list[_Piece]) -> Iterator[Pages]:
    """Pages that one image lacks, or adds or measures differently; neighbours are one range."""
    last: Pages | None = None
    for piece in pieces:
        found = Pages(piece.offset, piece.end, _how(piece.a), _how(piece.b))
        if last is not None and (last.end, last.a, last.b) == (found.offset, found.a, found.b):
            last = last._replace(end=found.end)
            continue
        if last is not None and last.a != last.b:
            yield last
        last = found
    if last is not None and last.a != last.b:
        yield last


def _moved(a: EnclaveImage, b: EnclaveImage, both: list[_Piece]) -> Iterator[Moved]:
    """As few pages as possible: those outside a longest sequence that both add in one order."""
    in_a, in_b = (_in_order(image, both) for image in (a, b))
    if in_a == in_b:
        return
    place = {number: at for at, number in enumerate(in_b)}
    stays = _increasing([place[number] for number in in_a])
    before_a, before_b = (dict(zip(order[1:], order, strict=False)) for order in (in_a, in_b))
    last: Moved | None = None
    for at, number in enumerate(in_a):
        if at in stays:
            continue
        piece = both[number]
        after = [_last_page(both, before.get(number)) for before in (before_a, before_b)]
        directly = after == [piece.offset - PAGE_SIZE] * 2
        if last is not None and last.end == piece.offset and directly:
            last = last._replace(end=piece.end)
            continue
        if last is not None:
            yield last
        last = Moved(piece.offset, piece.end, *after)
    if last is not None:
        yield last


def _in_order(image: EnclaveImage, both: list[_Piece]) -> list[int]:
    """The numbers of the pieces, in the order of EADD of an image."""
    offsets = [piece.offset for piece in both]
    found: list[int] = []
    for segment in image.segments:
        found += range(bisect_left(offsets, segment.offset), bisect_left(offsets, segment.end))
    return found


def _last_page(both: list[_Piece], number: int | None) -> int | None:
    return None if number is None else both[number].end - PAGE_SIZE


def _increasing(values: list[int]) -> frozenset[int]:
    """The indices of a longest increasing subsequence."""
    tops: list[int] = []  # the smallest value that ends a sequence of each length
    ends: list[int] = []  # and its index
    before: list[int] = []
    for index, value in enumerate(values):
        length = bisect_left(tops, value)
        before.append(ends[length - 1] if length else -1)
        if length == len(tops):
            tops.append(value)
            ends.append(index)
        else:
            tops[length], ends[length] = value, index
    found, index = [], ends[-1] if ends else -1
    while index >= 0:
        found.append(index)
        index = before[index]
    return frozenset(found)


def _contents(piece: _Piece) -> Iterator[Contents]:
    """The pages whose contents differ, where both images have a page."""
    if piece.a is None or piece.b is None:
        return
    a, b = (_cut(segment, piece) for segment in (piece.a, piece.b))
    if a == b:
        return
    for at in range(0, piece.end - piece.offset, PAGE_SIZE):
        pair = (a[at : at + PAGE_SIZE] or ZERO_PAGE, b[at : at + PAGE_SIZE] or ZERO_PAGE)
        if pair[0] != pair[1]:
            yield _page(piece.offset + at, piece.a, piece.b, *pair)


def _cut(segment: Segment, piece: _Piece) -> bytes:
    """The content of a piece in whole pages; empty if the piece lies in the zeros after it."""
    content = segment.content[piece.offset - segment.offset : piece.end - segment.offset]
    return content and content.ljust(piece.end - piece.offset, b"\0")


def _page(offset: int, in_a: Segment, in_b: Segment, a: bytes, b: bytes) -> Contents:
    differing = int.from_bytes(a, "big") ^ int.from_bytes(b, "big")
    places = differing.to_bytes(PAGE_SIZE, "big")
    first = next(at for at, byte in enumerate(places) if byte)
    measured = 0
    for chunk in dict.fromkeys((*in_a.chunks, *in_b.chunks)):
        part = places[chunk * CHUNK_SIZE : (chunk + 1) * CHUNK_SIZE]
        measured += CHUNK_SIZE - part.count(0)
    fields: tuple[Field, ...] = ()
    if in_a.flags & in_b.flags & PT_MASK == TCS and in_a.is_tcs and in_b.is_tcs:
        fields = tuple(tcs_fields(a, b))
    count = PAGE_SIZE - places.count(0)
    return Contents(
        offset, offset + first, count, measured, a[first : first + 8], b[first : first + 8], fields
    )


def tcs_fields(a: bytes, b: bytes) -> Iterator[Field]:
    """The fields in which two TCS pages differ, in the order of the structure."""
    left, right = TCS_PAGE.unpack(a), TCS_PAGE.unpack(b)
    for name in TCS_PAGE.NAMES:
        if getattr(left, name) != getattr(right, name):
            yield Field(name, getattr(left, name), getattr(right, name))
