"""Instructions that enclaves must not execute: #UD. SDM 3D, 39.6.1 "Illegal Instructions".

The emulator executes some of them as if they were legal, and VEX forms, XOP, TSX and WAITPKG, which
it does not know, as other instructions. Each block of code is scanned once, before it first runs.
Bytes that cannot be decoded are illegal as well.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from softsgx.runner.code.encoding import LEGACY_PREFIXES

# Blocks without any of these bytes need no decoding.
_SUSPECT: Final = re.compile(
    rb"[\x6c-\x6f\x8e\x8f\x9a\xc4\xc5\xca-\xcf\xe4-\xe7\xea\xec-\xf1]"
    rb"|\xff[\x18-\x1f\x28-\x2f\x58-\x5f\x68-\x6f\x98-\x9f\xa8-\xaf]"
    rb"|[\xc6\xc7][\x08-\x3f\x48-\x7f\x88-\xbf\xc8-\xff]"
    rb"|\x0f[\x00\x01\x05\x07\x31\x33-\x35\x37\xa1\xa2\xa9\xae\xb2\xb4\xb5]",
    re.DOTALL,
)
_ILLEGAL: Final = frozenset(
    "cpuid getsec rdpmc sgdt sidt sldt str vmcall vmfunc smsw in out insb insw insd outsb outsw "
    "outsd lcall ljmp retf retfq int into iret iretd iretq lss lfs lgs lds les syscall sysenter "
    "sysexit sysret sysexitq sysretq int1 int3".split()
)
_ABSENT: Final = frozenset({"umonitor", "umwait", "tpause"})
_SGX1_ILLEGAL: Final = frozenset({"rdtsc", "rdtscp"})
# VEX forms that use general registers only: they need no AVX state.
_BMI: Final = frozenset(
    "andn bextr blsi blsmsk blsr bzhi mulx pdep pext rorx sarx shlx shrx".split()
)
# CALL and JMP through memory to another segment; the decoder gives near and far the same name.
_FAR: Final = (3, 5)
# Opcodes that have only one form without XOP (POP) and TSX (MOV).
_ONE_FORM: Final = (0x8F, 0xC6, 0xC7)
_SEGMENTS: Final = ("ds", "es", "ss", "fs", "gs", "cs")


class Illegal(NamedTuple):
    """The first instruction of a block that must not execute: its offset and name."""

    offset: int
    name: str


class Scanner:
    """Finds illegal instructions. `sgx1` adds those that are illegal only without SGX2."""

    def __init__(self, sgx1: bool = False) -> None:
        self._illegal = _ILLEGAL | _ABSENT | (_SGX1_ILLEGAL if sgx1 else frozenset())
        self._decoder: Any = None

    def first(self, code: bytes, address: int) -> Illegal | None:
        """The first illegal instruction of a block of code at `address`."""
        if _SUSPECT.search(code) is None:
            return None
        if self._decoder is None:
            import capstone  # type: ignore[import-untyped]

            self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        end = 0
        for at, size, name, operands in self._decoder.disasm_lite(code, address):
            if self._refused(code[at - address : at - address + size], name, operands):
                return Illegal(at - address, name)
            end = at - address + size
        return Illegal(end, "undefined") if end < len(code) else None

    def _refused(self, code: bytes, name: str, operands: str) -> bool:
        word = name.split()[-1]
        if illegal(word, operands, self._illegal):
            return True
        at = next((n for n, byte in enumerate(code) if byte not in LEGACY_PREFIXES), 0)
        if code[at] & 0xF0 == 0x40:
            at += 1  # REX
        opcode, register = code[at], code[at + 1] >> 3 & 7 if at + 1 < len(code) else 0
        if opcode in (0xC4, 0xC5):
            return word not in _BMI
        if opcode == 0xFF:
            return register in _FAR
        return opcode in _ONE_FORM and register != 0


def illegal(name: str, operands: str, names: frozenset[str] = _ILLEGAL) -> bool:
    """Whether enclaves must not execute this instruction, whatever the processor would do."""
    if name in names:
        return True
    return name in ("mov", "pop") and operands.split(",")[0] in _SEGMENTS
