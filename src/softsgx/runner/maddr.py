"""The exact address of a page fault: EXINFO.MADDR. SDM 3D, "EXINFO".

The emulator knows the page of an access that it cannot translate. The instruction says the rest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from softsgx.mem.tlb import READ, WRITE
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
_decoder: list[Any] = []


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
    """Address, size, and access (1 read, 2 write) of what the instruction touches.

    One that reads and writes counts as a write, as on the processor.

    None if it is no instruction, or not all of it.
    """
    import capstone  # type: ignore[import-untyped]
    from capstone import x86

    if not _decoder:
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        decoder.detail = True
        _decoder.append(decoder)
    found = next(_decoder[0].disasm(code, lp.regs[RIP], 1), None)
    if found is None:
        return None
    # The decoder takes vector stores for reads; but what is written is always the first operand.
    first = READ if _READS.match(found.mnemonic.split()[-1]) else WRITE
    out = [
        (_effective(lp, found, operand.mem), operand.size, READ if n else first)
        for n, operand in enumerate(found.operands)
        if operand.type == x86.X86_OP_MEM
    ]
    rsp = lp.regs[RSP]
    if found.mnemonic.startswith(_PUSHES):
        out.append((rsp - 8, 8, WRITE))
    elif found.mnemonic.startswith(("pop", "ret", "leave")):
        out.append((rsp, 8, READ))
    return out


def _effective(lp: LogicalProcessor, found: Any, mem: Any) -> int:
    address = int(mem.disp)
    if mem.base:
        name = found.reg_name(mem.base)
        address += lp.regs[RIP] + found.size if name == "rip" else _value(lp, name)
    if mem.index:
        address += _value(lp, found.reg_name(mem.index)) * mem.scale
    if mem.segment:
        segment = found.reg_name(mem.segment)
        address += {"fs": lp.fsbase, "gs": lp.gsbase}.get(segment, 0)
    return address & MASK64


def _value(lp: LogicalProcessor, name: str) -> int:
    if name in _LOW32:
        return lp.regs[_LOW32[name]] & 0xFFFFFFFF
    return lp.regs[_NAMES.index(name)] if name in _NAMES else 0
