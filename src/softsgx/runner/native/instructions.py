"""The instructions that `ahead.py` executes: those of which loops around EACCEPT are made.

MOV, CMOVcc, LEA, PUSH, POP, the arithmetic of 32 and 64 bits with a register as destination, jumps,
CALL and RET, NOP, and stores of XMM registers. Anything else is left to the processor.
`tests/runner/native/test_instructions.py` holds them against the emulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from softsgx.spec.bits import MASK32, MASK64
from softsgx.spec.msr import (
    RFLAGS_AF,
    RFLAGS_CF,
    RFLAGS_OF,
    RFLAGS_PF,
    RFLAGS_SF,
    RFLAGS_STATUS,
    RFLAGS_ZF,
)
from softsgx.spec.registers import RBP, RFLAGS, RSP

_ADD, _OR, _ADC, _SBB, _AND, _SUB, _XOR, _CMP, _TEST, _INC, _DEC = range(11)
_LOGIC: Final = (_OR, _AND, _XOR, _TEST)
_ADDS: Final = (_ADD, _ADC, _INC)
_WITH_CARRY: Final = (_ADC, _SBB)
_KEEP_CARRY: Final = (_INC, _DEC)
# By bits 3 to 1 of a condition code: the flags of which one must be set. L and LE compare SF, OF.
_ANY_OF: Final = (RFLAGS_OF, RFLAGS_CF, RFLAGS_ZF, RFLAGS_CF | RFLAGS_ZF, RFLAGS_SF, RFLAGS_PF)
_LE: Final = 7


class Machine(Protocol):
    """Where instructions are executed. Loads and stores raise before anything has changed."""

    regs: list[int]

    def load(self, address: int, size: int) -> int:
        """Read an integer."""

    def store(self, address: int, data: bytes) -> None:
        """Write."""

    def base(self, segment: int) -> int:
        """The base of the segment with this prefix."""

    def xmm(self, number: int) -> bytes:
        """An XMM register."""


# Executes one instruction; the new RIP, or None if that is the next instruction.
Act = Callable[[Machine], int | None]
_Get = Callable[[Machine], int]


class Decoded(NamedTuple):
    """An instruction: `ends` if it goes elsewhere."""

    size: int
    act: Act
    ends: bool = False


class _Bytes:
    """The bytes of one instruction, read from left to right, and its prefixes."""

    def __init__(self, code: bytes, at: int) -> None:
        self.code = code
        self.at = at
        self.size = 0
        self.word = self.repeat = False
        self.segment = self.rex = 0
        byte = self.next()
        while byte in (0x66, 0xF3, 0x2E, 0x64, 0x65):
            self.word |= byte == 0x66
            self.repeat |= byte == 0xF3
            if byte in (0x64, 0x65):
                self.segment = byte
            byte = self.next()
        if byte & 0xF0 == 0x40:
            self.rex = byte
            byte = self.next()
        self.opcode = byte
        self.bits = 64 if self.rex & 8 else 32

    def next(self) -> int:
        """One byte; IndexError at the end."""
        self.size += 1
        return self.code[self.size - 1]

    def signed(self, size: int) -> int:
        """A signed integer."""
        found = self.code[self.size : self.size + size]
        if len(found) < size:
            raise IndexError
        self.size += size
        return int.from_bytes(found, "little", signed=True)


class _Operands:
    """ModRM and what follows: a register, and a register or a place in memory."""

    def __init__(self, b: _Bytes, immediate: int = 0) -> None:
        """`immediate`: bytes that follow and are not read yet."""
        modrm = b.next()
        self.b = b
        self.reg = modrm >> 3 & 7 | (b.rex & 4) << 1
        self.rm = modrm & 7 | (b.rex & 1) << 3
        self.in_memory = modrm < 0xC0
        self.address: _Get = lambda m: 0
        if self.in_memory:
            self._memory(modrm >> 6, modrm & 7, immediate)

    def _memory(self, mod: int, rm: int, immediate: int) -> None:
        b = self.b
        base, index, scale = rm | (b.rex & 1) << 3, 4, 0
        by_rip = mod == 0 and rm == RBP
        if rm == 4:
            sib = b.next()
            scale, index = sib >> 6, sib >> 3 & 7 | (b.rex & 2) << 2
            rm, base = sib & 7, sib & 7 | (b.rex & 1) << 3
        no_base = mod == 0 and rm == RBP
        offset = b.signed(1) if mod == 1 else b.signed(4) if mod == 2 or no_base else 0
        segment = b.segment
        if by_rip:
            offset += b.at + b.size + immediate

        def address(m: Machine) -> int:
            at = offset if no_base else m.regs[base] + offset
            if index != 4:
                at += m.regs[index] << scale
            return (at + m.base(segment) if segment else at) & MASK64

        self.address = address

    def get(self, bits: int) -> _Get:
        """What the register or place has."""
        size, rm, address = bits // 8, self.rm, self.address
        if self.in_memory:
            return lambda m: m.load(address(m), size)
        mask = (1 << bits) - 1
        return lambda m: m.regs[rm] & mask

    def put(self, get: _Get, bits: int) -> Act:
        """The act that puts a value there."""
        size, rm, address = bits // 8, self.rm, self.address
        if self.in_memory:
            return lambda m: m.store(address(m), get(m).to_bytes(size, "little"))

        return _to_register(rm, get)


def _to_register(number: int, get: _Get) -> Act:
    def act(m: Machine) -> None:
        m.regs[number] = get(m)

    return act


def _register(number: int, mask: int) -> _Get:
    return lambda m: m.regs[number] & mask


def decode(code: bytes, at: int) -> Decoded | None:
    """The instruction at the address `at`, where `code` begins; None if it is none of these."""
    try:
        b = _Bytes(code, at)
        found = _two_bytes(b) if b.opcode == 0x0F else _one_byte(b)
    except IndexError:
        return None
    if found is None:
        return None
    act, ends = found
    return Decoded(b.size, act, ends)


_Found = tuple[Act, bool] | None


def _nothing(m: Machine) -> None:
    return None


def _one_byte(b: _Bytes) -> _Found:
    opcode = b.opcode
    if opcode == 0x90 and not b.rex and not b.repeat:
        return _nothing, False
    if b.word or b.repeat:
        return None
    if opcode < 0x40 and opcode & 7 in (1, 3):
        return _arithmetic(b, opcode >> 3, to_register=opcode & 7 == 3)
    if opcode in (0x85, 0x89, 0x8B, 0x8D):
        return _two_operands(b)
    if opcode in (0x81, 0x83, 0xC7, 0xFF):
        return _with_group(b)
    if opcode & 0xF8 == 0xB8 and not (b.rex & 8):
        value = b.signed(4) & MASK32
        return _to_register(opcode & 7 | (b.rex & 1) << 3, lambda m: value), False
    if opcode & 0xF0 == 0x50:
        number = opcode & 7 | (b.rex & 1) << 3
        return (_pop(number) if opcode & 8 else _push(_register(number, MASK64))), False
    return _jump(b)


def _jump(b: _Bytes) -> _Found:
    opcode = b.opcode
    if opcode == 0xC3:
        return _ret, True
    if opcode & 0xF0 == 0x70:
        return _conditional(b, opcode & 15, b.signed(1)), True
    if opcode in (0xE8, 0xE9, 0xEB):
        target = b.signed(1 if opcode == 0xEB else 4) + b.at + b.size
        back = b.at + b.size
        push = _push(lambda m: back) if opcode == 0xE8 else _nothing

        def act(m: Machine) -> int:
            push(m)
            return target & MASK64

        return act, True
    return None


def _two_bytes(b: _Bytes) -> _Found:
    opcode = b.next()
    if opcode == 0x1F and not b.repeat:
        _Operands(b)
        return _nothing, False
    if opcode == 0x1E and b.repeat and b.next() == 0xFA:
        return _nothing, False  # ENDBR64
    if opcode & 0xF0 == 0x40 and not b.word and not b.repeat:
        return _conditional_move(b, opcode & 15), False
    store = (b.word, b.repeat) in {
        0x11: ((False, False), (True, False)),  # MOVUPS, MOVUPD
        0x29: ((False, False), (True, False)),  # MOVAPS, MOVAPD
        0x7F: ((True, False), (False, True)),  # MOVDQA, MOVDQU
    }.get(opcode, ())
    if store:
        return _store_xmm(b, aligned=opcode == 0x29 or (opcode == 0x7F and b.word))
    if opcode & 0xF0 == 0x80 and not b.word and not b.repeat:
        return _conditional(b, opcode & 15, b.signed(4)), True
    return None


def _store_xmm(b: _Bytes, *, aligned: bool) -> _Found:
    operands = _Operands(b)
    if not operands.in_memory:
        return None
    address, number = operands.address, operands.reg

    def act(m: Machine) -> None:
        at = address(m)
        # One that is not aligned is #GP: then `store` refuses the address.
        m.store(at if not aligned or not at % 16 else -1, m.xmm(number))

    return act, False


def _two_operands(b: _Bytes) -> _Found:
    operands, bits = _Operands(b), b.bits
    if b.opcode == 0x8D:
        if not operands.in_memory or b.segment:
            return None
        address, mask = operands.address, (1 << bits) - 1
        return _to_register(operands.reg, lambda m: address(m) & mask), False
    get = operands.get(bits)
    if b.opcode == 0x8B:
        return _to_register(operands.reg, get), False
    source = _register(operands.reg, (1 << bits) - 1)
    if b.opcode == 0x89:
        return operands.put(source, bits), False
    return _compute(_TEST, bits, -1, get, source), False


def _arithmetic(b: _Bytes, kind: int, *, to_register: bool) -> _Found:
    operands, bits = _Operands(b), b.bits
    first, second = operands.get(bits), _register(operands.reg, (1 << bits) - 1)
    if to_register:
        return _compute(kind, bits, operands.reg, second, first), False
    if operands.in_memory and kind != _CMP:
        return None
    return _compute(kind, bits, operands.rm, first, second), False


def _with_group(b: _Bytes) -> _Found:
    """An operation chosen by the register field of ModRM, most with an immediate."""
    size = {0x83: 1, 0xFF: 0}.get(b.opcode, 4)
    operands, bits = _Operands(b, size), b.bits
    kind = operands.reg
    if b.opcode == 0xFF:
        if operands.in_memory or kind > 1:
            return None
        return _compute(_DEC if kind else _INC, bits, operands.rm, operands.get(bits), _one), False
    value = b.signed(size) & ((1 << bits) - 1)
    if b.opcode == 0xC7:
        return (operands.put(lambda m: value, bits), False) if not kind else None
    if kind > _CMP or (operands.in_memory and kind != _CMP):
        return None
    return _compute(kind, bits, operands.rm, operands.get(bits), lambda m: value), False


def _one(m: Machine) -> int:
    return 1


def _push(get: _Get) -> Act:
    def act(m: Machine) -> None:
        at = m.regs[RSP] - 8 & MASK64
        m.store(at, get(m).to_bytes(8, "little"))
        m.regs[RSP] = at

    return act


def _pop(number: int) -> Act:
    def act(m: Machine) -> None:
        regs = m.regs
        value = m.load(regs[RSP], 8)
        regs[RSP] = regs[RSP] + 8 & MASK64
        regs[number] = value

    return act


def _ret(m: Machine) -> int:
    regs = m.regs
    target = m.load(regs[RSP], 8)
    regs[RSP] = regs[RSP] + 8 & MASK64
    return target


def _condition(code: int) -> Callable[[int], bool]:
    """Whether RFLAGS fulfil a condition code."""
    wanted = not code & 1
    kind = code >> 1

    def holds(flags: int) -> bool:
        if kind < len(_ANY_OF):
            return (flags & _ANY_OF[kind] != 0) == wanted
        less = (flags & RFLAGS_SF != 0) != (flags & RFLAGS_OF != 0)
        return (less or (kind == _LE and flags & RFLAGS_ZF != 0)) == wanted

    return holds


def _conditional(b: _Bytes, code: int, offset: int) -> Act:
    target = b.at + b.size + offset & MASK64
    holds = _condition(code)
    return lambda m: target if holds(m.regs[RFLAGS]) else None


def _conditional_move(b: _Bytes, code: int) -> Act:
    operands, bits = _Operands(b), b.bits
    get, number, mask = operands.get(bits), operands.reg, (1 << bits) - 1
    holds = _condition(code)

    def act(m: Machine) -> None:
        value = get(m)  # is read in any case
        regs = m.regs
        regs[number] = value if holds(regs[RFLAGS]) else regs[number] & mask

    return act


def _compute(kind: int, bits: int, to: int, first: _Get, second: _Get) -> Act:
    """`first` and `second`, and the flags of the result; to the register `to` unless that is -1."""
    mask, top = (1 << bits) - 1, bits - 1
    adds = kind in _ADDS
    keeps = to >= 0 and kind not in (_CMP, _TEST)
    cleared = RFLAGS_STATUS & ~RFLAGS_CF if kind in _KEEP_CARRY else RFLAGS_STATUS

    def act(m: Machine) -> None:
        a, b = first(m), second(m)
        flags = 0
        if kind in _LOGIC:
            result = a & b if kind in (_AND, _TEST) else a | b if kind == _OR else a ^ b
        else:
            carry = m.regs[RFLAGS] & RFLAGS_CF if kind in _WITH_CARRY else 0
            exact = a + b + carry if adds else a - b - carry
            result = exact & mask
            flags = RFLAGS_CF if exact != result and kind not in _KEEP_CARRY else 0
            flags |= (a ^ b ^ result) & RFLAGS_AF
            if ((a ^ result) & (b ^ result if adds else a ^ b)) >> top:
                flags |= RFLAGS_OF
        if not result:
            flags |= RFLAGS_ZF
        if result >> top:
            flags |= RFLAGS_SF
        if not (result & 0xFF).bit_count() & 1:
            flags |= RFLAGS_PF
        regs = m.regs
        regs[RFLAGS] = regs[RFLAGS] & ~cleared | flags
        if keeps:
            regs[to] = result

    return act
