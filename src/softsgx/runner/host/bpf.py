"""Seccomp filters: classic BPF over struct seccomp_data (nr, arch, instruction_pointer, args).

man 2 seccomp.
"""

from __future__ import annotations

from typing import Final

from softsgx.runner.host.bpf_machine import INSTRUCTION, LD_ABS, RET_A, RET_K, TXA

# Offsets in struct seccomp_data.
NR: Final = 0
ARCH: Final = 4
IP_LOW: Final = 8
IP_HIGH: Final = 12

_AND: Final = 0x54
_JEQ: Final = 0x15
_JGT: Final = 0x25
_JGE: Final = 0x35
_JSET: Final = 0x45


def arg_low(number: int) -> int:
    """Offset of the low 32 bits of an argument."""
    return 16 + 8 * number


def arg_high(number: int) -> int:
    """Offset of the high 32 bits of an argument."""
    return 20 + 8 * number


class Program:
    """A filter under construction; jumps go to labels, which are resolved by `assemble`."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        """A := the 32-bit word of seccomp_data at `offset`."""
        self._code.append((LD_ABS, offset, "", ""))

    def and_(self, mask: int) -> None:
        """A &= mask."""
        self._code.append((_AND, mask, "", ""))

    def equal(self, value: int, yes: str = "", no: str = "") -> None:
        """Jump to `yes` if A == value, else to `no`; an empty label is the next instruction."""
        self._code.append((_JEQ, value, yes, no))

    def greater(self, value: int, yes: str = "", no: str = "") -> None:
        """Jump to `yes` if A > value, else to `no`."""
        self._code.append((_JGT, value, yes, no))

    def at_least(self, value: int, yes: str = "", no: str = "") -> None:
        """Jump to `yes` if A >= value, else to `no`."""
        self._code.append((_JGE, value, yes, no))

    def has(self, bits: int, yes: str = "", no: str = "") -> None:
        """Jump to `yes` if A & bits, else to `no`."""
        self._code.append((_JSET, bits, yes, no))

    def ret(self, value: int) -> None:
        """Return an action, such as SECCOMP_RET_ALLOW."""
        self._code.append((RET_K, value, "", ""))

    def ret_x(self) -> None:
        """Return X."""
        self._code += [(TXA, 0, "", ""), (RET_A, 0, "", "")]

    def label(self, name: str) -> None:
        """Give the next instruction the label `name`."""
        assert name not in self._labels, f"label {name} twice"
        self._labels[name] = len(self._code)

    def assemble(self) -> bytes:
        """The filter: a struct sock_filter for each instruction."""
        out = b""
        for at, (code, k, yes, no) in enumerate(self._code):
            jumps = [self._labels[x] - at - 1 if x else 0 for x in (yes, no)]
            assert all(0 <= jump < 256 for jump in jumps), "a jump that is too far"
            out += INSTRUCTION.pack(code, *jumps, k)
        return out
