"""Exceptions of user programs: the kernel repairs the fault, or sends a signal.

Linux 6.12, arch/x86/kernel/traps.c and fpu/core.c. After an exception in an enclave the kernel
sees the state that AEX leaves. So RIP is the AEP. For #MF and #XM, FCW, FSW and MXCSR are those
that AEX sets, 037EH and 8081H, or 1F01H: an unmasked invalid operation (SDM 3D, 40.3.2 "Synthetic
State for Extended Features"). So si_code is FPE_FLTINV, whatever the enclave has computed.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from softsgx.linux.fault import do_user_addr_fault
from softsgx.linux.process import (
    BUS_ADRALN,
    FPE_FLTDIV,
    FPE_FLTINV,
    FPE_FLTOVF,
    FPE_FLTRES,
    FPE_FLTUND,
    FPE_INTDIV,
    ILL_ILLOPN,
    SEGV_CPERR,
    SI_KERNEL,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    TRAP_BRKPT,
    TRAP_HWBKPT,
    TRAP_TRACE,
    Signal,
)
from softsgx.spec import faults
from softsgx.spec.registers import RIP

if TYPE_CHECKING:
    from softsgx.cpu.aex import Delivered
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps

# DR6. A logical processor of the model has no breakpoint registers: its #DB is a single step.
DR_TRAPS: Final = 0xF
DR_STEP: Final = 1 << 14

# Vector -> signal, si_code, and whether si_addr is the instruction; else it is 0. Vectors without
# an si_code of their own have SI_KERNEL.
_TRAPS: Final = {
    faults.DE: (SIGFPE, FPE_INTDIV, True),
    faults.BP: (SIGTRAP, SI_KERNEL, False),
    faults.UD: (SIGILL, ILL_ILLOPN, True),
    faults.OLD_MF: (SIGFPE, SI_KERNEL, False),
    faults.NP: (SIGBUS, SI_KERNEL, False),
    faults.SS: (SIGBUS, SI_KERNEL, False),
    faults.AC: (SIGBUS, BUS_ADRALN, False),
    faults.CP: (SIGSEGV, SEGV_CPERR, False),
}
_OTHERS: Final = (SIGSEGV, SI_KERNEL, False)

# Exception bits of FSW and MXCSR, in the order in which the kernel tests them.
_FPE: Final = (
    (1 << 0, FPE_FLTINV),
    (1 << 2, FPE_FLTDIV),
    (1 << 3, FPE_FLTOVF),
    (1 << 1 | 1 << 4, FPE_FLTUND),  # denormal operand, underflow
    (1 << 5, FPE_FLTRES),
)
_FCW_FSW: Final = struct.Struct("<HH")
_MXCSR: Final = struct.Struct("<I")
_MXCSR_OFFSET: Final = 24
_MXCSR_MASKS: Final = 7  # the bit of the first mask


def user_exception(current: Thread, delivered: Delivered) -> Steps[Signal | None]:
    """An exception of a user program, whose registers are as the exception left them.

    None if the kernel repaired it or finds it spurious: the program goes on at RIP. Otherwise its
    signal, unless `vdso.fixup_vdso_exception` turns it into a return of the vDSO function.
    """
    if delivered.vector == faults.PF:
        return (yield from do_user_addr_fault(current, delivered.code, delivered.cr2))
    lp = current.kernel.lp(current)
    return do_trap(delivered.vector, delivered.code, lp.regs[RIP], lp.x.legacy)


def do_trap(
    vector: int, error_code: int, rip: int, legacy: bytes, dr6: int = DR_STEP
) -> Signal | None:
    """The signal of an exception; None if the kernel finds it spurious and goes on.

    `rip` and `legacy`, of which the first 28 bytes of an FXSAVE image are read, are the state that
    the kernel finds.
    """
    if vector == faults.DB:
        return Signal(SIGTRAP, _trap_code(dr6), rip, vector, error_code)
    if vector in (faults.MF, faults.XM):
        code = fpu_exception_code(vector, legacy)
        return Signal(SIGFPE, code, rip, vector, error_code) if code else None
    number, code, at_rip = _TRAPS.get(vector, _OTHERS)
    return Signal(number, code, rip if at_rip else 0, vector, error_code)


def fpu_exception_code(vector: int, legacy: bytes) -> int:
    """si_code of #MF or #XM: the first exception that is set and not masked; 0 if there is none."""
    if vector == faults.MF:
        fcw, fsw = _FCW_FSW.unpack_from(legacy)
        found = fsw & ~fcw
    else:
        (mxcsr,) = _MXCSR.unpack_from(legacy, _MXCSR_OFFSET)
        found = mxcsr & ~(mxcsr >> _MXCSR_MASKS)
    return next((code for bits, code in _FPE if found & bits), 0)


def _trap_code(dr6: int) -> int:
    if dr6 & DR_STEP:
        return TRAP_TRACE
    return TRAP_HWBKPT if dr6 & DR_TRAPS else TRAP_BRKPT  # INT1 sets no bit
