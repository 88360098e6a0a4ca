"""The instructions that the supervisor executes for a thread, against the emulator."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any

import pytest

from softsgx.runner.native.instructions import Decoded, decode
from softsgx.spec.msr import RFLAGS_AF, RFLAGS_FIXED, RFLAGS_STATUS
from softsgx.spec.registers import REGISTER_NAMES, RFLAGS, RIP, RSP

unicorn: Any = import_module("unicorn")
x86: Any = import_module("unicorn.x86_const")

CODE, DATA, SIZE = 0x10000, 0x20000, 0x1000
FS, GS = 0x100, 0x40
REGISTERS = [getattr(x86, f"UC_X86_REG_{name}") for name in REGISTER_NAMES]
ARITHMETIC = (0x01, 0x03, 0x11, 0x13, 0x19, 0x1B, 0x29, 0x2B, 0x39, 0x3B)
LOGIC = (0x09, 0x0B, 0x21, 0x23, 0x31, 0x33, 0x85)  # AF is undefined


class Outside(Exception):
    """An access that the machine refuses."""


class Machine:
    """Registers, and one piece of memory."""

    def __init__(self, regs: list[int], data: bytes) -> None:
        self.regs = list(regs)
        self.data = bytearray(data)

    def _at(self, address: int, size: int) -> int:
        if not DATA <= address <= DATA + SIZE - size:
            raise Outside
        return address - DATA

    def load(self, address: int, size: int) -> int:
        at = self._at(address, size)
        return int.from_bytes(self.data[at : at + size], "little")

    def store(self, address: int, data: bytes) -> None:
        at = self._at(address, len(data))
        self.data[at : at + len(data)] = data

    def base(self, segment: int) -> int:
        return FS if segment == 0x64 else GS

    def xmm(self, number: int) -> bytes:
        return bytes([number]) * 16


def step(machine: Machine, code: bytes) -> Decoded | None:
    """Execute one instruction at RIP."""
    rip = machine.regs[RIP]
    found = decode(code, rip)
    if found is not None:
        target = found.act(machine)
        machine.regs[RIP] = rip + found.size if target is None else target
    return found


class Emulator:
    """The same in the emulator."""

    def __init__(self) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.uc.mem_map(CODE, DATA - CODE + SIZE)
        self.uc.reg_write(x86.UC_X86_REG_FS_BASE, FS)
        self.uc.reg_write(x86.UC_X86_REG_GS_BASE, GS)
        for number in range(16):
            value = int.from_bytes(bytes([number]) * 16, "little")
            self.uc.reg_write(x86.UC_X86_REG_XMM0 + number, value)

    def step(self, regs: list[int], data: bytes, code: bytes) -> tuple[list[int], bytes]:
        """Execute one instruction: registers and data afterwards."""
        uc = self.uc
        uc.mem_write(regs[RIP], code)  # each elsewhere: the emulator keeps what it has translated
        uc.mem_write(DATA, data)
        for number, value in zip(REGISTERS, regs, strict=True):
            uc.reg_write(number, value)
        try:
            uc.emu_start(regs[RIP], 0, count=1)
        except unicorn.UcError as error:
            if error.errno != unicorn.UC_ERR_FETCH_UNMAPPED:  # of the next one
                raise
        return [uc.reg_read(number) for number in REGISTERS], bytes(uc.mem_read(DATA, SIZE))


def operand(rng: random.Random) -> bytes:
    """ModRM, and SIB and displacement."""
    mod, reg, rm = rng.randrange(4), rng.randrange(8), rng.randrange(8)
    found = bytes([mod << 6 | reg << 3 | rm])
    base = rm
    if mod < 3 and rm == 4:
        sib = rng.randrange(256)
        found += bytes([sib])
        base = sib & 7
    if mod == 1:
        return found + rng.randrange(256).to_bytes(1, "little")
    if mod == 2 or (mod == 0 and base == 5):
        return found + rng.randrange(-64, DATA - CODE + 64).to_bytes(4, "little", signed=True)
    return found


def immediate(rng: random.Random, size: int) -> bytes:
    return rng.choice(
        [rng.randbytes(size), bytes(size), b"\xff" * size, b"\x01".ljust(size, b"\0")]
    )


def instruction(rng: random.Random) -> bytes:
    """One of those that are executed, or nearly one."""
    prefix = rng.choice([b"", b"", b"", b"\x64", b"\x65", b"\x66", b"\xf3"])
    rex = bytes([0x40 | rng.randrange(16)]) if rng.random() < 0.7 else b""
    kind = rng.randrange(9)
    if kind == 0:
        opcode = rng.choice([*ARITHMETIC, *LOGIC])
        return prefix + rex + bytes([opcode]) + operand(rng)
    if kind == 1:
        return prefix + rex + bytes([rng.choice([0x89, 0x8B, 0x8D, 0xFF])]) + operand(rng)
    if kind == 2:
        opcode = rng.choice([0x81, 0x83, 0xC7])
        size = 1 if opcode == 0x83 else 4
        return prefix + rex + bytes([opcode]) + operand(rng) + immediate(rng, size)
    if kind == 3:
        return rex + bytes([rng.randrange(0x50, 0x60)])
    if kind == 4:
        return rex + bytes([rng.randrange(0xB8, 0xC0)]) + immediate(rng, 8 if rex else 4)
    if kind == 5:
        long = bytes([0x0F, rng.randrange(0x80, 0x90)]) + immediate(rng, 4)
        return rng.choice([bytes([rng.randrange(0x70, 0x80)]) + immediate(rng, 1), long])
    if kind == 6:
        store = rng.choice(
            [b"\x0f\x11", b"\x0f\x29", b"\x66\x0f\x7f", b"\xf3\x0f\x7f", b"\x66\x0f\x11"]
        )
        body = store[-2:] + operand(rng)
        return store[:-2] + rex + body
    if kind == 7:
        return prefix + rex + bytes([0x0F, rng.randrange(0x40, 0x50)]) + operand(rng)
    return rng.choice(
        [
            b"\xc3",
            b"\xe8" + rng.randbytes(4),
            b"\xe9" + rng.randbytes(4),
            b"\xeb\x10",
            b"\x90",
            b"\x66\x90",
            b"\x0f\x1f" + operand(rng),
            b"\xf3\x0f\x1e\xfa",
        ]
    )


def registers(rng: random.Random, rip: int) -> list[int]:
    """Most are addresses of the data, some are not, or are small."""
    values = [0, 1, 8, (1 << 64) - 8, (1 << 63) - 1, 1 << 31, (1 << 32) - 1, rng.getrandbits(64)]
    near = [DATA + rng.randrange(8, SIZE, 8) for _ in range(14)]
    regs = [rng.choice(near + values) for _ in range(16)]
    regs[RSP] = DATA + rng.randrange(8, SIZE - 8)
    flags = RFLAGS_FIXED | rng.getrandbits(12) & RFLAGS_STATUS
    return [*regs, flags, rip]


@pytest.mark.parametrize("seed", range(4))
def test_each_does_what_the_emulator_does(seed: int) -> None:
    rng, emulator = random.Random(seed), Emulator()
    compared = 0
    for n in range(500):
        code, data = instruction(rng), rng.randbytes(SIZE)
        regs = registers(rng, CODE + 64 * n)
        machine = Machine(regs, data)
        try:
            if step(machine, code.ljust(15, b"\xcc")) is None:
                continue
        except Outside:
            assert machine.regs == regs, code.hex()
            assert machine.data == data, code.hex()
            continue
        expected, memory = emulator.step(regs, data, code)
        undefined = RFLAGS_AF if _is_logic(code) else 0
        machine.regs[RFLAGS] &= ~undefined
        expected[RFLAGS] &= ~undefined
        assert (code.hex(), machine.regs) == (code.hex(), expected)
        assert machine.data == memory, code.hex()
        compared += 1
    assert compared > 150


def _is_logic(code: bytes) -> bool:
    body = code.lstrip(bytes([0x64, 0x65, *range(0x40, 0x50)]))
    if body[0] in (0x81, 0x83):
        return body[1] >> 3 & 7 in (1, 4, 6)
    return body[0] in LOGIC


@pytest.mark.parametrize(
    "code",
    ["f00108", "f390", "c5f81100", "66894000", "480fb1", "0f01d7", "ff20", "0f05", "f2c3"],
    ids=["lock", "pause", "vex", "word", "cmpxchg", "enclu", "jmp", "syscall", "bnd"],
)
def test_what_is_none_of_them(code: str) -> None:
    assert decode(bytes.fromhex(code).ljust(15, b"\0"), CODE) is None


def test_an_instruction_that_is_cut_off_is_none() -> None:
    assert decode(bytes.fromhex("48c78550ffffff0b"), CODE) is None
    assert decode(b"", CODE) is None
