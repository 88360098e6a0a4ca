"""Processor time of slices, without asking the kernel for each: most take some microseconds.

The kernel counts processor time exactly, but a look costs 0.5 us, and a slice needs two. The time
of the day costs 0.05 us, and is as good for a short slice, which is rarely preempted. A longer one
is counted as no more than the processor time that this thread has used since the last look.
"""

from __future__ import annotations

import time
from typing import Final

_SHORT_S: Final = 1e-4
_LOOK_S: Final = 1e-3
"""The time between two slices after which the kernel is asked again before the second."""


class SliceClock:
    """Measures one slice after the other, in seconds."""

    def __init__(self) -> None:
        self._began = 0.0
        self._looked = 0.0  # the time of the last look
        self._used = 0.0  # processor time at the last look

    def begin(self) -> None:
        """A slice begins."""
        now = self._began = time.perf_counter()
        if now - self._looked > _LOOK_S:
            self._looked, self._used = now, time.thread_time()

    def end(self) -> float:
        """The slice is over: its processor time."""
        now = time.perf_counter()
        spent = now - self._began
        if spent < _SHORT_S:
            return spent
        used, before = time.thread_time(), self._used
        self._looked, self._used = now, used
        return min(spent, used - before)
