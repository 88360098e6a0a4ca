"""The declared structures against the manual's tables, byte for byte."""

from typing import TypeVar

import pytest

from softsgx.spec.secs import (
    PADDING_CONSTANT,
    SECS,
    SECS_IMPLEMENTATION_AREA,
    SECS_SOURCE_RESERVED,
)
from softsgx.spec.sigstruct import (
    EINITTOKEN_MACED,
    EINITTOKEN_VALID,
    SIGSTRUCT_EXPONENT,
    SIGSTRUCT_HEADER,
    SIGSTRUCT_HEADER2,
    SIGSTRUCT_SIGNED,
    SIGSTRUCT_VENDORS,
)
from softsgx.spec.structure import Structure
from tests.spec.layouts import ALL, LAYOUTS, SECS_HEAD, SECS_IMPLEMENTATION, Layout

S = TypeVar("S", bound=Structure)


def name_of(structure: object) -> str:
    return structure.__name__ if isinstance(structure, type) else ""


def declared(structure: type[Structure]) -> Layout:
    """Fields and reserved ranges as the class has them, in order of their offsets."""
    fields = [(f.name, f.offset, f.width) for f in structure.FIELDS]
    reserved = [("rsv", start, end - start) for start, end in structure.RESERVED]
    return sorted(fields + reserved, key=lambda row: row[1])


def distinct(structure: type[S]) -> S:
    """An instance in which every byte of every field differs from its neighbours."""
    values: dict[str, int | bytes] = {}
    for field in structure.FIELDS:
        content = bytes((field.offset * 7 + i * 31 + 1) % 255 + 1 for i in range(field.width))
        values[field.name] = int.from_bytes(content, "little") if field.integer else content
    return structure(**values)


@pytest.mark.parametrize(("structure", "size", "align", "layout"), LAYOUTS, ids=name_of)
def test_structure_is_laid_out_as_printed(
    structure: type[Structure], size: int, align: int, layout: Layout
) -> None:
    assert (size, align) == (structure.SIZE, structure.ALIGN)
    assert declared(structure) == layout


def test_secs_is_laid_out_as_printed() -> None:
    start, end = SECS_IMPLEMENTATION_AREA
    assert (SECS.SIZE, SECS.ALIGN) == (4096, 4096)
    assert (start, end) == (262, 4096)
    assert [row for row in declared(SECS) if row[1] < start] == SECS_HEAD
    inside = {f.name: f.width for f in SECS.FIELDS if f.offset >= start}
    assert SECS_IMPLEMENTATION.items() <= inside.items()


def test_secs_source_page_must_be_zero_where_a_part_without_cet_reserves() -> None:
    # CET_LEG_BITMAP_OFFSET, CET_ATTRIBUTES and the 15 bytes after; two gaps; the rest of the page.
    assert SECS_SOURCE_RESERVED == ((24, 48), (96, 128), (160, 192), (262, 4096))


@pytest.mark.parametrize("structure", ALL, ids=name_of)
def test_every_byte_is_a_field_or_reserved(structure: type[Structure]) -> None:
    covered = [False] * structure.SIZE
    for _, offset, width in declared(structure):
        for at in range(offset, offset + width):
            assert not covered[at], f"byte {at} twice"
            covered[at] = True
    assert all(covered)


@pytest.mark.parametrize("structure", ALL, ids=name_of)
def test_fields_are_encoded_little_endian_at_their_offsets(structure: type[Structure]) -> None:
    block = distinct(structure)
    image = block.pack()
    assert len(image) == structure.SIZE
    for field in structure.FIELDS:
        value = getattr(block, field.name)
        encoded = value.to_bytes(field.width, "little") if field.integer else value
        assert image[field.offset : field.offset + field.width] == encoded, field.name
    for start, end in structure.RESERVED:
        assert image[start:end] == bytes(end - start)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("structure", ALL, ids=name_of)
def test_unpack_is_the_inverse_of_pack(structure: type[Structure], kind: type) -> None:
    block = distinct(structure)
    again = structure.unpack(kind(block.pack()))
    assert again == block
    assert hash(again) == hash(block)
    for name in structure.NAMES:
        assert getattr(again, name) == getattr(block, name)


@pytest.mark.parametrize("structure", ALL, ids=name_of)
def test_reserved_clear_sees_every_reserved_byte_and_no_other(structure: type[Structure]) -> None:
    image = bytearray(b"\xff" * structure.SIZE)
    for start, end in structure.RESERVED:
        image[start:end] = bytes(end - start)
    assert structure.reserved_clear(image)
    for start, end in structure.RESERVED:
        for at in (start, end - 1):
            image[at] = 0x80
            assert not structure.reserved_clear(image), f"byte {at}"
            image[at] = 0
    assert structure.reserved_clear(image)


def test_sigstruct_constants() -> None:
    assert bytes([6, 0, 0, 0, 0xE1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]) == SIGSTRUCT_HEADER
    assert bytes([1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0]) == SIGSTRUCT_HEADER2
    assert SIGSTRUCT_VENDORS == (0, 0x8086)
    assert SIGSTRUCT_EXPONENT == 3
    assert [byte for a, b in SIGSTRUCT_SIGNED for byte in range(a, b)] == [
        *range(128),
        *range(900, 1028),
    ]


def test_einittoken_constants() -> None:
    assert EINITTOKEN_MACED == 192
    assert EINITTOKEN_VALID == 1


def test_padding_constant_is_the_printed_little_endian_value() -> None:
    # 0100H, then 330 bytes FFH, then the 20-byte value, each least significant byte first.
    tail = 0x2004000501020403650148866009060D30313000.to_bytes(20, "little")
    assert 0x0100.to_bytes(2, "little") + b"\xff" * 330 + tail == PADDING_CONSTANT
    assert len(PADDING_CONSTANT) == 352
