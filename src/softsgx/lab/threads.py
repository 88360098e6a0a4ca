"""One program on several enclave threads, each on a processor of its own, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from softsgx.image.image import EnclaveImage
from softsgx.lab.measured import MeasuredHost, MeasuredThread, Seat, resume_at_once, run_timed
from softsgx.lab.prices import Profile
from softsgx.linux.version import NO_RACES
from softsgx.sim import Steps, VirtualTime
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system.loaded_enclave import Enclave
from softsgx.system.loader import load
from softsgx.system.machine import Machine

# Its argument is a MeasuredThread.
EnclaveBody = Callable[[Any], Steps[None]]


class Threads:
    """An enclave that is loaded, with a seat for each of its threads; what follows is timed."""

    def __init__(
        self, profile: Profile, image: EnclaveImage, threads: int, epc_pages: int, **time: int
    ) -> None:
        self.machine = Machine(cpus=threads, epc=epc_pages * PAGE_SIZE, races=NO_RACES)
        kernel, process = self.machine.kernel, self.machine.process()
        hosts = [MeasuredHost(kernel, process, f"thread {n}", n) for n in range(threads)]
        self.enclave: Enclave = self.machine.run(load(hosts[0], image))
        self.enclave.thread_type = MeasuredThread
        self.seats = [Seat(n, host, self.enclave.tcs[n]) for n, host in enumerate(hosts)]
        self.time = VirtualTime({**profile.prices(self.machine.processor), **time})
        by_cpu = {seat.number: seat for seat in self.seats}
        kernel.take_interrupt = resume_at_once(self.time, by_cpu)

    def warm(self) -> None:
        """Enter with every thread once, untimed: its SSA frame and its SECINFO are there."""

        def program(t: Any) -> Steps[None]:
            yield from t.store(t.secinfo, bytes(8))

        for seat in self.seats:
            self.machine.run(self.call(seat, program))

    def call(self, seat: Seat, program: EnclaveBody) -> Steps[Any]:
        """Enter the enclave with one thread, and run the program there."""
        call: Steps[Any] = self.enclave.call(seat.host, program, thread=seat.number, args=seat)
        return call

    def run(self, program: EnclaveBody, *others: tuple[Steps[Any], None]) -> VirtualTime:
        """Run the program on all threads at once, next to other tasks; the time has the counts."""
        for seat in self.seats:
            seat.time = self.time
        bodies = [(self.call(seat, program), seat.number) for seat in self.seats]
        run_timed(self.machine, self.time, (*bodies, *others))
        return self.time
