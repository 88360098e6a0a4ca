"""Signals of exceptions: signal, si_code, si_addr. Linux 6.12, arch/x86/kernel/traps.c."""

from __future__ import annotations

import signal

import pytest

from softsgx.linux.traps import do_trap

RIP = 0x401000
SI_KERNEL = 0x80


@pytest.mark.parametrize(
    ("vector", "number", "code", "address"),
    [
        (0, signal.SIGFPE, 1, RIP),  # FPE_INTDIV
        (1, signal.SIGTRAP, 2, RIP),  # TRAP_TRACE
        (3, signal.SIGTRAP, SI_KERNEL, 0),
        (4, signal.SIGSEGV, SI_KERNEL, 0),
        (5, signal.SIGSEGV, SI_KERNEL, 0),
        (6, signal.SIGILL, 2, RIP),  # ILL_ILLOPN
        (11, signal.SIGBUS, SI_KERNEL, 0),
        (12, signal.SIGBUS, SI_KERNEL, 0),  # was SIGSEGV here
        (13, signal.SIGSEGV, SI_KERNEL, 0),
        (16, signal.SIGFPE, 7, RIP),  # FPE_FLTINV
        (17, signal.SIGBUS, 1, 0),  # BUS_ADRALN
        (19, signal.SIGFPE, 7, RIP),
        (21, signal.SIGSEGV, 10, 0),  # SEGV_CPERR
    ],
)
def test_an_exception_becomes_the_signal_of_linux(
    vector: int, number: int, code: int, address: int
) -> None:
    found = do_trap(vector, 0x5A, RIP)
    assert found == (number, code, address, vector, 0x5A)
