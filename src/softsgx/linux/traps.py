"""What becomes of an exception of a user program that is no page fault: a signal.

Linux 6.12, arch/x86/kernel/traps.c.
"""

from __future__ import annotations

from typing import Final

from softsgx.linux.process import (
    ILL_ILLOPN,
    SI_KERNEL,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    Signal,
)
from softsgx.spec import faults

FPE_INTDIV: Final = 1
FPE_FLTINV: Final = 7
TRAP_TRACE: Final = 2
BUS_ADRALN: Final = 1
SEGV_CPERR: Final = 10
_NP: Final = 11

# Vector -> signal, si_code, and whether si_addr is the instruction; else it is 0.
_TRAPS: Final = {
    faults.DE: (SIGFPE, FPE_INTDIV, True),
    faults.DB: (SIGTRAP, TRAP_TRACE, True),  # of a single step: no breakpoint registers are set
    faults.BP: (SIGTRAP, SI_KERNEL, False),
    faults.UD: (SIGILL, ILL_ILLOPN, True),
    _NP: (SIGBUS, SI_KERNEL, False),
    faults.SS: (SIGBUS, SI_KERNEL, False),
    # The kernel asks the state that AEX leaves, which names an invalid operation.
    faults.MF: (SIGFPE, FPE_FLTINV, True),
    faults.XM: (SIGFPE, FPE_FLTINV, True),
    faults.AC: (SIGBUS, BUS_ADRALN, False),
    faults.CP: (SIGSEGV, SEGV_CPERR, False),
}
_OTHERS: Final = (SIGSEGV, SI_KERNEL, False)


def do_trap(vector: int, error_code: int, rip: int) -> Signal:
    """The signal of an exception; `rip` is where the kernel sees the program."""
    number, code, at_rip = _TRAPS.get(vector, _OTHERS)
    return Signal(number, code, rip if at_rip else 0, vector, error_code)
