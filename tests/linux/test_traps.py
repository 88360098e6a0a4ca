"""Signals of exceptions: signal, si_code, si_addr. Linux 6.12, arch/x86/kernel/traps.c.

tests/runner/test_trap_table.py compares the same rules with the kernel of this machine.
"""

from __future__ import annotations

import signal
import struct

import pytest

from softsgx.linux.process import Signal
from softsgx.linux.traps import do_trap
from softsgx.spec import faults

RIP = 0x401000
SI_KERNEL = 0x80
CLEAN = struct.pack("<HH20xI", 0x37F, 0, 0x1F80)


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
        (9, signal.SIGFPE, SI_KERNEL, 0),  # was SIGSEGV here
        (17, signal.SIGBUS, 1, 0),  # BUS_ADRALN
        (21, signal.SIGSEGV, 10, 0),  # SEGV_CPERR
    ],
)
def test_an_exception_becomes_the_signal_of_linux(
    vector: int, number: int, code: int, address: int
) -> None:
    found = do_trap(vector, 0x5A, RIP, CLEAN)
    assert found == (number, code, address, vector, 0x5A)


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (0b000001, 7),  # FPE_FLTINV
        (0b000010, 5),  # FPE_FLTUND: a denormal operand
        (0b000100, 3),  # FPE_FLTDIV
        (0b001000, 4),  # FPE_FLTOVF
        (0b010000, 5),  # FPE_FLTUND
        (0b100000, 6),  # FPE_FLTRES
        (0b101000, 4),
        (0b111111, 7),
    ],
)
def test_the_si_code_of_sigfpe_is_read_from_the_fpu(flags: int, code: int) -> None:
    """It was 7 whatever the state. Flags whose exception is masked do not count."""
    masked = 0x3F & ~flags
    x87 = struct.pack("<HH20xI", 0x340 | masked, flags | masked, 0x1F80)
    sse = struct.pack("<HH20xI", 0x37F, 0, masked << 7 | flags | masked)
    assert do_trap(faults.MF, 0, RIP, x87) == (signal.SIGFPE, code, RIP, faults.MF, 0)
    assert do_trap(faults.XM, 0, RIP, sse) == (signal.SIGFPE, code, RIP, faults.XM, 0)


@pytest.mark.parametrize("vector", [faults.MF, faults.XM])
def test_a_spurious_exception_is_no_signal(vector: int) -> None:
    all_masked = struct.pack("<HH20xI", 0x37F, 0x3F, 0x1FBF)
    assert do_trap(vector, 0, RIP, all_masked) is None


@pytest.mark.parametrize(
    ("dr6", "code"),
    [(1 << 14, 2), (1 << 14 | 1, 2), (0b0100, 4), (0, 1)],
    ids=["TRAP_TRACE", "step first", "TRAP_HWBKPT", "TRAP_BRKPT of INT1"],
)
def test_the_si_code_of_a_debug_exception_is_read_from_dr6(dr6: int, code: int) -> None:
    assert do_trap(faults.DB, 0, RIP, CLEAN, dr6) == (signal.SIGTRAP, code, RIP, faults.DB, 0)


def test_every_signal_has_a_name() -> None:
    """`--explain` once said "SIGFPE code 1"."""
    for vector in (0, 1, 3, 6, 12, 13, 17, 21):
        found = do_trap(vector, 0, RIP, CLEAN)
        assert isinstance(found, Signal)
        assert "code" not in found.text
