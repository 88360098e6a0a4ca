"""Threads whose page faults, calls and computing take virtual time.

Points that exist only for their price are here, so that schedules of other rooms stay short: the
fault (AEX and the kernel's entry), the system call, the call out of the enclave, and computing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from softsgx.cpu.aex_eresume import aex_eresume
from softsgx.cpu.fault import Fault
from softsgx.linux.vdso import VDSO_ENCLU
from softsgx.sim import Steps
from softsgx.spec import faults, leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.structure import Structure
from softsgx.system.enclave import EnclaveThread
from softsgx.system.host import HostThread

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor, Status
    from softsgx.cpu.aex import Delivered
    from softsgx.linux.process import Signal
    from softsgx.sim import VirtualTime
    from softsgx.system.machine import Machine

_POINTS_MAX: Final = 50_000_000


class CannotWork(Exception):
    """The design lacks what the runtime or the program needs; the text says what that is."""


class Seat:
    """The figures of one thread of the measured program. Times are in cycles."""

    def __init__(self, number: int, host: MeasuredHost, tcs: int) -> None:
        self.number = number
        self.host = host
        self.tcs = tcs
        self.time: VirtualTime | None = None
        # Set while the thread computes: an interrupt is then followed by ERESUME at once.
        self.computing = False
        # Set while the thread changes permissions: its faults then do not count.
        self.changing = False
        # The last leaf; 0 if an access of the program came after it.
        self.leaf = 0
        self.useful = 0
        self.faults: list[int] = []
        self.changes: list[int] = []
        self.pages_changed = 0
        self.started = 0
        self.ended = 0

    def now(self) -> int:
        """The time, in cycles; 0 while nothing is measured."""
        return 0 if self.time is None else self.time.elapsed


class MeasuredThread(EnclaveThread):
    """Enclave code whose faults are timed. `args` is its Seat."""

    def enclu(self, leaf: int, rbx: int = 0, rcx: int = 0, rdx: int = 0) -> Steps[Status | None]:
        """As EnclaveThread.enclu; the seat keeps the leaf, for the text of a fault."""
        self.seat.leaf = leaf
        return super().enclu(leaf, rbx, rcx, rdx)

    def _run(self, access: Callable[..., Any], address: int, operand: object) -> Steps[Any]:
        self.seat.leaf = 0
        return super()._run(access, address, operand)

    @property
    def seat(self) -> Seat:
        """The figures of this thread."""
        seat: Seat = self.args
        return seat

    def compute(self, cycles: int) -> Steps[None]:
        """Work that touches nothing shared."""
        yield from self._be_inside()
        seat = self.seat
        seat.computing = True
        try:
            yield ("compute", cycles, False)
        finally:
            seat.computing = False
        seat.useful += cycles

    def wait(self, cycles: int) -> Steps[None]:
        """As `compute`, but not counted as useful work."""
        yield from self.compute(cycles)
        self.seat.useful -= cycles

    def ocall(self, function: Callable[..., Steps[Any]], *args: Any) -> Steps[Any]:
        """As EnclaveThread.ocall, with the price of the runtime's software."""
        yield ("ocall", "software", False)
        return (yield from super().ocall(function, *args))

    def _kernel(self, delivered: Delivered) -> Steps[Signal | None]:
        if delivered.vector != faults.PF:
            return (yield from super()._kernel(delivered))
        seat = self.seat
        start = seat.now()
        yield ("fault", ("lp", self.current.cpu), False)
        signal = yield from super()._kernel(delivered)
        if not seat.changing:
            seat.faults.append(seat.now() - start)
        return signal


class MeasuredHost(HostThread):
    """A host thread whose system calls have a price; one page holds its arguments."""

    arguments = 0

    def prepare(self) -> Steps[None]:
        """Allocate the page of arguments."""
        self.arguments = yield from self.alloc(PAGE_SIZE)

    def ioctl(self, fd: int, cmd: int, arg: int) -> Steps[int]:
        """ioctl(2)."""
        yield ("syscall", "ioctl", False)
        return (yield from super().ioctl(fd, cmd, arg))

    def mprotect(self, address: int, length: int, prot: int) -> Steps[int]:
        """mprotect(2)."""
        yield ("syscall", "mprotect", False)
        return (yield from super().mprotect(address, length, prot))

    def ioctl_block(self, fd: int, cmd: int, argument: Structure) -> Steps[tuple[int, Any]]:
        """An ioctl with its argument block in the page of arguments."""
        yield from self.store(self.arguments, argument.pack())
        ret = yield from self.ioctl(fd, cmd, self.arguments)
        raw = yield from self.load(self.arguments, argument.SIZE)
        return ret, type(argument).unpack(raw)

    def put_operand(self, data: bytes) -> Steps[int]:
        """Store further operands in the page of arguments; returns their address."""
        address = self.arguments + PAGE_SIZE // 2
        yield from self.store(address, data)
        return address


def resume_at_once(
    time: VirtualTime, seats: dict[int, Seat]
) -> Callable[[LogicalProcessor, int], object]:
    """For Kernel.take_interrupt: a thread that computes goes back into the enclave at once.

    The interrupt returns to the AEP, and the ERESUME there delays the computation.
    """

    def take(lp: LogicalProcessor, vector: int) -> object:
        seat = seats.get(lp.id)
        if seat is None or not seat.computing or lp.secs is None:
            return lp.interrupt(vector)
        if not aex_eresume(lp):
            lp.interrupt(vector)
            try:
                lp.enclu(leaves.ERESUME, seat.tcs, VDSO_ENCLU)
            except Fault:
                # The SSA frame may be gone; the thread then faults when it continues.
                return None
        time.charge(lp.id, "ERESUME")
        return None

    return take


def run_timed(
    machine: Machine, time: VirtualTime, bodies: Iterable[tuple[Steps[Any], int | None]]
) -> None:
    """Run tasks, each on its processor or on none, in virtual time to the end of all."""
    execution = machine.execution(time, record=False, max_steps=_POINTS_MAX)
    for body, cpu in bodies:
        execution.spawn(body, "timer" if cpu is None else f"thread {cpu}", cpu)
    execution.run()
    execution.close()
