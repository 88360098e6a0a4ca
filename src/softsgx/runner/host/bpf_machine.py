"""Classic BPF programs over struct seccomp_data as the kernel checks and executes them.

Linux 6.12, net/core/filter.c, bpf_check_classic, bpf_convert_filter; kernel/seccomp.c,
seccomp_check_filter.
"""

from __future__ import annotations

import operator
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.host.abi import BPF_MAXINSNS
from softsgx.spec.bits import MASK32

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INSTRUCTION: Final = struct.Struct("<HBBI")
DATA_SIZE: Final = 64  # sizeof(struct seccomp_data)
_WORDS: Final = struct.Struct("<16I")
_MEMORY_WORDS: Final = 16

# Classes, the low three bits of a code.
_LD, _LDX, _ST, _STX, _ALU, _JMP, RET, _MISC = range(8)
# What LD and LDX load.
LD_ABS: Final = 0x20
_IMM, _MEM, _LEN = 0x00, 0x60, 0x80
LDX_IMM: Final = _LDX | _IMM
JA: Final = 0x05
RET_K: Final = 0x06
RET_A: Final = 0x16
TAX: Final = 0x07
TXA: Final = 0x87
_X: Final = 0x08  # the operand of ALU and JMP is X, not k
_DIV, _LSH, _RSH = 0x30, 0x60, 0x70

_RESULT: Final[dict[int, Callable[[int, int], int]]] = {
    0x00: operator.add,
    0x10: operator.sub,
    0x20: operator.mul,
    _DIV: operator.floordiv,
    0x40: operator.or_,
    0x50: operator.and_,
    _LSH: lambda a, by: a << (by & 31),
    _RSH: lambda a, by: a >> (by & 31),
    0x80: lambda a, _: -a,
    0xA0: operator.xor,
}
_HOLDS: Final[dict[int, Callable[[int, int], bool]]] = {
    0x10: operator.eq,
    0x20: operator.gt,
    0x30: operator.ge,
    0x40: lambda a, b: bool(a & b),
}
AND_K: Final = _ALU | 0x50
CONDITIONS_K: Final = {_JMP | op: holds for op, holds in _HOLDS.items()}
"""Jumps that compare A with k."""
_NEG: Final = 0x84
_CODES: Final = frozenset(
    (
        *(LD_ABS, _LD | _IMM, _LD | _MEM, 0x80, LDX_IMM, _LDX | _MEM, 0x81),
        *(_ST, _STX, RET_K, RET_A, TAX, TXA, JA, _NEG),
        *(_ALU | op | x for op in _RESULT if op != 0x80 for x in (0, _X)),
        *(_JMP | op | x for op in _HOLDS for x in (0, _X)),
    )
)


class Instruction(NamedTuple):
    """struct sock_filter: `yes` and `no` are jt and jf."""

    code: int
    yes: int
    no: int
    k: int


Filter = tuple[Instruction, ...]


def decoded(raw: bytes) -> Filter:
    """The instructions of an array of struct sock_filter."""
    return tuple(Instruction(*fields) for fields in INSTRUCTION.iter_unpack(raw))


def encoded(program: Sequence[Instruction]) -> bytes:
    """The array of struct sock_filter."""
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


def accepted(program: Filter) -> bool:
    """Whether the kernel takes the program as a filter; if not, it answers -EINVAL."""
    if not 0 < len(program) <= BPF_MAXINSNS:
        return False
    after = [len(program) - at - 1 for at in range(len(program))]
    if not all(_valid(i, left) for i, left in zip(program, after, strict=True)):
        return False
    return program[-1].code in (RET_K, RET_A) and _stores_before_loads(program)


def _valid(instruction: Instruction, after: int) -> bool:
    """One instruction alone; `after` instructions follow it."""
    code, yes, no, k = instruction
    if code not in _CODES:
        return False
    if code == LD_ABS:
        return k < DATA_SIZE and not k & 3
    if code == JA:
        return k < after
    if code & 7 == _JMP:
        return max(yes, no) < after
    if code == _ALU | _DIV:
        return k != 0
    if code in (_ALU | _LSH, _ALU | _RSH):
        return k < 32
    if code in (_ST, _STX, _LD | _MEM, _LDX | _MEM):
        return k < _MEMORY_WORDS
    return True


def _stores_before_loads(program: Filter) -> bool:
    """Whether every word of memory is stored on every way to a load of it.

    check_load_and_stores. As there, after an instruction that does not go on to the next one, only
    jumps count.
    """
    masks = [-1] * len(program)
    stored = 0
    for at, (code, yes, no, k) in enumerate(program):
        stored &= masks[at]
        if code in (_ST, _STX):
            stored |= 1 << k
        elif code in (_LD | _MEM, _LDX | _MEM):
            if not stored >> k & 1:
                return False
        elif code & 7 == _JMP:
            for jump in (k,) if code == JA else (yes, no):
                masks[at + 1 + jump] &= stored
            stored = -1
    return True


def execute(program: Filter, data: bytes) -> int:
    """What an accepted filter returns for struct seccomp_data."""
    words = _WORDS.unpack(data)
    memory = [0] * _MEMORY_WORDS
    a = x = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        kind = code & 7
        if code == LD_ABS:
            a = words[k >> 2]
        elif kind == _JMP:
            if code == JA:
                at += k
            else:
                at += yes if _HOLDS[code & 0xF0](a, x if code & _X else k) else no
        elif kind == RET:
            return a if code == RET_A else k
        elif kind == _ALU:
            by = x if code & _X else k
            if code & 0xF0 == _DIV and not by:
                return 0
            a = _RESULT[code & 0xF0](a, by) & MASK32
        elif kind == _LD:
            a = _loaded(code, k, memory)
        elif kind == _LDX:
            x = _loaded(code, k, memory)
        elif kind == _MISC:
            a, x = (a, a) if code == TAX else (x, x)
        else:
            memory[k] = a if kind == _ST else x


def _loaded(code: int, k: int, memory: list[int]) -> int:
    if code & 0xE0 == _MEM:
        return memory[k]
    return DATA_SIZE if code & 0xE0 == _LEN else k
