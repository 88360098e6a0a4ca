"""The exact address of a page fault: EXINFO.MADDR. SDM 3D, "EXINFO".

The emulator knows the page of an access that it cannot translate. The instruction says the rest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from softsgx.mem.tlb import READ, WRITE
from softsgx.runner.disassembler import Code
from softsgx.spec.bits import MASK64, PAGE_MASK
from softsgx.spec.registers import RIP, RSP

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor

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


def exact_address(lp: LogicalProcessor, code: bytes, page: int) -> int:
    """The first byte that the instruction `code` at RIP accesses in `page`; `page` if unknown."""
    for start, size, _ in memory_operands(lp, code) or ():
        start &= MASK64
        last = (start + max(size, 1) - 1) & MASK64
        if start & ~PAGE_MASK == page:
            return start
        if last & ~PAGE_MASK == page:
            return page
    return page


def memory_operands(lp: LogicalProcessor, code: bytes) -> list[tuple[int, int, int]] | None:
    """Address, size, and access (READ or WRITE) of what the instruction touches.

    One that reads and writes counts as a write, as on the processor. None if it is no instruction,
    or not all of it.
    """
    rip = lp.regs[RIP]
    found = Code(code, rip).first()
    if found is None:
        return None
    mnemonic = found.mnemonic.split()[-1]
    # What is written is always the first operand.
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
    return out


def _effective(lp: LogicalProcessor, segment: str, text: str, following: int) -> int:
    """The address in brackets, as the disassembler writes it."""
    address = {"fs": lp.fsbase, "gs": lp.gsbase}.get(segment, 0)
    for sign, term in _TERMS.findall(text):
        name, _, scale = term.partition("*")
        value = following if name == "rip" else _value(lp, name)
        address += (-value if sign == "-" else value) * int(scale or 1)
    return address & MASK64


def _value(lp: LogicalProcessor, name: str) -> int:
    if name[0].isdigit():
        return int(name, 0)
    if name in _LOW32:
        return lp.regs[_LOW32[name]] & 0xFFFFFFFF
    return lp.regs[_NAMES.index(name)] if name in _NAMES else 0
