"""Reads protobuf messages without their schema: field number -> values, in order."""

from __future__ import annotations

Value = int | bytes
Message = dict[int, list[Value]]


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def read(raw: bytes) -> Message:
    """A message. Varints and length-delimited fields; anything else is an error."""
    found: Message = {}
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        value: Value
        if key & 7 == 0:
            value, at = _varint(raw, at)
        elif key & 7 == 2:
            length, at = _varint(raw, at)
            value, at = raw[at : at + length], at + length
            assert len(value) == length, "a field ends past its message"
        else:
            raise AssertionError(f"wire type {key & 7} at {at}")
        found.setdefault(key >> 3, []).append(value)
    return found


def number(message: Message, field: int) -> int:
    """The only value of an integer field."""
    (value,) = message[field]
    assert isinstance(value, int)
    return value


def text(message: Message, field: int) -> str:
    """The only value of a string field."""
    return inner(message, field).decode()


def inner(message: Message, field: int) -> bytes:
    """The only value of a string, bytes or message field."""
    (value,) = message[field]
    assert isinstance(value, bytes)
    return value
