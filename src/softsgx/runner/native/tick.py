"""The timer tick for threads that run natively (`tick` has it for the reference engine).

While threads may be inside, a timer of the supervisor rings the doorbell. A thread that has used a
period of processor time since its last tick, and is inside an enclave, is interrupted: AEX, and the
ERESUME of its AEP. One that is outside at that moment has taken its tick there.
"""

from __future__ import annotations

import signal
from collections import deque
from typing import TYPE_CHECKING, Final

from softsgx.runner.native.parking import Parking
from softsgx.runner.process.tick import TIMER_VECTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.native.armed import Armed
    from softsgx.runner.process.tick import Tick
    from softsgx.runner.process.tracee import Tracee

# Threads whose processor time is looked at when the timer rings; the others come next time. More
# than that cannot have used much of it since.
_LOOKS: Final = 8


class NativeTick:
    """The timer, and the threads it is for."""

    def __init__(
        self, tick: Tick, doorbell: Doorbell, armed: Armed, ready: Callable[[Tracee], None]
    ) -> None:
        self.tick = tick
        self.doorbell = doorbell
        self.armed = armed
        self.threads: deque[Tracee] = deque()  # all that have been inside
        self._running = False
        self._stops = 0  # of all threads, when the timer rang last
        self._served = False  # whether somebody was served between the last two times
        self.parking = Parking(self.running, ready)

    def add(self, t: Tracee) -> None:
        """A thread is about to enter for the first time."""
        self.threads.append(t)

    def forget(self, t: Tracee) -> None:
        """It is gone."""
        self.threads.remove(t)
        self.parking.forget(t)

    def start(self) -> None:
        """A thread goes in."""
        if self._running or not self.tick.on:
            return
        self._running = True
        self.doorbell.ring_every(self.tick.period)

    def rung(self) -> None:
        """The doorbell rang; if it was the timer, interrupt whom it is for."""
        if not self._running or not self.doorbell.came(signal.SIGALRM):
            return
        threads = self.threads
        looks = 0
        for _ in range(len(threads)):
            t = threads[0]
            threads.rotate(-1)
            if self._may_be_inside(t):
                self._look(t)
                looks += 1
                if looks == _LOOKS:
                    break
        stops = sum(t.native.stops for t in threads if t.native is not None)
        self._served, self._stops = stops != self._stops, stops
        self.parking.rung()
        if not self.parking and not any(self.running()):
            self.doorbell.ring_every(0)
            self._running = False

    def running(self) -> tuple[int, bool]:
        """How many threads only compute, and whether others are inside or were served lately."""
        inside = [t.native for t in self.threads if self._may_be_inside(t)]
        quiet = sum(state is not None and state.quiet for state in inside)
        return quiet, self._served or len(inside) > quiet

    def _may_be_inside(self, t: Tracee) -> bool:
        state = t.native
        return state is not None and (state.running or t in self.armed.threads)

    def _look(self, t: Tracee) -> None:
        used = processor_time(t.tid)
        if used - t.ticked < self.tick.period:
            return
        t.ticked = used
        state = t.native
        assert state is not None
        if not state.running and self.armed.claimed(t):
            self.armed.settle()  # it entered by itself: now it is inside in the model, too
        if state.running:
            state.quiet = state.yields = state.stops == state.stops_at_tick
            if not state.quiet:
                state.turn = 0
            state.stops_at_tick = state.stops
            t.lp.interrupt(TIMER_VECTOR)


def processor_time(tid: int) -> float:
    """Seconds that a thread has run, 0 if it is gone. man 5 proc, /proc/pid/schedstat."""
    try:
        with open(f"/proc/{tid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9
    except FileNotFoundError:
        return _by_clock_ticks(tid)
    except (OSError, IndexError):
        return 0.0


def _by_clock_ticks(tid: int) -> float:
    """On a kernel without CONFIG_SCHED_INFO."""
    try:
        with open(f"/proc/{tid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100  # USER_HZ
