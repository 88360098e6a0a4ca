"""The timer tick for threads that run natively.

While threads may be inside, a timer of the supervisor rings the doorbell. A thread that has used a
period of processor time since its last tick, and is inside an enclave, is interrupted: AEX, and the
ERESUME at its AEP. A thread that is outside at that moment has taken its tick there.

A thread that waits for a processor stops only when it gets one. A thread that is not traced is just
asked to, and takes its tick when it reports; for one that is traced the supervisor waits.
"""

from __future__ import annotations

import signal
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import ptrace as p
from softsgx.runner.native.parking import Parking
from softsgx.runner.process.overdue import Overdue
from softsgx.runner.process.tick import TIMER_VECTOR, processor_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.native.armed import Armed
    from softsgx.runner.native.state import Inside
    from softsgx.runner.process.tick import Tick

# Threads whose processor time is read each time the timer rings; the others wait for the next time.
# With more threads than this, each uses little processor time between two rings.
_LOOKS: Final = 8


class NativeTick:
    """The timer, and the threads that it interrupts."""

    def __init__(
        self, tick: Tick, doorbell: Doorbell, armed: Armed, ready: Callable[[Inside], None]
    ) -> None:
        self.tick = tick
        self.doorbell = doorbell
        self.armed = armed
        self.threads: deque[Inside] = deque()  # all that were ever inside
        self._running = False
        self._stops = 0  # of all threads, when the timer last rang
        self._served = False  # whether a thread had a stop between the last two rings
        self.parking = Parking(self.running, ready)

    def add(self, state: Inside) -> None:
        """Add a thread that is about to enter for the first time."""
        self.threads.append(state)

    def forget(self, state: Inside) -> None:
        """Forget a thread that is gone."""
        self.threads.remove(state)
        self.parking.forget(state)

    def start(self) -> None:
        """Start the timer, as a thread enters."""
        if self._running or not self.tick.on:
            return
        self._running = True
        self.doorbell.ring_every(self.tick.period)

    def rung(self) -> None:
        """Called when the doorbell rang: if the timer rang it, interrupt threads that are due."""
        if not self._running or not self.doorbell.came(signal.SIGALRM):
            return
        threads = self.threads
        looks = 0
        for _ in range(len(threads)):
            state = threads[0]
            threads.rotate(-1)
            if self._may_be_inside(state):
                self._look(state)
                looks += 1
                if looks == _LOOKS:
                    break
        stops = sum(state.stops for state in threads)
        self._served, self._stops = stops != self._stops, stops
        self.parking.rung()
        if not self.parking and not any(self.running()):
            self.doorbell.ring_every(0)
            self._running = False

    def running(self) -> tuple[int, bool]:
        """How many threads only compute; whether others are inside or had stops lately."""
        inside = [state for state in self.threads if self._may_be_inside(state)]
        quiet = sum(state.quiet for state in inside)
        return quiet, self._served or len(inside) > quiet

    def _may_be_inside(self, state: Inside) -> bool:
        return state.running or state.t in self.armed.threads

    def _look(self, state: Inside) -> None:
        t = state.t
        if not self.tick.due(state, processor_time(t.tid)):
            return
        self.armed.look(t)
        if not state.running and self.armed.claimed(t):
            self.armed.settle()  # it has entered without asking: now it is inside in the model, too
        if state.running:
            state.quiet = state.yields = state.stops == state.stops_at_tick
            if not state.quiet:
                state.turn = 0
            state.stops_at_tick = state.stops
            held = p.HELD.get(t.tid)
            if held is not None:
                self._ask(state, held)
            else:
                t.lp.interrupt(TIMER_VECTOR)

    def _ask(self, state: Inside, held: p.Held) -> None:
        """Have a thread stop by itself; one that runs on and on without doing so is killed."""
        if state.asked is None:
            state.asked = Overdue(state.t.tid)
        if state.asked.look():
            held.senseless()
            return
        with suppress(*p.GONE):  # killed meanwhile: its end comes next
            p.request(p.PTRACE_INTERRUPT, state.t.tid)
