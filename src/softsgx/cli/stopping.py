"""When a search stops early: the time is up, or Ctrl-C was pressed."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any, Final

from softsgx.explore.limits import Deadline, no_deadline

FINISH: Final = 0.05
"""How much longer than its time a search may confirm, minimise and estimate, as a part of it."""

SHOW: Final = 0.1
"""How much longer than its time a search may show its failure, as a part of it."""


def leave_interrupts_to_parent() -> None:
    """For a worker process: Ctrl-C reaches it, too, but its parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Stopping:
    """A deadline for `explore`: calling it says whether to stop.

    After the first Ctrl-C the search ends with what it has; a second one is a KeyboardInterrupt.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.end = None if seconds is None else time.time() + seconds
        # Not empty after Ctrl-C; shares of the time have the same one. Asked before every step.
        self._presses: list[int] = []
        self._before: Any = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return bool(self._presses)

    def __call__(self) -> bool:
        if self._presses:
            return True
        end = self.end
        return end is not None and time.time() >= end

    @property
    def left(self) -> float | None:
        """Seconds until the time is up; None without a limit."""
        return None if self.end is None else max(0.0, self.end - time.time())

    def finishing(self) -> Deadline:
        """When to stop what follows a search: FINISH later, or at Ctrl-C."""
        late = self._later(FINISH)
        return lambda: self.interrupted or late()

    def showing(self) -> Deadline:
        """When to stop showing a failure: SHOW later, whether or not Ctrl-C was pressed."""
        return self._later(SHOW)

    def _later(self, part: float) -> Deadline:
        if self.end is None or self.seconds is None:
            return no_deadline
        end = self.end + part * self.seconds
        return lambda: time.time() >= end

    def share(self, parts: int) -> Stopping:
        """This deadline for one of `parts` equal shares of the remaining time."""
        left = self.left
        return self._share(None if left is None else left / parts)

    def within(self, seconds: float) -> Stopping:
        """This deadline, but at most `seconds` from now."""
        left = self.left
        return self._share(seconds if left is None else min(seconds, left))

    def _share(self, seconds: float | None) -> Stopping:
        share = Stopping(seconds)
        share._presses = self._presses
        return share

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self._presses:
            raise KeyboardInterrupt
        self._presses.append(number)
