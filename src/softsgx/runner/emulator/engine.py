"""The reference engine: enclave code is executed here, by one emulator for each address space.

Threads take turns, in slices. Enclave code is never executed in the process, so no stop of a thread
is caused by its enclave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.runner.code.trapped import ENCLU
from softsgx.runner.emulator.blocks import Why
from softsgx.runner.emulator.emulator import Emulator
from softsgx.runner.emulator.slice_clock import SliceClock
from softsgx.runner.emulator.turns import Turns
from softsgx.runner.enclaves.threads import EnclaveThreads, enclu_inside
from softsgx.runner.process.interruption import signal_pending
from softsgx.runner.process.tick import TIMER_VECTOR
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32
from softsgx.spec.registers import RAX, RIP

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.inserted.records import AnyMailboxes
    from softsgx.runner.inserted.vdso import VdsoImage
    from softsgx.runner.process.space import Space
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.process.world import World

_SLICES_BETWEEN_LOOKS: Final = 4


class Emulated:
    """A thread: its seconds of emulation, in all and at its last tick, and its number of slices."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.ticked = 0.0
        self.slices = 0


class EmulatorEngine:
    """An `enclaves.engine.Engine`: the threads that are inside, and whose turn it is."""

    in_process: Final = False

    def __init__(
        self, world: World, mailboxes: AnyMailboxes, doorbell: Doorbell, vdso: VdsoImage
    ) -> None:
        self.world = world
        self.doorbell = doorbell
        self.threads = EnclaveThreads(world, mailboxes, vdso, self)
        self.emulated = 0.0
        self.worked: Callable[[Tracee, float], None] = lambda t, seconds: None
        self._turns = Turns()
        self._clock = SliceClock()
        self._states: dict[Tracee, Emulated] = {}
        self._emulators: dict[Space, Emulator] = {}

    # Into the enclave

    def request(self, t: Tracee, mailbox: int) -> None:
        """As Engine.request."""
        self.threads.requested(t, mailbox)
        self._enter(t)

    def trapped(self, t: Tracee, regs: list[int], rip: int) -> None:
        """As Engine.trapped."""
        self.threads.trapped(t, regs, rip)
        self._enter(t)

    def _enter(self, t: Tracee) -> None:
        if self.threads.enclu_outside(t):
            if t.space not in self._emulators:
                host = t.space.attach_memory()
                part = self.world.machine.processor.part
                self._emulators[t.space] = Emulator(self.world.memory, host, self.doorbell, part)
            if t not in self._states:
                self._states[t] = Emulated()
            self._slice(t)

    # Slices

    def waits(self, t: Tracee) -> bool:
        """As Engine.waits."""
        return not t.inside

    def turn(self) -> bool:
        """As Engine.turn: a slice of the thread whose turn it is."""
        if not self._turns:
            return False
        self._slice(self._turns.popleft())
        return True

    def _slice(self, t: Tracee) -> None:
        emulator, state, clock = self._emulators[t.space], self._states[t], self._clock
        lp = t.lp
        t.make_current()
        while True:
            if lp.secs is None and not self.threads.resumed(t):
                return
            if self.world.tick.due(state, state.seconds):
                lp.interrupt(TIMER_VECTOR)  # the kernel handles the timer, and returns to the AEP
                continue
            clock.begin()
            stop = emulator.run(lp, alone=not self._turns)
            spent = clock.end()
            state.seconds += spent
            self.emulated += spent
            self.worked(t, spent)
            if stop.why is Why.ENCLU:
                self._enclu(t)
            elif stop.why is Why.FAULT:
                assert stop.fault is not None
                self.threads.fault_inside(t, stop.fault)
            else:
                self._end_of_slice(t, state, stop.why in (Why.PAUSE, Why.SPIN))
                return
            if not t.inside:
                return
            if self.doorbell.rung:
                self._end_of_slice(t, state)
                return

    def _enclu(self, t: Tracee) -> None:
        lp = t.lp
        leaf = lp.regs[RAX] & MASK32
        fault = enclu_inside(lp)
        if fault is not None:
            self.threads.fault_inside(t, fault)
        elif leaf == leaves.EEXIT:
            self.threads.leave(t)
        else:
            lp.regs[RIP] += len(ENCLU)

    def _end_of_slice(self, t: Tracee, state: Emulated, waits: bool = False) -> None:
        state.slices += 1
        if t.mailbox is None and state.slices % _SLICES_BETWEEN_LOOKS == 0 and signal_pending(t):
            # Stopped by ptrace, a thread does not get its signals: let it go to the AEP.
            t.lp.interrupt()
            self.threads.leave(t)
            return
        self._turns.append(t, waits)

    # Stops: while a thread is inside, it waits in its mailbox or is stopped at its ENCLU.

    def rung(self) -> None:
        """Nothing to do: the engine has no timer."""

    def stopped(self, t: Tracee, number: int, event: int) -> bool:
        """False: no stop is one of enclave code."""
        return False

    def served(self, t: Tracee) -> None:
        """Nothing to do."""

    def settle(self) -> None:
        """Nothing to do: logical processors are always up to date."""

    def on_the_way(self, t: Tracee, regs: list[int]) -> bool:
        """False: the engine has no instructions in the process."""
        return False

    def interrupted(self, t: Tracee) -> None:
        """As Engine.interrupted."""
        if t in self._turns:
            self._turns.remove(t)
        self.threads.interrupted(t)

    def put_registers(self, t: Tracee) -> None:
        """As Engine.put_registers."""
        self.threads.put_registers(t)

    # Processes

    def forked(self, parent: Tracee, child: Tracee) -> None:
        """Nothing to do: the child gets its own emulator at its first entry."""

    def gone(self, t: Tracee) -> None:
        """As Engine.gone."""
        if t in self._turns:
            self._turns.remove(t)
        self._states.pop(t, None)
        self.threads.gone(t)

    def closed(self, space: Space) -> None:
        """As Engine.closed."""
        emulator = self._emulators.pop(space, None)
        if emulator is not None:
            emulator.close()
