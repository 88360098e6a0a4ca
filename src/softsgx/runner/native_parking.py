"""Threads that compute natively without end, and more of them than processors: some wait.

Whoever holds a lock and needs the supervisor (a page fault, an EACCEPT) would come back behind all
that spin for it, one round of the kernel's scheduler for each stop. So as long as there are more
threads inside than processors, a thread that used a whole period of the tick without a stop is
parked at its AEP, and the one that was parked first goes on: no processor is idle for it. A thread
that was served since its last tick is never parked.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from softsgx.runner.signals import signal_waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from softsgx.runner.tracee import Tracee

# Should those that run never make room, a parked thread goes on after so many seconds. Twice as
# many each time that it used a whole period again, up to the limit.
_PATIENCE_S: Final = 0.05
_PATIENCE_MAX_S: Final = 1.0
_DOUBLED_MAX: Final = 5  # then it is at the limit
_LOOKS: Final = 4  # parked threads whose signals are looked at when the timer rings


class Parking:
    """The parked threads, in the order in which they came. `running` counts those that run."""

    def __init__(self, running: Callable[[], int], ready: Callable[[Tracee], None]) -> None:
        self._running = running
        self._ready = ready
        self._parked: deque[tuple[Tracee, float]] = deque()  # and until when
        self.processors = len(os.sched_getaffinity(0))

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, t: Tracee) -> None:
        """A thread that was just interrupted. It may be the first to go on."""
        if not self._parked and self._running() < self.processors:
            self._ready(t)
            return
        state = t.native
        assert state is not None
        patience = min(_PATIENCE_S * 2**state.parked, _PATIENCE_MAX_S)
        state.parked = min(state.parked + 1, _DOUBLED_MAX)
        self._parked.append((t, time.monotonic() + patience))
        self.fill()

    def fill(self) -> None:
        """Let threads go on as far as there are processors for them."""
        room = self.processors - self._running() if self._parked else 0
        while self._parked and room > 0:
            self._ready(self._parked.popleft()[0])
            room -= 1

    def rung(self) -> None:
        """The timer rang: who waits for too long, or has a signal, goes on."""
        now = time.monotonic()
        for _ in range(min(_LOOKS, len(self._parked))):
            t, until = self._parked.popleft()
            if now >= until or signal_waits(t):
                self._ready(t)
            else:
                self._parked.append((t, until))
        self.fill()

    def forget(self, t: Tracee) -> None:
        """It is gone."""
        self._parked = deque(one for one in self._parked if one[0] is not t)
