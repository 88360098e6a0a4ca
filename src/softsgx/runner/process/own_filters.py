"""Seccomp filters that a program installs itself.

A filter judges every call that the thread makes, also those that the supervisor has it make: from
the gate, and by the `int 0x80` that replaces CPUID and ENCLU. So the kernel gets the program's
filter with some instructions appended (`guarded`). What is left to the supervisor is judged here
by the filters as the program wrote them (`verdict`).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.host.abi import (
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    BPF_MAXINSNS,
    SECCOMP_MODE_FILTER,
    SECCOMP_MODE_STRICT,
    SECCOMP_RET_ACTION_FULL,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_TRACE,
)
from softsgx.runner.host.bpf import ARCH, IP_HIGH, IP_LOW, NR, Program
from softsgx.runner.host.bpf_machine import (
    AND_K,
    CONDITIONS_K,
    JA,
    LD_ABS,
    LDX_IMM,
    RET,
    RET_K,
    TAX,
    Filter,
    Instruction,
    encoded,
    execute,
)
from softsgx.runner.inserted.layout import END, GATE
from softsgx.runner.inserted.systrap_layout import PASSES_SIZE
from softsgx.runner.process.by_stub import BY_STUB
from softsgx.runner.ways import WAYS
from softsgx.spec.bits import MASK32

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIGN: Final = 1 << 31
_DATA: Final = struct.Struct("<IIQ6Q")


class OwnFilter(NamedTuple):
    """One filter as the program wrote it; `in_kernel`: the kernel judges by it where it can."""

    program: Filter
    in_kernel: bool

    @property
    def judged_here(self) -> bool:
        """Whether calls must be judged here, although the kernel lets them pass.

        An action SECCOMP_RET_TRACE of the program's looks like one of ours.
        """
        return not self.in_kernel or any(
            i.code != RET_K or _action(i.k) == SECCOMP_RET_TRACE
            for i in self.program
            if i.code & 7 == RET
        )


class Seccomp(NamedTuple):
    """struct seccomp of a thread as its program sees it, the newest filter last; and the thread's
    no_new_privs. Linux 6.12, include/linux/seccomp_types.h."""

    mode: int = 0
    filters: tuple[OwnFilter, ...] = ()
    no_new_privs: bool = False

    def with_filter(self, added: OwnFilter) -> Seccomp:
        """After a filter was installed."""
        return self._replace(mode=SECCOMP_MODE_FILTER, filters=(*self.filters, added))

    @property
    def confines(self) -> bool:
        """Whether any call must be judged."""
        return bool(self.filters) or self.strict

    @property
    def strict(self) -> bool:
        """Whether the mode is SECCOMP_MODE_STRICT."""
        return self.mode == SECCOMP_MODE_STRICT

    def traces(self, number: int, ip: int, args: Sequence[int]) -> bool:
        """Whether a call of x86-64 that a listener got should fail: SECCOMP_RET_TRACE is weaker.

        Calls from the gate have been judged before.
        """
        if not self.filters or GATE <= ip < END:
            return False
        value = verdict(self.filters, seccomp_data(number, AUDIT_ARCH_X86_64, ip, args))
        return _action(value) == SECCOMP_RET_TRACE

    def judged_here(self, arch: int) -> bool:
        """Whether a call that stopped must be judged by `verdict`."""
        if arch != AUDIT_ARCH_X86_64 or not WAYS.traced:
            return bool(self.filters)  # or our SECCOMP_RET_TRAP was stricter than they are
        return any(own.judged_here for own in self.filters)


UNCONFINED: Final = Seccomp()
NOTHING: Final = bytes(PASSES_SIZE)  # passes


def guarded(program: Filter, low: int = GATE, high: int = END) -> bytes | None:
    """The filter for the kernel: `program`, but calls from [low, high) and of i386 always pass.

    Those of i386 stop by the base filter. None if it would be too long.

    What would return anything but ALLOW goes to the end instead, with the value in X. The kernel
    (since 5.11) does not run a filter for numbers that it allows whatever else is in the call; that
    stays so.
    """
    after = len(program)
    exits = list(dict.fromkeys(_way_out(i) for i in program if not _passes(i)))
    common = after + 2 * len(exits)
    code = [
        i if _passes(i) else Instruction(JA, 0, 0, after + 2 * exits.index(_way_out(i)) - at - 1)
        for at, i in enumerate(program)
    ]
    for way_out in exits:
        code += [way_out, Instruction(JA, 0, 0, common - len(code) - 2)]
    raw = encoded(code) + (_passing_ours(low, high) if exits else b"")
    return raw if len(raw) <= 8 * BPF_MAXINSNS else None


def _passes(instruction: Instruction) -> bool:
    """Whether an instruction stays: it returns nothing, or ALLOW."""
    if instruction.code & 7 != RET:
        return True
    return instruction.code == RET_K and _action(instruction.k) == SECCOMP_RET_ALLOW


def _way_out(instruction: Instruction) -> Instruction:
    """What puts the value of a return into X."""
    k = instruction.k
    return Instruction(LDX_IMM, 0, 0, k) if instruction.code == RET_K else Instruction(TAX, 0, 0, 0)


def _passing_ours(low: int, high: int) -> bytes:
    assert low >> 32 == high >> 32
    p = Program()
    p.load(IP_HIGH)
    p.equal(low >> 32, no="other")
    p.load(IP_LOW)
    p.at_least(low & MASK32, no="other")
    p.at_least(high & MASK32, no="allow")
    p.label("other")
    p.load(ARCH)
    p.equal(AUDIT_ARCH_I386, yes="allow")
    p.ret_x()
    p.label("allow")
    p.ret(SECCOMP_RET_ALLOW)
    return p.assemble()


def passing(seccomp: Seccomp) -> bytes:
    """A bit for each call of x86-64 that the stub may answer unasked: those that it answers, and
    that all filters allow whatever else is in the call."""
    return NOTHING if seccomp.strict else _passing(tuple(own.program for own in seccomp.filters))


@lru_cache(maxsize=32)
def _passing(filters: tuple[Filter, ...]) -> bytes:
    bits = sum(1 << n for n in BY_STUB if all(_always_allows(f, n) for f in filters))
    return bits.to_bytes(len(NOTHING), "little")


def _always_allows(program: Filter, number: int) -> bool:
    """Whether a filter allows a number whatever else is in the call, as far as can be seen.

    Linux 6.12, kernel/seccomp.c, seccomp_is_const_allow.
    """
    a = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == LD_ABS and k in (NR, ARCH):
            a = number if k == NR else AUDIT_ARCH_X86_64
        elif code == JA:
            at += k
        elif code in CONDITIONS_K:
            at += yes if CONDITIONS_K[code](a, k) else no
        elif code == AND_K:
            a &= k
        else:
            return code == RET_K and _action(k) == SECCOMP_RET_ALLOW


def seccomp_data(number: int, arch: int, ip: int, args: Sequence[int]) -> bytes:
    """struct seccomp_data."""
    return _DATA.pack(number, arch, ip, *args)


def verdict(filters: Sequence[OwnFilter], data: bytes) -> int:
    """What the filters return together: the newest that returns the strictest action.

    Linux 6.12, kernel/seccomp.c, seccomp_run_filters.
    """
    strictest = SECCOMP_RET_ALLOW
    for own in reversed(filters):
        value = execute(own.program, data)
        if _action(value) ^ _SIGN < _action(strictest) ^ _SIGN:
            strictest = value
    return strictest


def _action(value: int) -> int:
    return value & SECCOMP_RET_ACTION_FULL
