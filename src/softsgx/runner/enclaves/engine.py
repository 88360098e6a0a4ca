"""What executes the code of enclaves: the protocol that the supervisor and `EnclaveThreads` use.

There are two: `runner.emulator.engine` executes the code here, in slices; with
`runner.native.engine` the program's own threads execute it, on the real processor. They share no
base class. What the kernel, the vDSO and ENCLU outside have to do with a thread in an enclave is
the same for both, and stands in `EnclaveThreads`, which each engine has one of. What differs is
this protocol. As a base class, the same code had to be read together with the slices of one engine
and with empty methods for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from softsgx.runner.enclaves.threads import EnclaveThreads, Executing

if TYPE_CHECKING:
    from softsgx.runner.process.space import Space
from softsgx.runner.process.tracee import Tracee


class Engine(Executing, Protocol):
    """An engine keeps what it knows of threads and address spaces; `Tracee` and `Space` do not.

    Methods may raise one of `ptrace.GONE`: the thread was killed, and its end will be reported.
    """

    threads: EnclaveThreads
    emulated: float  # seconds of processor time that the supervisor itself has executed code
    worked: Callable[[Tracee, float], None]  # is called with each part of `emulated`

    @property
    def in_process(self) -> bool:
        """Whether the program's own threads execute the code of enclaves.

        Then system calls in it have to be stopped, EPC is mapped in the process, and the kernel
        counts the processor time.
        """

    # Into the enclave. `Tracee.inside` is set until the thread goes on outside.

    def request(self, t: Tracee, mailbox: int) -> None:
        """Execute the ENCLU that a thread outside asks for in its mailbox, and what follows."""

    def trapped(self, t: Tracee, regs: list[int], rip: int) -> None:
        """The same for a thread that ptrace has stopped; its ENCLU is at `rip`."""

    def turn(self) -> bool:
        """Continue one of the threads inside that wait for it; False if there is none."""

    def rung(self) -> None:
        """The doorbell rang, perhaps because of a timer of the engine."""

    # Stops of threads

    def stopped(self, t: Tracee, number: int, event: int) -> bool:
        """A thread is stopped by signal `number`, or by `event`. True if it was inside.

        Then the stop has been dealt with; otherwise it concerns the program outside.
        """

    def on_the_way(self, t: Tracee, regs: list[int]) -> bool:
        """If a stopped thread is at an instruction of the engine, before it has entered: back to
        the ENCLU. False if it is not."""

    def interrupted(self, t: Tracee) -> None:
        """A signal reached a thread that waits in its mailbox: AEX, and it is at the AEP."""

    # Processes

    def forked(self, parent: Tracee, child: Tracee) -> None:
        """The address space of `parent` was copied, the model's as well."""

    def gone(self, t: Tracee) -> None:
        """The thread has died."""

    def closed(self, space: Space) -> None:
        """The last thread of an address space has left it."""
