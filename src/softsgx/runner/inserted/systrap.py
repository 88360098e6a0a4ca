"""The image of the stub without a tracer, as it is mapped at SYSTRAP_CODE, and its labels."""

from base64 import b85decode
from functools import cache
from typing import Final
from zlib import decompress

from softsgx.runner.inserted.systrap_code import IMAGE, LABELS
from softsgx.runner.inserted.systrap_layout import (
    BLOCK_STRIDE,
    RECORD_AT,
    RECORD_STRIDE,
    RECORDS,
    RECORDS_MAX,
    SYSTRAP_BLOCKS,
    SYSTRAP_CODE,
    SYSTRAP_CODE_SIZE,
)

# syscall; mov rcx, [rip + distance of the record's NEXT]; jmp rcx
_BLOCK: Final = (b"\x0f\x05\x48\x8b\x0d", b"\xff\xe1")
_BLOCK_LOADED: Final = len(_BLOCK[0]) + 4


def address(label: str) -> int:
    """The address of a label of systrap.S or systrap.c."""
    return SYSTRAP_CODE + LABELS[label]


def _block(record: int) -> bytes:
    start = SYSTRAP_BLOCKS + record * BLOCK_STRIDE
    word = RECORDS + record * RECORD_STRIDE + RECORD_AT["NEXT"]
    distance = word - (start + _BLOCK_LOADED)
    code = distance.to_bytes(4, "little", signed=True).join(_BLOCK)
    return code.ljust(BLOCK_STRIDE, b"\xcc")


@cache
def image() -> bytes:
    """Everything at SYSTRAP_CODE: the code, then a block for each record; gaps are int3."""
    code = decompress(b85decode("".join(IMAGE))).ljust(SYSTRAP_CODE_SIZE, b"\xcc")
    return code + b"".join(_block(record) for record in range(RECORDS_MAX))
