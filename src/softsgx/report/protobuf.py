"""The part of the protobuf wire format that writing a trace needs: varints and bytes.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from typing import Final

from softsgx.spec.bits import MASK64

_VARINT: Final = 0
_LENGTH: Final = 2


def varint(value: int) -> bytes:
    """A number in base 128, lowest digit first; negative numbers in 64-bit two's complement."""
    value &= MASK64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(field: int, value: int) -> bytes:
    """A field of type int32, int64, uint32, uint64, bool or enum."""
    return varint(field << 3 | _VARINT) + varint(value)


def data(field: int, value: bytes | str) -> bytes:
    """A field of type string, bytes or message."""
    raw = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | _LENGTH) + varint(len(raw)) + raw
