"""Which instruction caused a signal: `softsgx.runner.code.trapped`.

The story: on a processor that has SGX, hidden by its hypervisor, every native run ended in
"function 3, vector 13": ENCLU was recognised by SIGILL alone, and there it is SIGSEGV.
"""

from __future__ import annotations

import signal
from struct import pack

import pytest

from softsgx.runner.code.trapped import Trapped, from_kernel, trapped

RIP = 0x7000_0000_0FFD
ENCLU = "0f01d7"
ENCLU_FOUND, CPUID_FOUND = Trapped("enclu", 3), Trapped("cpuid", 2)
ILL, SEGV, BUS = signal.SIGILL, signal.SIGSEGV, signal.SIGBUS
KERNEL, MAPERR, ACCERR, ILLOPN, ADRERR = 0x80, 1, 2, 2, 2
TCS = 0x5000_0FFF


def info(number: int, code: int, address: int = 0) -> bytes:
    return pack("<iii4xQ", number, 0, code, address).ljust(128, b"\0")


@pytest.mark.parametrize(
    ("bytes_", "number", "code", "address", "found"),
    [
        # A processor without SGX, and the rows of one that has it.
        (ENCLU, ILL, ILLOPN, RIP, ENCLU_FOUND),
        (ENCLU, SEGV, KERNEL, 0, ENCLU_FOUND),
        (ENCLU, SEGV, ACCERR, TCS, ENCLU_FOUND),
        (ENCLU, SEGV, MAPERR, TCS, ENCLU_FOUND),
        (ENCLU, SEGV, MAPERR, 0xFFF, ENCLU_FOUND),
        (ENCLU, BUS, ADRERR, TCS, ENCLU_FOUND),  # RBX in a file, past its end
        (ENCLU + "90909090", SEGV, ACCERR, RIP - 1, ENCLU_FOUND),
        (ENCLU + "90909090", SEGV, ACCERR, RIP + 3, ENCLU_FOUND),
        # The page of the instruction is not executable: not executed.
        (ENCLU, SEGV, ACCERR, RIP, None),
        (ENCLU, SEGV, ACCERR, RIP + 2, None),
        (ENCLU, SEGV, MAPERR, RIP + 1, None),
        (ENCLU, BUS, ADRERR, RIP + 2, None),
        # Sent by somebody.
        (ENCLU, SEGV, 0, 0, None),
        (ENCLU, ILL, -6, 0, None),
        (ENCLU, signal.SIGALRM, KERNEL, 0, None),
        (ENCLU, signal.SIGTRAP, KERNEL, 0, None),
        # Other instructions, and bytes that cannot all be read.
        ("0f01d6", ILL, ILLOPN, RIP, None),
        ("0f01cf", SEGV, KERNEL, 0, None),
        ("660f01d7", ILL, ILLOPN, RIP, None),  # NP: a prefix makes it #UD
        ("0f01", SEGV, KERNEL, 0, None),
        ("", SEGV, MAPERR, RIP, None),
        ("0fa2", SEGV, KERNEL, 0, CPUID_FOUND),
        ("0fa2c3", SEGV, KERNEL, 0, CPUID_FOUND),
        ("660fa2", SEGV, KERNEL, 0, Trapped("cpuid", 3)),
        ("f2662e480fa2", SEGV, KERNEL, 0, Trapped("cpuid", 6)),
        ("48660fa2", SEGV, KERNEL, 0, Trapped("cpuid", 4)),
        ("f00fa2", ILL, ILLOPN, RIP, None),
        ("0fa2", ILL, ILLOPN, RIP, None),
        ("0fa2", SEGV, ACCERR, RIP, None),
        ("0fa2", SEGV, MAPERR, 0x123, None),
        ("0f", SEGV, KERNEL, 0, None),
        ("66" * 15, SEGV, KERNEL, 0, None),
    ],
)
def test_bytes_decide_not_the_signal(
    bytes_: str, number: int, code: int, address: int, found: Trapped | None
) -> None:
    there = bytes.fromhex(bytes_)

    def read(at: int, size: int) -> bytes:
        assert at == RIP
        return there[:size]

    assert trapped(number, info(number, code, address), RIP, read) == found


@pytest.mark.parametrize(
    ("number", "code", "ours"),
    [
        (signal.SIGSEGV, 1, True),
        (signal.SIGSEGV, 0x80, True),
        (signal.SIGSEGV, 0, False),  # kill
        (signal.SIGSEGV, -6, False),  # tgkill
        (signal.SIGCHLD, 1, False),
        (signal.SIGALRM, 0x80, False),
    ],
)
def test_signals_that_somebody_sent_are_not_exceptions(number: int, code: int, ours: bool) -> None:
    assert from_kernel(number, info(number, code)) == ours
