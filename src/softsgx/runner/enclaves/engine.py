"""What executes the code of enclaves: the protocol that the supervisor and `EnclaveThreads` use.

There are two: `runner.emulator.engine` executes the code in this process, in slices; with
`runner.native.engine` the program's own threads execute it, on the real processor. They share no
base class. What the kernel, the vDSO and ENCLU outside do with a thread in an enclave is the same
for both. It is in `EnclaveThreads`, of which each engine has one. What differs is this protocol.
When the common code was a base class, it had to be read together with the slices of one engine and
with empty methods for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from softsgx.runner.enclaves.threads import EnclaveThreads, Executing

if TYPE_CHECKING:
    from softsgx.runner.process.space import Space
from softsgx.runner.process.tracee import Tracee


class Engine(Executing, Protocol):
    """An engine keeps its state of threads and address spaces itself, not in `Tracee` or `Space`.

    Methods may raise one of `ptrace.GONE`: the thread was killed, and its end will be reported.
    """

    threads: EnclaveThreads
    emulated: float  # processor time of enclave code executed by the supervisor, in seconds
    worked: Callable[[Tracee, float], None]  # is called with each part of `emulated`

    @property
    def in_process(self) -> bool:
        """Whether the program's own threads execute the code of enclaves.

        If so, system calls in it must be stopped, EPC is mapped in the process, and the kernel
        counts the processor time.
        """

    # Into the enclave. `Tracee.inside` is set until the thread goes on outside.

    def request(self, t: Tracee, mailbox: int) -> None:
        """Execute the ENCLU that a thread outside requests in its mailbox, and what follows."""

    def trapped(self, t: Tracee, regs: list[int], rip: int) -> None:
        """As `request`, for a thread that ptrace has stopped; its ENCLU is at `rip`."""

    def waits(self, t: Tracee) -> bool:
        """Whether a thread that has a request in its mailbox is outside."""

    def turn(self) -> bool:
        """Continue one of the threads inside that wait for the engine; False if none waits."""

    def served(self, t: Tracee) -> None:
        """Called when the driver has served a call of a stopped thread, before that goes on."""

    def rung(self) -> None:
        """Called when the doorbell rang, perhaps because of a timer of the engine."""

    # Stops of threads

    def stopped(self, t: Tracee, number: int, event: int) -> bool:
        """Handle the stop of a thread by signal `number` or by `event`; True if it was inside.

        False if it was outside: the stop concerns the program, and nothing was done.
        """

    def on_the_way(self, t: Tracee, regs: list[int]) -> bool:
        """Set a stopped thread back to its ENCLU if it is in code of the engine, not yet entered.

        False if it is not there.
        """

    def interrupted(self, t: Tracee) -> None:
        """A signal has stopped a thread that waits in its mailbox: AEX, and move it to the AEP."""

    # Processes

    def forked(self, parent: Tracee, child: Tracee) -> None:
        """Called when the address space of `parent`, and its model, were copied for `child`."""

    def gone(self, t: Tracee) -> None:
        """Forget a thread that has died."""

    def closed(self, space: Space) -> None:
        """Forget an address space whose last thread has left it."""
