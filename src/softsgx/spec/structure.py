"""The base class of every structure in this room: declared once, checked at import, compiled.

A structure names its fields with their offsets, in the manual's order:

    class PAGEINFO(Structure, size=32, align=32):
        LINADDR: int = u64(0)
        SRCPGE: int = u64(8)

Bytes that no field names are reserved. They are derived (`PAGEINFO.RESERVED`), packed as zero, and
tested by `reserved_clear`; they never have to be declared. `pack` and `unpack` are generated once
per class around one `struct.Struct`, which is the fastest codec CPython has: decoding PAGEINFO
and reading its four fields takes about 0.4 us.
"""

from __future__ import annotations

import struct
from typing import Any, ClassVar, Final, NamedTuple, Self

_INTEGER_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}

# One or two fields at a time, in place: (buffer, offset, values) and (buffer, offset). Functions,
# since a method of an imported object is found more slowly.
pack_u32: Final = struct.Struct("<I").pack_into
pack_u64: Final = struct.Struct("<Q").pack_into
pack_u64_pair: Final = struct.Struct("<QQ").pack_into
unpack_u32: Final = struct.Struct("<I").unpack_from
unpack_u64: Final = struct.Struct("<Q").unpack_from
unpack_u64_pair: Final = struct.Struct("<QQ").unpack_from


class Field(NamedTuple):
    """One field: its name, byte offset, width in bytes, and whether it is an integer."""

    name: str
    offset: int
    width: int
    integer: bool

    @property
    def end(self) -> int:
        """Offset of the first byte after the field."""
        return self.offset + self.width


class _At(NamedTuple):
    offset: int
    width: int
    integer: bool


def u8(offset: int) -> Any:
    """Declare an unsigned 8-bit field at `offset`."""
    return _At(offset, 1, True)


def u16(offset: int) -> Any:
    """Declare a little-endian unsigned 16-bit field at `offset`."""
    return _At(offset, 2, True)


def u32(offset: int) -> Any:
    """Declare a little-endian unsigned 32-bit field at `offset`."""
    return _At(offset, 4, True)


def u64(offset: int) -> Any:
    """Declare a little-endian unsigned 64-bit field at `offset`."""
    return _At(offset, 8, True)


def raw(offset: int, width: int) -> Any:
    """Declare a field of `width` uninterpreted bytes at `offset`."""
    return _At(offset, width, False)


class Structure:
    """A structure of the manual. See the module's text for how one is declared.

    Class attributes: SIZE and ALIGN in bytes, FIELDS in order, RESERVED as (start, end) pairs,
    S the compiled `struct.Struct`.
    """

    SIZE: ClassVar[int]
    ALIGN: ClassVar[int]
    FIELDS: ClassVar[tuple[Field, ...]]
    RESERVED: ClassVar[tuple[tuple[int, int], ...]]
    S: ClassVar[struct.Struct]
    _ZEROS: ClassVar[tuple[tuple[int, int, bytes], ...]]
    NAMES: ClassVar[tuple[str, ...]]
    __slots__ = ()

    def __init_subclass__(cls, *, size: int, align: int = 1) -> None:
        fields = []
        for name, at in list(vars(cls).items()):
            if isinstance(at, _At):
                fields.append(Field(name, *at))
                delattr(cls, name)
        cls.SIZE, cls.ALIGN, cls.FIELDS = size, align, tuple(fields)
        cls.NAMES = tuple(f.name for f in fields)
        cls.RESERVED = _gaps(cls.__name__, cls.FIELDS, size)
        cls._ZEROS = tuple((a, b, bytes(b - a)) for a, b in cls.RESERVED)
        cls.S = struct.Struct(_format(cls.FIELDS, size))
        assert cls.S.size == size, f"{cls.__name__}: packs to {cls.S.size} bytes, not {size}"
        _compile(cls)

    def __init__(self, **fields: int | bytes) -> None:
        """All fields zero except those given; an unknown name or a value too wide is refused."""
        for field in self.FIELDS:
            value = fields.pop(field.name, 0 if field.integer else bytes(field.width))
            _check_value(type(self).__name__, field, value)
            object.__setattr__(self, field.name, value)
        if fields:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(fields))}")

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Decode exactly SIZE bytes. Reserved bytes are not looked at; see `reserved_clear`."""
        raise NotImplementedError  # replaced by _compile

    def pack(self) -> bytes:
        """Encode to SIZE bytes, reserved bytes zero."""
        raise NotImplementedError  # replaced by _compile

    @classmethod
    def reserved_clear(cls, data: bytes | bytearray | memoryview) -> bool:
        """Whether every reserved byte of the encoded structure is zero."""
        return all(data[a:b] == zeros for a, b, zeros in cls._ZEROS)

    @classmethod
    def offset_of(cls, name: str) -> int:
        """Byte offset of a field, for code that reads or writes it alone."""
        return cls.FIELDS[cls.NAMES.index(name)].offset

    def replace(self, **fields: int | bytes) -> Self:
        """A copy with the given fields changed."""
        values: dict[str, int | bytes] = {name: getattr(self, name) for name in self.NAMES}
        values.update(fields)
        return type(self)(**values)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.pack() == self.pack()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.pack()))

    def __repr__(self) -> str:
        parts = []
        for field in self.FIELDS:
            value = getattr(self, field.name)
            if value and not (isinstance(value, bytes) and not any(value)):
                text = f"{value:#x}" if field.integer else value.hex()
                parts.append(f"{field.name}={text}")
        return f"{type(self).__name__}({', '.join(parts)})"


def _gaps(name: str, fields: tuple[Field, ...], size: int) -> tuple[tuple[int, int], ...]:
    """The byte ranges that no field covers. Fields must be in order and inside the structure."""
    gaps, end = [], 0
    for field in fields:
        assert field.offset >= end, f"{name}.{field.name}: overlaps or is out of order"
        if field.offset > end:
            gaps.append((end, field.offset))
        end = field.end
    assert end <= size, f"{name}: fields end at {end}, past its {size} bytes"
    if end < size:
        gaps.append((end, size))
    return tuple(gaps)


def _format(fields: tuple[Field, ...], size: int) -> str:
    codes, end = ["<"], 0
    for field in fields:
        if field.offset > end:
            codes.append(f"{field.offset - end}x")
        codes.append(_INTEGER_CODES[field.width] if field.integer else f"{field.width}s")
        end = field.end
    if end < size:
        codes.append(f"{size - end}x")
    return "".join(codes)


def _compile(cls: type[Structure]) -> None:
    """Generate `pack` and `unpack`: a loop over the fields would be four times slower."""
    targets = ", ".join(f"o.{name}" for name in cls.NAMES) + ","
    values = ", ".join(f"self.{name}" for name in cls.NAMES)
    source = (
        f"def unpack(data):\n    o = new(cls)\n    {targets} = decode(data)\n    return o\n"
        f"def pack(self):\n    return encode({values})\n"
    )
    space: dict[str, Any] = {
        "new": cls.__new__,
        "cls": cls,
        "decode": cls.S.unpack,
        "encode": cls.S.pack,
    }
    exec(compile(source, f"<{cls.__name__}>", "exec"), space)
    cls.unpack = staticmethod(space["unpack"])  # type: ignore[method-assign]
    cls.pack = space["pack"]  # type: ignore[method-assign]


def _check_value(owner: str, field: Field, value: object) -> None:
    if field.integer:
        if not isinstance(value, int):
            raise TypeError(f"{owner}.{field.name}: an integer is needed, not {value!r}")
        if not 0 <= value < 1 << 8 * field.width:
            raise ValueError(f"{owner}.{field.name}: {value:#x} does not fit {field.width} bytes")
    elif not isinstance(value, bytes | bytearray):
        raise TypeError(f"{owner}.{field.name}: bytes are needed, not {value!r}")
    elif len(value) != field.width:
        raise ValueError(f"{owner}.{field.name}: {len(value)} bytes given, {field.width} needed")
