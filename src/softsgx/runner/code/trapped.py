"""ENCLU and CPUID that the processor refused, recognised by their bytes and not by the signal.

A processor without SGX answers ENCLU with #UD. One that has SGX, though a hypervisor may hide it,
executes ENCLU: outside an enclave that is #GP for most leaves, and #PF for EENTER and ERESUME, at
the last byte of the page at RBX. CPUID faulting makes CPUID #GP. All of these are seen here as
signals; having been executed is what proves that bytes are an instruction.
"""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from softsgx.linux.process import SI_KERNEL
from softsgx.runner.code.encoding import LEGACY_PREFIXES, LOCK, LONGEST
from softsgx.spec.leaves import ENCLS_OPCODE, ENCLU_OPCODE

ENCLU: Final = ENCLU_OPCODE
CPUID: Final = b"\x0f\xa2"
_UNDEFINED: Final = (b"\x0f\xff", b"\x0f\xb9", b"\x0f\x0b", ENCLS_OPCODE)
# Prefixes that do not change what CPUID does; LOCK makes it #UD.
_PREFIXES: Final = LEGACY_PREFIXES - {LOCK}
_REX: Final = range(0x40, 0x50)

SYNCHRONOUS: Final = frozenset(
    {
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGSEGV,
        signal.SIGSYS,
    }
)
# The signals that a refused ENCLU or CPUID can come as.
REFUSED: Final = frozenset({signal.SIGILL, signal.SIGSEGV, signal.SIGBUS})
INFO: Final = struct.Struct("<iii4xQ")  # si_signo, si_errno, si_code, si_addr

Read = Callable[[int, int], bytes]


class Trapped(NamedTuple):
    """An instruction that was executed and refused: "enclu" or "cpuid", and its length."""

    kind: str
    length: int


def undefined(code: bytes) -> str:
    """The rule id for an instruction that the emulator does not know.

    CODE.01 if it is undefined in user mode on every processor (UD0, UD1, UD2, SDM 2B; ENCLS, SDM
    3D), CODE.05 if this one may have it.
    """
    return "CODE.01" if code.startswith(_UNDEFINED) else "CODE.05"


def from_kernel(number: int, info: bytes) -> bool:
    """Whether an instruction caused this signal, rather than kill(2) or a timer."""
    return number in SYNCHRONOUS and INFO.unpack_from(info)[2] > 0


def trapped(number: int, info: bytes, rip: int, read: Read) -> Trapped | None:
    """The ENCLU or CPUID at RIP that caused this signal; None if something else did.

    `read(address, size)` returns the bytes there, fewer if not all can be read.
    """
    if number not in REFUSED or not from_kernel(number, info):
        return None
    code = read(rip, LONGEST)
    if code.startswith(ENCLU):
        return None if _fetching(number, info, rip, len(ENCLU)) else Trapped("enclu", len(ENCLU))
    if number == signal.SIGSEGV and INFO.unpack_from(info)[2] == SI_KERNEL:
        length = _cpuid(code)
        return Trapped("cpuid", length) if length else None
    return None


def _fetching(number: int, info: bytes, rip: int, length: int) -> bool:
    """Whether the instruction itself could not be fetched: the fault is at one of its bytes."""
    _, _, code, address = INFO.unpack_from(info)
    if number == signal.SIGILL or code == SI_KERNEL:
        return False
    return bool(rip <= address < rip + length)


def _cpuid(code: bytes) -> int:
    """The length of the CPUID that code begins with; 0 if it does not."""
    at = 0
    while at < len(code) and (code[at] in _PREFIXES or code[at] in _REX):
        at += 1  # REX that is not the last prefix is ignored
    return at + len(CPUID) if code[at : at + len(CPUID)] == CPUID else 0
