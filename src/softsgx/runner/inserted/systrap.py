"""The image of the stub without a tracer, as it is mapped at SYSTRAP_CODE, and its labels."""

from array import array
from base64 import b85decode
from functools import cache
from typing import Final
from zlib import decompress

from softsgx.runner.inserted.systrap_code import IMAGE, LABELS
from softsgx.runner.inserted.systrap_layout import (
    BLOCK_INT80,
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
# int 0x80; jmp [rip + distance of the record's NEXT]: RCX is no register of the kernel's there.
_INT80: Final = b"\xcd\x80\xff\x25"
_DISTANCE: Final = 4


def address(label: str) -> int:
    """The address of a label of systrap.S or systrap.c."""
    return SYSTRAP_CODE + LABELS[label]


def _blocks() -> bytes:
    """A block for each record, at its stride; the distances grow by a constant.

    The bytes of all distances are put in place four times, one at a time: 8192 blocks made one by
    one take 18 ms of every start.
    """
    call = _BLOCK[0] + bytes(_DISTANCE) + _BLOCK[1]
    int80 = _INT80 + bytes(_DISTANCE)
    block = (call.ljust(BLOCK_INT80, b"\xcc") + int80).ljust(BLOCK_STRIDE, b"\xcc")
    blocks = bytearray(block) * RECORDS_MAX
    step = RECORD_STRIDE - BLOCK_STRIDE
    for at in (len(_BLOCK[0]), BLOCK_INT80 + len(_INT80)):
        first = RECORDS + RECORD_AT["NEXT"] - (SYSTRAP_BLOCKS + at + _DISTANCE)
        distances = array("i", range(first, first + RECORDS_MAX * step, step)).tobytes()
        for byte in range(_DISTANCE):
            blocks[at + byte :: BLOCK_STRIDE] = distances[byte::_DISTANCE]
    return bytes(blocks)


@cache
def image() -> bytes:
    """Everything at SYSTRAP_CODE: the code, then a block for each record; gaps are int3."""
    code = decompress(b85decode("".join(IMAGE))).ljust(SYSTRAP_CODE_SIZE, b"\xcc")
    return code + _blocks()
