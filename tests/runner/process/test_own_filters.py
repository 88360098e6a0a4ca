"""Filters that programs install: what the kernel gets, and what is judged in its place.

The kernel of this machine says which programs it takes, and what they return.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct

import pytest

from softsgx.runner.host import nr
from softsgx.runner.host.abi import (
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    SECCOMP_MODE_FILTER,
    SECCOMP_MODE_STRICT,
    SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE,
    SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
)
from softsgx.runner.host.bpf_machine import (
    JA,
    LD_ABS,
    RET_A,
    RET_K,
    TAX,
    Filter,
    Instruction,
    accepted,
    decoded,
    encoded,
    execute,
)
from softsgx.runner.host.filters import install
from softsgx.runner.inserted.layout import END, GATE, GATE_DONE
from softsgx.runner.process.own_filters import (
    OwnFilter,
    Seccomp,
    guarded,
    passing,
    seccomp_data,
    verdict,
)

KILL_PROCESS = 0x8000_0000
ADD, NEG, MOD = 0x04, 0x84, 0x94
JEQ = 0x15
LD_IMM, LDX_IMM, LD_MEM, LDX_MEM, ST, STX, TXA = 0x00, 0x01, 0x60, 0x61, 0x02, 0x03, 0x87
HERE = 0x40_1000


def program(*instructions: tuple[int, ...]) -> Filter:
    """Instructions of code and k, or of code, jt, jf and k."""
    return tuple(
        Instruction(*i) if len(i) == 4 else Instruction(i[0], 0, 0, i[1]) for i in instructions
    )


def returning(value: int) -> OwnFilter:
    return OwnFilter(program((RET_K, value)), in_kernel=True)


ONLY_X86_64 = program(
    (LD_ABS, 4), (JEQ, 1, 0, AUDIT_ARCH_X86_64), (RET_K, KILL_PROCESS), (LD_ABS, 0),
    (JEQ, 0, 1, nr.GETPPID), (RET_K, SECCOMP_RET_ERRNO | 7),
    (JEQ, 0, 1, nr.FUTEX), (RET_K, KILL_PROCESS), (RET_K, SECCOMP_RET_ALLOW),
)  # fmt: skip
COMPUTED = program((LD_ABS, 0), (ADD, SECCOMP_RET_ERRNO), (RET_A, 0))


@pytest.mark.parametrize("own", [ONLY_X86_64, COMPUTED], ids=["only x86-64", "computed"])
@pytest.mark.parametrize("number", [nr.GETPPID, nr.FUTEX, nr.READ])
def test_the_kernel_gets_a_filter_that_passes_what_is_not_the_programs(
    own: Filter, number: int
) -> None:
    for_kernel = decoded(guarded(own) or b"")
    assert accepted(for_kernel)

    def both(arch: int, ip: int) -> tuple[int, int]:
        data = seccomp_data(number, arch, ip, (0,) * 6)
        return execute(own, data), execute(for_kernel, data)

    for ip in (HERE, GATE - 1, END, GATE_DONE + (1 << 32), GATE_DONE & 0xFFFF_FFFF):
        wanted, got = both(AUDIT_ARCH_X86_64, ip)
        assert got == wanted, hex(ip)
    for ip in (GATE, GATE_DONE, END - 1):
        assert both(AUDIT_ARCH_X86_64, ip)[1] == SECCOMP_RET_ALLOW, hex(ip)
    assert both(AUDIT_ARCH_I386, HERE)[1] == SECCOMP_RET_ALLOW


def test_the_range_that_passes_can_be_another() -> None:
    low = 0x7E80_1000_0000
    for_kernel = decoded(guarded(ONLY_X86_64, low, low + 0x1000) or b"")
    for ip, passes in ((low - 1, False), (low, True), (low + 0xFFF, True), (low + 0x1000, False)):
        data = seccomp_data(nr.FUTEX, AUDIT_ARCH_X86_64, ip, (0,) * 6)
        assert (execute(for_kernel, data) == SECCOMP_RET_ALLOW) == passes, hex(ip)


def test_numbers_that_are_allowed_stay_cheap() -> None:
    """The kernel (5.11) runs no filter for a number that it allows by number and arch alone."""
    for_kernel = decoded(guarded(ONLY_X86_64) or b"")
    data = seccomp_data(nr.READ, AUDIT_ARCH_X86_64, HERE, (0,) * 6)
    assert execute(for_kernel[: len(ONLY_X86_64)], data) == SECCOMP_RET_ALLOW


def test_a_filter_that_forbids_nothing_stays_as_it_is() -> None:
    own = program((LD_ABS, 0), (RET_K, SECCOMP_RET_ALLOW))
    assert guarded(own) == encoded(own)


def test_a_filter_that_becomes_too_long() -> None:
    def of(length: int) -> Filter:
        return (*program((LD_IMM, 0)) * (length - 1), *program((RET_K, KILL_PROCESS)))

    added = len(guarded(of(10)) or b"") // 8 - 10
    assert len(guarded(of(4096 - added)) or b"") == 8 * 4096
    assert guarded(of(4097 - added)) is None


# From the strictest on; SECCOMP_RET_KILL_PROCESS is negative.
ORDER = (
    *(KILL_PROCESS | 1, SECCOMP_RET_KILL_THREAD | 2, 0x0001_0000, SECCOMP_RET_TRAP | 3),
    *(SECCOMP_RET_ERRNO | 4, SECCOMP_RET_USER_NOTIF, SECCOMP_RET_TRACE | 5, SECCOMP_RET_LOG),
    SECCOMP_RET_ALLOW,
)


def test_the_strictest_filter_decides_and_among_equals_the_newest() -> None:
    data = seccomp_data(0, AUDIT_ARCH_X86_64, HERE, (0,) * 6)
    for at, strict in enumerate(ORDER):
        for other in ORDER[at + 1 :]:
            assert verdict([returning(strict), returning(other)], data) == strict
            assert verdict([returning(other), returning(strict)], data) == strict
    older, newer = SECCOMP_RET_ERRNO | 1, SECCOMP_RET_ERRNO | 2
    assert verdict([returning(older), returning(newer)], data) == newer
    assert verdict([], data) == SECCOMP_RET_ALLOW


@pytest.mark.parametrize(
    ("own", "in_kernel", "here"),
    [
        (ONLY_X86_64, True, False),
        (ONLY_X86_64, False, True),
        (COMPUTED, True, True),
        (program((RET_K, SECCOMP_RET_TRACE | 3)), True, True),
    ],
)
def test_what_must_be_judged_here(own: Filter, in_kernel: bool, here: bool) -> None:
    """RET_TRACE of a program looks like one of ours, and there is no tracer for it: ENOSYS."""
    confined = Seccomp().with_filter(OwnFilter(own, in_kernel))
    assert confined.judged_here(AUDIT_ARCH_X86_64) == here
    assert confined.judged_here(AUDIT_ARCH_I386)
    assert not Seccomp().judged_here(AUDIT_ARCH_I386)


# By the kernel of this machine

KILLED = -1
LIBC = ctypes.PyDLL(None, use_errno=True)


def answer_of_the_kernel(own: Filter) -> int | None:
    """The errno with which a child's getppid fails under this filter, 0 if it does not, KILLED if
    it is killed; None if the filter is refused.

    The filter is for getppid alone: the child must be able to end.
    """
    raw = encoded(program((LD_ABS, 0), (JEQ, 1, 0, nr.GETPPID), (RET_K, SECCOMP_RET_ALLOW)) + own)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        result = -1
        try:
            install(raw, by_prctl=False)
            result = ctypes.get_errno() if LIBC.syscall(nr.GETPPID) == -1 else 0
        except OSError:
            result = -1
        finally:
            os.write(writer, struct.pack("<i", result))
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    said = os.read(reader, 4)
    os.close(reader)
    if not said:
        return KILLED
    (result,) = struct.unpack("<i", said)
    return None if result == -1 else int(result)


# Returns A, folded into an errno of 11 bits.
FOLDED = program(
    (TAX, 0), (0x74, 11), (0xAC, 0), (TAX, 0), (0x74, 11), (0xAC, 0),
    (0x54, 0x7FF), (0x44, SECCOMP_RET_ERRNO), (RET_A, 0),
)  # fmt: skip
# Codes of LD, LDX, ST, STX, ALU, JMP and MISC, and some that no filter may have.
CODES = (
    *(LD_ABS, LD_IMM, LD_MEM, 0x80, LDX_IMM, LDX_MEM, 0x81, ST, STX, TAX, TXA, NEG),
    *(op | x | 0x04 for op in (0, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0) for x in (0, 8)),
    *(op | x | 0x05 for op in (0x10, 0x20, 0x30, 0x40) for x in (0, 8)),
    *(JA, RET_K, RET_A),
)
FORBIDDEN = (MOD, MOD | 8, 0x28, 0x30, 0x40, 0x09, 0xB1, 0x0E, 0x55, 0xFF, 0x1000)


def made_up(chance: random.Random, good: bool) -> Filter:
    """A few instructions; `good`: such as the kernel takes, more often than not."""
    out = []
    length = chance.randrange(1, 12)
    for at in range(length):
        code = chance.choice(CODES if good or chance.random() < 0.9 else FORBIDDEN)
        k = chance.choice((0, 1, 2, 4, 8, 15, 16, 31, 32, 60, 64, 0x1234_5678, 0xFFFF_FFFF))
        left = length - at - 1 + (0 if good else 2)
        if good:
            k = {LD_ABS: 4 * (k % 16), JA: k % (left + 1)}.get(code, k)
            k = k % 16 if code in (ST, STX, LD_MEM, LDX_MEM) else k
            k = k % 31 + 1 if code in (0x34, 0x64, 0x74) else k
            if code in (RET_K, RET_A, LD_ABS):  # addresses in seccomp_data change
                code = LD_IMM
        yes, no = chance.randrange(left + 1), chance.randrange(left + 1)
        out.append(Instruction(code, yes, no, k))
    return tuple(out)


def test_the_kernel_takes_the_same_filters() -> None:
    chance = random.Random(1)
    answers = []
    for _ in range(250):
        own = made_up(chance, good=False) + program((RET_K, SECCOMP_RET_ERRNO | 5))
        own = own if chance.random() < 0.8 else own[:-1]
        if any(i.code in (RET_K, RET_A) for i in own[:-1]):
            continue  # it might kill
        taken = answer_of_the_kernel(own) is not None
        assert accepted(program((LD_ABS, 0)) + own) == taken, own
        answers.append(taken)
    assert 20 < sum(answers) < len(answers) - 20


def test_the_kernel_computes_the_same() -> None:
    chance = random.Random(2)
    answers = []
    data = seccomp_data(nr.GETPPID, AUDIT_ARCH_X86_64, HERE, (0,) * 6)
    stores = program(*((ST, word) for word in range(16)))
    for _ in range(200):
        own = stores + made_up(chance, good=True) + FOLDED
        if not accepted(own):
            continue
        value = execute(program((LD_ABS, 0)) + own, data)
        wanted = value & 0xFFFF if value else KILLED  # 0: a division by 0
        assert answer_of_the_kernel(own) == wanted, own
        answers.append(value)
    assert len(set(answers)) > 40


OF_X86_64 = ((LD_ABS, 4), (JEQ, 1, 0, AUDIT_ARCH_X86_64), (RET_K, KILL_PROCESS), (LD_ABS, 0))
DENIES_STACK = (*OF_X86_64, (JEQ, 0, 1, nr.SIGALTSTACK), (RET_K, SECCOMP_RET_ERRNO | 1))
BY_ARGUMENT = (
    (LD_ABS, 16),
    (JEQ, 0, 1, 5),
    (RET_K, SECCOMP_RET_ERRNO | 1),
    (RET_K, SECCOMP_RET_ALLOW),
)


@pytest.mark.parametrize(
    ("filters", "clone", "stack"),
    [
        ([(*DENIES_STACK, (RET_K, SECCOMP_RET_ALLOW))], True, False),
        ([(*DENIES_STACK, (RET_K, SECCOMP_RET_LOG))], False, False),
        ([(*DENIES_STACK, *BY_ARGUMENT)], False, False),
        ([BY_ARGUMENT], False, False),
        ([((RET_K, SECCOMP_RET_ALLOW),), (*DENIES_STACK, (RET_K, SECCOMP_RET_ALLOW))], True, False),
        ([((RET_K, SECCOMP_RET_ALLOW),)], True, True),
        ([((LD_IMM, SECCOMP_RET_ALLOW), (RET_A, 0))], False, False),
    ],
)
def test_the_stub_asks_unless_all_filters_allow_a_number_in_any_case(
    filters: list[tuple[tuple[int, ...], ...]], clone: bool, stack: bool
) -> None:
    own = tuple(OwnFilter(program(*code), in_kernel=True) for code in filters)
    bits = int.from_bytes(passing(Seccomp(SECCOMP_MODE_FILTER, own)), "little")
    assert bool(bits >> nr.CLONE & 1) == clone
    assert bool(bits >> nr.SIGALTSTACK & 1) == stack
    assert not bits >> nr.GETPPID & 1, "the stub does not answer it"


def test_nothing_passes_in_strict_mode() -> None:
    assert not any(passing(Seccomp(SECCOMP_MODE_STRICT)))
