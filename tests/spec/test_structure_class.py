"""`Structure` itself: values it refuses, and declarations that do not come into being."""

import struct

import pytest

from softsgx.spec.paging import PAGEINFO
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.spec.ssa import EXINFO
from softsgx.spec.structure import Field, Structure, raw, u8, u16, u32, u64


class Sample(Structure, size=16, align=8):
    """One field of each kind, a gap in the middle and one at the end."""

    BYTE: int = u8(0)
    WORD: int = u16(2)
    LONG: int = u32(4)
    TEXT: bytes = raw(8, 3)


def test_integers_must_fit() -> None:
    for name, width in (("BYTE", 1), ("WORD", 2), ("LONG", 4)):
        top = (1 << 8 * width) - 1
        assert getattr(Sample(**{name: top}), name) == top
        for value in (top + 1, -1):
            with pytest.raises(ValueError, match=rf"^Sample\.{name}: .* does not fit {width} byte"):
                Sample(**{name: value})


@pytest.mark.parametrize("value", ["1", b"\x01", None, 1.0])
def test_integers_must_be_integers(value: object) -> None:
    with pytest.raises(TypeError, match=r"^Sample\.BYTE: an integer is needed"):
        Sample(BYTE=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [b"", b"ab", b"abcd"])
def test_bytes_must_have_the_length_of_the_field(value: bytes) -> None:
    message = rf"^Sample\.TEXT: {len(value)} bytes given, 3 needed"
    with pytest.raises(ValueError, match=message):
        Sample(TEXT=value)


@pytest.mark.parametrize("value", ["abc", 3, None])
def test_bytes_must_be_bytes(value: object) -> None:
    with pytest.raises(TypeError, match=r"^Sample\.TEXT: bytes are needed"):
        Sample(TEXT=value)  # type: ignore[arg-type]


def test_unknown_fields_are_named() -> None:
    with pytest.raises(TypeError, match=r"^Sample has no field NOPE, ZERO$"):
        Sample(ZERO=0, NOPE=1)
    with pytest.raises(TypeError, match=r"^PAGEINFO has no field linaddr$"):
        PAGEINFO(linaddr=0)


def test_replace_checks_like_the_constructor() -> None:
    sample = Sample(BYTE=1, TEXT=b"abc")
    assert sample.replace(WORD=2) == Sample(BYTE=1, WORD=2, TEXT=b"abc")
    with pytest.raises(ValueError, match=r"^Sample\.WORD: "):
        sample.replace(WORD=1 << 16)
    with pytest.raises(TypeError, match=r"^Sample has no field NOPE$"):
        sample.replace(NOPE=0)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_unpack_takes_exactly_the_size(length: int) -> None:
    with pytest.raises(struct.error, match="16 bytes"):
        Sample.unpack(bytes(length))


def test_reserved_clear_refuses_a_short_image() -> None:
    assert Sample.reserved_clear(bytes(16))
    assert not Sample.reserved_clear(bytes(15))


def test_equality_is_of_kind_and_content() -> None:
    class Other(Structure, size=16, align=8):
        """The same bytes under another name."""

        BYTE: int = u8(0)

    assert Sample() == Sample()
    assert Sample(BYTE=1) != Sample()
    assert Other() != Sample()
    assert Sample() != bytes(16)


def test_repr_shows_what_is_not_zero() -> None:
    assert repr(Sample()) == "Sample()"
    assert repr(Sample(WORD=0x1234, TEXT=b"\0\0a")) == "Sample(WORD=0x1234, TEXT=000061)"


def test_declaration_gives_fields_and_gaps() -> None:
    assert (
        Field("BYTE", 0, 1, True),
        Field("WORD", 2, 2, True),
        Field("LONG", 4, 4, True),
        Field("TEXT", 8, 3, False),
    ) == Sample.FIELDS
    assert [f.end for f in Sample.FIELDS] == [1, 4, 8, 11]
    assert Sample.RESERVED == ((1, 2), (11, 16))
    assert Sample.NAMES == ("BYTE", "WORD", "LONG", "TEXT")
    assert [Sample.offset_of(name) for name in Sample.NAMES] == [0, 2, 4, 8]
    assert (Sample.SIZE, Sample.ALIGN) == (16, 8)
    assert EXINFO.ALIGN == 1


def test_overlapping_fields_fail_at_definition() -> None:
    with pytest.raises(AssertionError, match=r"^Bad\.SECOND: overlaps or is out of order"):

        class Bad(Structure, size=16):
            FIRST: int = u64(0)
            SECOND: int = u32(4)


def test_out_of_order_fields_fail_at_definition() -> None:
    with pytest.raises(AssertionError, match=r"^Bad\.SECOND: overlaps or is out of order"):

        class Bad(Structure, size=16):
            FIRST: int = u64(8)
            SECOND: int = u64(0)


def test_a_field_before_the_start_fails_at_definition() -> None:
    with pytest.raises(AssertionError, match=r"^Bad\.FIRST: overlaps or is out of order"):

        class Bad(Structure, size=16):
            FIRST: int = u64(-8)


@pytest.mark.parametrize("offset", [9, 16])
def test_a_field_past_the_end_fails_at_definition(offset: int) -> None:
    message = f"^Bad: fields end at {offset + 8}, past its 16 bytes"
    with pytest.raises(AssertionError, match=message):

        class Bad(Structure, size=16):
            FIRST: int = u64(offset)


def test_too_long_bytes_fail_at_definition() -> None:
    with pytest.raises(AssertionError, match=r"^Bad: fields end at 17, past its 16 bytes"):

        class Bad(Structure, size=16):
            FIRST: bytes = raw(1, 16)


def test_a_bad_value_in_a_real_structure_names_it() -> None:
    with pytest.raises(ValueError, match=r"^SIGSTRUCT\.ENCLAVEHASH: 31 bytes given, 32 needed"):
        SIGSTRUCT(ENCLAVEHASH=bytes(31))
    with pytest.raises(ValueError, match=r"^PAGEINFO\.SECS: 0x10000000000000000 does not fit"):
        PAGEINFO(SECS=1 << 64)
