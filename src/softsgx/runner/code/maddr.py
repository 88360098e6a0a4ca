"""The exact address of a page fault: EXINFO.MADDR. SDM 3D, 38.9.2.1 "EXINFO Structure".

The emulator reports only the page of an access that it cannot translate; the offset comes from
decoding the instruction.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Protocol

from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.code.disassembler import Code, Instruction
from softsgx.runner.code.encoding import LONGEST
from softsgx.spec.bits import MASK64, PAGE_MASK
from softsgx.spec.registers import RDI, RIP, RSP

_NAMES: Final = (
    *"rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(),
    "rflags",
    "rip",
)
_LOW32: Final = dict(
    zip(
        "eax ecx edx ebx esp ebp esi edi r8d r9d r10d r11d r12d r13d r14d r15d".split(),
        range(16),
        strict=True,
    )
)
# Instructions whose first operand is only read.
_READS: Final = re.compile(
    r"cmp(?!xchg)|test|push|call|jmp|bt$|mul$|imul$|i?div$|prefetch|clflush|clwb|clzero|nop"
    r"|v?ldmxcsr|fxrstor|xrstor|fi?ld|fbld|fi?(add|sub|mul|div|com)|frstor|scas|lods|outs|verr|verw"
)
_PUSHES: Final = ("push", "call", "enter")
_MEMORY: Final = re.compile(r"(?:(\w+) ptr )?(?:([c-gs]s):)?\[([^\]]*)\]")
_TERMS: Final = re.compile(r"([+-]?) ?([\w*]+)")
_REMEMBERED: Final = 1024  # instructions
# Stores to [RDI], which the disassembler does not print.
_MASKED: Final = ("maskmov", "vmaskmovdqu")
_SIZES: Final = {
    "byte": 1,
    "word": 2,
    "dword": 4,
    "fword": 6,
    "qword": 8,
    "tbyte": 10,
    "xword": 10,
    "xmmword": 16,
    "ymmword": 32,
    "zmmword": 64,
}


class Registers(Protocol):
    """Registers of a logical processor or of a host thread; `regs` in the order of lp.regs."""

    @property
    def regs(self) -> list[int]:
        """RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15, RFLAGS, RIP."""

    @property
    def fsbase(self) -> int:
        """The base of FS."""

    @property
    def gsbase(self) -> int:
        """The base of GS."""


def exact_address(lp: Registers, code: bytes, page: int) -> int:
    """The first byte in `page` that the instruction `code` at RIP accesses; `page` if unknown."""
    for start, size, _ in memory_operands(lp, code) or ():
        start &= MASK64
        last = (start + max(size, 1) - 1) & MASK64
        if start & ~PAGE_MASK == page:
            return start
        if last & ~PAGE_MASK == page:
            return page
    return page


def memory_operands(lp: Registers, code: bytes) -> list[tuple[int, int, int]] | None:
    """Address, size, and access (READ or WRITE) of the memory that the instruction accesses.

    An operand that is read and written counts as a write, as on the processor. None if `code` is
    not an instruction, or only a part of one.
    """
    rip = lp.regs[RIP]
    found = _first(code)
    if found is None:
        return None
    mnemonic = found.mnemonic.split()[-1]
    # Only the first operand is ever written.
    access = READ if _READS.match(mnemonic) else WRITE
    out = []
    for operand in found.operands.split(", "):
        memory = _MEMORY.search(operand)
        if memory is not None:
            address = _effective(lp, memory[2] or "", memory[3], rip + found.size)
            out.append((address, _SIZES.get(memory[1] or "", 0), access))
        access = READ
    rsp = lp.regs[RSP]
    if mnemonic.startswith(_PUSHES):
        out.append((rsp - 8, 8, WRITE))
    elif mnemonic.startswith(("pop", "ret", "leave")):
        out.append((rsp, 8, READ))
    elif mnemonic.startswith(_MASKED):
        out.append((lp.regs[RDI], 16, WRITE))
    return out


@lru_cache(_REMEMBERED)
def _first(code: bytes) -> Instruction | None:
    """The instruction; its memory operands do not depend on where it is."""
    return Code(code, 0).first()


def access_kind(lp: Registers, code: bytes, address: int, fetchable: bool = False) -> int:
    """READ, WRITE or FETCH: the access at `address` by the instruction `code` at RIP.

    `code` is the part of the instruction that can be fetched; `fetchable` says whether code can be
    fetched from the page of `address`.
    """
    rip = lp.regs[RIP]
    operands = memory_operands(lp, code)
    if operands is None:
        # Only a part of the instruction can be fetched.
        return FETCH if rip < address < rip + LONGEST and not fetchable else READ
    page = address & ~PAGE_MASK
    kinds = {kind for start, size, kind in operands if (address - start) & MASK64 < max(size, 1)}
    if not kinds and rip <= address < rip + LONGEST:
        # The page was unmapped for a moment, while rights were added for another thread.
        return FETCH
    if not kinds:
        kinds = {kind for start, size, kind in operands if _touches(start, size, page)}
    if not kinds:
        kinds = {kind for _, _, kind in operands}
    return WRITE if WRITE in kinds else READ


def _touches(start: int, size: int, page: int) -> bool:
    last = (start + max(size, 1) - 1) & MASK64
    return start & ~PAGE_MASK == page or last & ~PAGE_MASK == page


def _effective(lp: Registers, segment: str, text: str, following: int) -> int:
    """The address in brackets, as the disassembler writes it."""
    address = {"fs": lp.fsbase, "gs": lp.gsbase}.get(segment, 0)
    for sign, term in _TERMS.findall(text):
        name, _, scale = term.partition("*")
        value = following if name == "rip" else _value(lp, name)
        address += (-value if sign == "-" else value) * int(scale or 1)
    return address & MASK64


def _value(lp: Registers, name: str) -> int:
    if name[0].isdigit():
        return int(name, 0)
    if name in _LOW32:
        return lp.regs[_LOW32[name]] & 0xFFFFFFFF
    return lp.regs[_NAMES.index(name)] if name in _NAMES else 0
