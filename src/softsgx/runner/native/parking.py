"""Parking: if more threads compute natively without end than there are processors, some wait.

A thread that holds a lock and needs the supervisor (a page fault, an EACCEPT) would wait, at each
stop, until the kernel's scheduler has run all threads that spin for the lock. So a thread that has
used a whole period of the tick without a stop of its own, and that stands where a tick has found it
before, is parked at its AEP once such threads run on all processors, and the thread that was parked
first goes on. One that has just got the lock stands elsewhere. While other threads have stops, one
processor is left to them and to the supervisor.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import ptrace as p
from softsgx.runner.process.interruption import signal_pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.runner.native.state import Inside

_TURN: Final = 5  # periods of the tick, while others are parked
# A parked thread goes on after this time even if no processor is free.
_PATIENCE_S: Final = 1.0
_LOOKS: Final = 4  # parked threads that are checked for signals when the timer rings


class Parking:
    """The parked threads, in the order in which they came.

    `running` returns how many threads only compute, and whether others have stops.
    """

    def __init__(
        self, running: Callable[[], tuple[int, bool]], ready: Callable[[Inside], None]
    ) -> None:
        self._running = running
        self._ready = ready
        self._parked: deque[tuple[Inside, float]] = deque()  # with the time to go on
        self.processors = len(os.sched_getaffinity(0))

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, state: Inside) -> None:
        """Park a thread that was just interrupted, unless a processor is free for it."""
        state.turn += 1
        if self._room() > 0 and (state.turn < _TURN or not self._parked):
            self._ready(state)
            return
        state.turn = 0
        self._parked.append((state, time.monotonic() + _PATIENCE_S))
        self.fill()

    def _room(self) -> int:
        """How many more threads may compute."""
        quiet, others = self._running()
        return (max(self.processors - 1, 1) if others else self.processors) - quiet

    def fill(self) -> None:
        """Let as many threads go on as there are processors for."""
        room = self._room() if self._parked else 0
        while self._parked and room > 0:
            self._ready(self._parked.popleft()[0])
            room -= 1

    def rung(self) -> None:
        """When the timer rang: continue threads that have waited too long or have a signal."""
        now = time.monotonic()
        for _ in range(min(_LOOKS, len(self._parked))):
            state, until = self._parked.popleft()
            if now >= until or _wanted(state):
                self._ready(state)
            else:
                self._parked.append((state, until))
        self.fill()

    def forget(self, state: Inside) -> None:
        """Forget a thread that is gone."""
        self._parked = deque(one for one in self._parked if one[0] is not state)


def _wanted(state: Inside) -> bool:
    """Whether a thread has a signal, or is gone: then it is noticed where it would go on."""
    try:
        return signal_pending(state.t)
    except p.GONE:
        return True
