"""A machine, a host thread, and perhaps an enclave: the start of most tests of the driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from softsgx.linux.kernel import Kernel
from softsgx.linux.mm import Mm
from softsgx.linux.sgx.driver import encl_of
from softsgx.linux.sgx.encl import SgxEncl
from softsgx.linux.uapi import MAP_FIXED, MAP_SHARED
from softsgx.sim import Cooperative, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import Enclave, EnclaveFault, EnclaveThread, HostThread, Machine, load
from softsgx.system.loader import build, default_image, reserve

T = TypeVar("T")


@dataclass
class World:
    """`enclave` is the one under test; `host` the thread that made it, on processor 0."""

    machine: Machine
    host: HostThread
    enclave: Enclave

    def do(self, body: Steps[T]) -> T:
        """Run one body to its end, the reclaim daemon beside it."""
        return self.machine.run(body)

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return self.machine.kernel

    @property
    def mm(self) -> Mm:
        """The address space of the host."""
        return self.host.thread.mm

    @property
    def encl(self) -> SgxEncl:
        """The kernel's object of the enclave; its descriptor must be open."""
        return encl_of(self.host.process.files[self.enclave.fd])

    def call(self, program: Callable[[EnclaveThread], Steps[Any]], args: Any = None) -> Any:
        """Run enclave code on the first thread; its result."""
        return self.do(self.enclave.call(self.host, program, args=args))

    def fault(self, program: Callable[[EnclaveThread], Steps[Any]], args: Any = None) -> Fault:
        """Run enclave code that an exception ends: vector, code and address of the vDSO."""
        try:
            result = self.call(program, args)
        except EnclaveFault as fault:
            run = fault.run
            assert run.function == 3
            return run.exception_vector, run.exception_error_code, run.exception_addr
        raise AssertionError(f"no exception; the program returned {result!r}")

    def map(self, address: int, prot: int, length: int = PAGE_SIZE) -> int:
        """mmap of the enclave, MAP_SHARED | MAP_FIXED."""
        flags = MAP_SHARED | MAP_FIXED
        return self.do(self.host.mmap(address, length, prot, flags, self.enclave.fd))

    def protect(self, address: int, prot: int, length: int = PAGE_SIZE) -> int:
        """mprotect."""
        return self.do(self.host.mprotect(address, length, prot))

    def areas(self, start: int, length: int) -> list[tuple[int, int]]:
        """(pages, rights) of the areas in a range, in order; an enclave's areas only."""
        found = self.mm.for_each_vma(start, start + length)
        return [((v.end - v.start) // PAGE_SIZE, v.flags) for v in found if v.sgx]

    def all_epc_free(self) -> bool:
        """Whether all of EPC is free, and the kernel gave no warning."""
        self.machine.settle()
        return self.kernel.nr_free == self.machine.processor.epc.pages and not self.kernel.warnings


Fault = tuple[int, int, int]


def signalled(host: HostThread) -> None:
    """From now on a signal arrives at the beginning of each ioctl of this thread."""
    ioctl = host.ioctl

    def interrupted(fd: int, cmd: int, arg: int) -> Steps[int]:
        host.thread.pending_signals = 1
        return (yield from ioctl(fd, cmd, arg))

    setattr(host, "ioctl", interrupted)  # noqa: B010 - a method of this one object


def world(machine: Machine | None = None, **layout: int) -> World:
    """An enclave that is built and mapped; `layout` as for `default_image`."""
    machine = machine or Machine(cpus=4, epc="1M")
    host = machine.thread()
    return World(machine, host, machine.run(load(host, default_image(**layout))))


def unmapped(machine: Machine | None = None, early: int | None = None, **layout: int) -> World:
    """An initialised enclave that no address space has mapped yet; its range is reserved.

    With `early`: mapped with these rights before CREATE, and the same length after it as well.
    """
    machine = machine or Machine(cpus=4, epc="1M")
    host = machine.thread()
    image = default_image(**layout)
    fd = machine.run(host.open())
    base = machine.run(reserve(host, image.size))
    if early is not None:
        flags = MAP_SHARED | MAP_FIXED
        assert machine.run(host.mmap(base, 2 * image.size, early, flags, fd)) == base
    machine.run(build(host, fd, base, image))
    enclave = Enclave(fd, base, image.size, image)
    for segment in image.segments:
        if segment.label == "data":
            enclave.data = list(range(base + segment.offset, base + segment.end, PAGE_SIZE))
    enclave.heap = base + max(segment.end for segment in image.segments)
    return World(machine, host, enclave)


def together(w: World, *bodies: tuple[int, Steps[Any]]) -> None:
    """Run bodies, each on its processor: one goes on until it blocks or retries, then the next."""
    execution = w.machine.execution(Cooperative())
    for cpu, body in bodies:
        execution.spawn(body, f"task of cpu {cpu}", cpu)
    execution.run()
    execution.close()
