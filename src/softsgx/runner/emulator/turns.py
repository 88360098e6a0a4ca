"""Whose turn it is, among the threads that are inside and wait for the emulator.

Threads whose code was waiting when its slice ended have a queue of their own. Their turns are
short, and between two of them a thread of the other queue has a whole slice. So the holder of a
lock does not wait for all threads that spin for it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee


class Turns:
    """Threads in the order of their turns."""

    def __init__(self) -> None:
        self._working: deque[Tracee] = deque()
        self._waiting: deque[Tracee] = deque()
        self._waiting_next = False

    def __len__(self) -> int:
        return len(self._working) + len(self._waiting)

    def __contains__(self, t: object) -> bool:
        return t in self._working or t in self._waiting

    def append(self, t: Tracee, waits: bool = False) -> None:
        """To the end of its queue; `waits` if its code does nothing but wait."""
        (self._waiting if waits else self._working).append(t)

    def remove(self, t: Tracee) -> None:
        """Take a thread out of its queue."""
        (self._working if t in self._working else self._waiting).remove(t)

    def popleft(self) -> Tracee:
        """The thread whose turn it is."""
        first, second = self._working, self._waiting
        if self._waiting_next:
            first, second = second, first
        self._waiting_next = not self._waiting_next
        return (first or second).popleft()
