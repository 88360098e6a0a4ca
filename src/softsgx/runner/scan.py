"""Instructions that enclaves must not execute: #UD. SDM 3D, "Enclave Code Execution", isa 8.

The emulator executes some of them as if they were legal, and VEX forms as if they were SSE. Each
block of code is looked at once, before it runs for the first time.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

# Blocks without any of these bytes need no decoding.
_SUSPECT: Final = re.compile(
    rb"[\x6c-\x6f\x8e\x9a\xc4\xc5\xca\xcb\xcc\xcd\xce\xcf\xe4-\xe7\xea\xec-\xef\xf1\xff]"
    rb"|\x0f[\x00\x01\x05\x07\x31\x33-\x35\x37\xa1\xa2\xa9\xb2\xb4\xb5]",
)
_ILLEGAL: Final = frozenset(
    "cpuid getsec rdpmc sgdt sidt sldt str vmcall vmfunc smsw in out insb insw insd outsb outsw "
    "outsd lcall ljmp retf retfq int into iret iretd iretq lss lfs lgs lds les syscall sysenter "
    "sysexit sysret sysexitq sysretq int1 int3".split()
)
_SGX1_ILLEGAL: Final = frozenset({"rdtsc", "rdtscp"})
# VEX forms that use general registers only: they need no AVX state.
_BMI: Final = frozenset(
    "andn bextr blsi blsmsk blsr bzhi mulx pdep pext rorx sarx shlx shrx".split()
)
_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_SEGMENTS: Final = ("ds", "es", "ss", "fs", "gs", "cs")


class Illegal(NamedTuple):
    """The first instruction of a block that must not execute: its offset and name."""

    offset: int
    name: str


class Scanner:
    """Finds illegal instructions. `sgx1` adds those that only parts without SGX2 refuse."""

    def __init__(self, sgx1: bool = False) -> None:
        self._illegal = _ILLEGAL | (_SGX1_ILLEGAL if sgx1 else frozenset())
        self._decoder: Any = None

    def first(self, code: bytes, address: int) -> Illegal | None:
        """The first illegal instruction of a block of code at `address`."""
        if _SUSPECT.search(code) is None:
            return None
        if self._decoder is None:
            import capstone  # type: ignore[import-untyped]

            self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        for at, size, name, operands in self._decoder.disasm_lite(code, address):
            if self._refused(code[at - address : at - address + size], name, operands):
                return Illegal(at - address, name)
        return None

    def _refused(self, code: bytes, name: str, operands: str) -> bool:
        words = name.split()
        if illegal(words[-1], operands, self._illegal):
            return True
        first = next((byte for byte in code if byte not in _PREFIXES), 0)
        return first in (0xC4, 0xC5) and words[-1] not in _BMI


def illegal(name: str, operands: str, names: frozenset[str] = _ILLEGAL) -> bool:
    """Whether enclaves must not execute this instruction, whatever the processor says to it."""
    if name in names:
        return True
    if name == "mov" and operands.split(",")[0] in _SEGMENTS:
        return True
    return name == "pop" and operands in _SEGMENTS
