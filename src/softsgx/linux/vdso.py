"""__vdso_sgx_enter_enclave and its exception fix-up. Linux 6.12, arch/x86/entry/vdso.

The enclave is a callback, which executes on the thread's logical processor after EENTER or ERESUME
and returns how the enclave was left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.linux.errno import EINVAL
from softsgx.linux.trace import refused_call, trace_vdso
from softsgx.spec import faults, leaves
from softsgx.spec.bits import MASK32

if TYPE_CHECKING:
    from softsgx.linux.process import Thread
    from softsgx.linux.uapi import SgxEnclaveRun
    from softsgx.sim import Steps

# Base of the vDSO, and its ENCLU instruction, whose address is the AEP.
VDSO_BASE: Final = 0x7FFF_F7FC_1000
VDSO_ENCLU: Final = VDSO_BASE + 0x6C0

# Exceptions that the fix-up turns into a return of the vDSO function; the others become signals.
FIXED_UP: Final = frozenset(
    {faults.DE, faults.OF, faults.BR, faults.UD, faults.OLD_MF, faults.TS, faults.NP, faults.SS}
    | {faults.GP, faults.PF, faults.MF, faults.AC, faults.XM}
)
_INT_SIGN: Final = 1 << 31
_WITH_CODE: Final = frozenset({faults.TS, faults.NP, faults.SS, faults.GP, faults.PF, faults.AC})

_NAME: Final = "__vdso_sgx_enter_enclave"


class Exit(NamedTuple):
    """How one ENCLU at the vDSO ended: by EEXIT, or by an exception that the kernel did not repair.

    `function` is EAX at that moment: EEXIT; EENTER or ERESUME if that leaf itself faulted;
    ERESUME after an AEX.
    """

    function: int
    vector: int = 0
    error_code: int = 0
    address: int = 0


class FixedUp(NamedTuple):
    """What the vDSO function finds in RDI, RSI and RDX after an exception at its ENCLU."""

    vector: int
    error_code: int
    address: int


def fixup_vdso_exception(
    current: Thread, vector: int, error_code: int, address: int
) -> FixedUp | None:
    """What the vDSO function sees of an exception at its ENCLU that the kernel did not repair.

    None if the exception becomes a signal even there.
    """
    if vector not in FIXED_UP:
        return None
    trace_vdso(current, vector, error_code, address)
    return FixedUp(
        vector,
        error_code if vector in _WITH_CODE else 0,
        address if vector == faults.PF else 0,
    )


UserHandler = Callable[["Thread", "SgxEnclaveRun", Exit], "Steps[int]"]
Enter = Callable[["Thread", int, int], "Steps[Exit]"]


def sgx_enter_enclave(
    current: Thread,
    function: int,
    run: SgxEnclaveRun,
    enter: Enter,
    handler: UserHandler | None = None,
) -> Steps[int]:
    """The vDSO function. `enter(current, leaf, tcs)` executes ENCLU until the enclave is left.

    Returns 0 on EEXIT and on exceptions alike (run.function tells them apart), -EINVAL for a bad
    leaf or a reserved field that is set, else the result of the handler. Exception fields are
    never cleared.
    """
    function &= MASK32
    while True:
        if function not in (leaves.EENTER, leaves.ERESUME):
            return refused_call(current, _NAME, EINVAL, f"{_NAME}.function", leaf=function)
        if any(run.reserved):
            return refused_call(current, _NAME, EINVAL, f"{_NAME}.reserved")
        end = yield from enter(current, function, run.tcs)
        run.function = end.function
        if end.function != leaves.EEXIT:
            fixed = fixup_vdso_exception(current, end.vector, end.error_code, end.address)
            assert fixed is not None, f"vector {end.vector} becomes a signal"
            run.exception_vector, run.exception_error_code, run.exception_addr = fixed
        if handler is None:
            return 0
        answer = yield from handler(current, run, end)
        answer = (answer + _INT_SIGN & MASK32) - _INT_SIGN  # sign-extend: a C int
        if answer <= 0:
            return answer
        function = answer
