"""Enclave code in Python: a generator that loads, stores, fetches and runs ENCLU leaves.

An enclave program is a function `program(t: EnclaveThread)` whose body is a generator. Each
operation of `t` is a generator too (`value = yield from t.load(address, 8)`), preceded by one point
at which other tasks can get in. Interrupts, repaired page faults and the ERESUME
after them happen below the program, as on a real machine; an exception that the kernel does not
repair suspends the program until the host resumes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from softsgx.cpu import LogicalProcessor
from softsgx.cpu.fault import Fault, Status
from softsgx.events.cpu import InstructionFaulted
from softsgx.linux.traps import user_exception
from softsgx.linux.vdso import FIXED_UP, VDSO_ENCLU, Exit
from softsgx.sim import Steps
from softsgx.spec import faults, leaves
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import MODIFIED, PENDING, PR, REG, RWX, TCS, TRIM, R, W
from softsgx.spec.paging import SECINFO

if TYPE_CHECKING:
    from softsgx.cpu.aex import Delivered
    from softsgx.linux.process import Signal, Thread

EnclaveProgram = Callable[["EnclaveThread"], Steps[Any]]
# What an instruction can raise by itself; the other vectors are for the kernel only.
_RAISED = FIXED_UP - {faults.PF} | {faults.DB, faults.BP}


@cache
def _secinfo(flags: int) -> bytes:
    return SECINFO(FLAGS=flags).pack()


class EnclaveAbort(Exception):
    """Raised by enclave code that gives up, because its host lied to it. It leaves by EEXIT."""


class Suspended(NamedTuple):
    """Yielded by an operation instead of a point: the kernel did not repair its exception.

    `signal` is what it becomes if the vDSO does not fix it up.
    """

    exit: Exit
    signal: Signal


class Ocall(NamedTuple):
    """Yielded by `EnclaveThread.ocall`: leave, let the host run `function`, enter again."""

    function: Callable[..., Steps[Any]]
    args: tuple[Any, ...]


def occupied(current: Thread) -> ValueError:
    """The error of a schedule that runs two threads of one logical processor at once."""
    return ValueError(
        f"{current.name}: another thread is at work on cpu {current.cpu}; "
        "threads that run at the same time need a processor each"
    )


class EnclaveThread:
    """What enclave code can do. One per entry; `cssa` is 0 for a plain entry, 1 in a handler.

    `secinfo` is the linear address of 64 writable bytes in the enclave, one slot per TCS, for the
    SECINFO operand of leaves. `args` are what the host passed to `enter`; `result` what the program
    returned.
    """

    def __init__(self, current: Thread, tcs: int, cssa: int, secinfo: int, args: Any) -> None:
        self.run_on(current)
        self.tcs = tcs
        self.cssa = cssa
        self.secinfo = secinfo
        self.args = args
        self.result: Any = None

    def run_on(self, current: Thread) -> None:
        """Continue on the host thread that enters now, and on its logical processor `lp`."""
        self.current = current
        self.lp: LogicalProcessor = current.kernel.lp(current)

    # Accesses

    def load(self, address: int, size: int = 8) -> Steps[bytes]:
        """Read `size` bytes."""
        yield ("load", ("linear", address >> PAGE_SHIFT), False)
        data: bytes = yield from self._run(LogicalProcessor.load, address, size)
        return data

    def store(self, address: int, data: bytes) -> Steps[None]:
        """Write bytes."""
        yield ("store", ("linear", address >> PAGE_SHIFT), True)
        yield from self._run(LogicalProcessor.store, address, data)

    def fetch(self, address: int) -> Steps[bytes]:
        """Fetch one instruction byte, as a jump to `address` would."""
        yield ("fetch", ("linear", address >> PAGE_SHIFT), False)
        data: bytes = yield from self._run(LogicalProcessor.fetch, address, 1)
        return data

    def exception(self, vector: int, code: int = 0) -> Steps[None]:
        """Raise an exception as an instruction would, but not #PF, which accesses raise.

        When the host resumes, the program continues after it, as after a trap, or after a handler
        that moved RIP.
        """
        if vector not in _RAISED:
            raise ValueError(f"exception: vector {vector}: known are {sorted(_RAISED)}")
        yield ("exception", ("vector", vector), False)
        lp = yield from self._be_inside()
        log = lp.processor.log
        if log.on:
            log.emit(InstructionFaulted(lp.id, 0, vector, code, "CODE.04"))
        yield from self._repair(Fault(vector, "", code))

    # Leaves

    def enclu(self, leaf: int, rbx: int = 0, rcx: int = 0, rdx: int = 0) -> Steps[Status | None]:
        """Any ENCLU leaf for use inside."""
        while True:
            lp = self.lp
            if lp.tcs_address != self.tcs or lp.secs is None:
                lp = yield from self._be_inside()
            try:
                return (yield from lp.enclu_steps(leaf, rbx, rcx, rdx))
            except Fault as fault:
                yield from self._repair(fault)

    def _with_secinfo(self, leaf: int, flags: int, rcx: int, rdx: int = 0) -> Steps[Status | None]:
        yield from self.store(self.secinfo, _secinfo(flags))
        return (yield from self.enclu(leaf, self.secinfo, rcx, rdx))

    def eaccept(self, address: int, flags: int) -> Steps[Status | None]:
        """EACCEPT with SECINFO.FLAGS (`spec.epcm` bits)."""
        return self._with_secinfo(leaves.EACCEPT, flags, address)

    def accept_new(self, address: int) -> Steps[Status | None]:
        """EACCEPT of a page that EAUG added."""
        return self.eaccept(address, REG | PENDING | R | W)

    def accept_restricted(self, address: int, rights: int) -> Steps[Status | None]:
        """EACCEPT of a page after RESTRICT_PERMISSIONS."""
        return self.eaccept(address, REG | PR | rights)

    def accept_trim(self, address: int) -> Steps[Status | None]:
        """EACCEPT of a page that MODIFY_TYPES made PT_TRIM."""
        return self.eaccept(address, TRIM | MODIFIED)

    def accept_tcs(self, address: int) -> Steps[Status | None]:
        """EACCEPT of a page that MODIFY_TYPES made PT_TCS."""
        return self.eaccept(address, TCS | MODIFIED)

    def eacceptcopy(self, address: int, source: int, rights: int) -> Steps[Status | None]:
        """EACCEPTCOPY of `source` to the PENDING page `address`."""
        flags = REG | rights
        return self._with_secinfo(leaves.EACCEPTCOPY, flags, address, source)

    def emodpe(self, address: int, rights: int) -> Steps[None]:
        """EMODPE."""
        yield from self._with_secinfo(leaves.EMODPE, REG | rights & RWX, address)

    # Calls out

    def ocall(self, function: Callable[..., Steps[Any]], *args: Any) -> Steps[Any]:
        """EEXIT, run `function(host, *args)` on the host, EENTER with its answer.

        The answer comes from the host: untrusted.
        """
        yield from self.enclu(leaves.EEXIT, VDSO_ENCLU + leaves.ENCLU_LENGTH)
        answer: Any = yield Ocall(function, args)  # type: ignore[misc]
        return answer

    # Below the program

    def run(self, program: EnclaveProgram) -> Steps[Any]:
        """The program and then EEXIT; returns what the program returned, or its EnclaveAbort."""
        result: Any
        try:
            result = yield from program(self)
        except EnclaveAbort as abort:
            result = abort
        yield from self.enclu(leaves.EEXIT, VDSO_ENCLU + leaves.ENCLU_LENGTH)
        return result

    def _run(self, access: Callable[..., Any], address: int, operand: object) -> Steps[Any]:
        """Execute an access until it succeeds: interrupts and repaired faults are invisible."""
        while True:
            lp = self.lp
            if lp.tcs_address != self.tcs or lp.secs is None:
                lp = yield from self._be_inside()
            try:
                return access(lp, address, operand)
            except Fault as fault:
                yield from self._repair(fault)

    def _be_inside(self) -> Steps[LogicalProcessor]:
        """If an interrupt has taken the thread out, resume: the processor is at the AEP."""
        while (lp := self.lp).secs is None:  # the host may resume on another processor
            yield from self._resume()
        if lp.tcs_address != self.tcs:
            raise occupied(self.current)
        return lp

    def _resume(self) -> Steps[None]:
        self.current.run_user_code()
        try:
            yield from self.lp.enclu_steps(leaves.ERESUME, self.tcs, VDSO_ENCLU)
        except Fault as fault:
            # ERESUME itself faulted: the TCS or the SSA frame may have been swapped out.
            yield from self._repair(fault)

    def _repair(self, fault: Fault) -> Steps[None]:
        """Deliver an exception. Returns if it may be tried again; suspends the program if not."""
        delivered = self.lp.deliver_fault(fault)
        signal = yield from self._kernel(delivered)
        if signal is not None:
            end = Exit(leaves.ERESUME, delivered.vector, signal.error_code, delivered.cr2)
            yield Suspended(end, signal)  # type: ignore[misc]

    def _kernel(self, delivered: Delivered) -> Steps[Signal | None]:
        """The signal of an exception; None if the kernel repaired it."""
        return user_exception(self.current, delivered)
