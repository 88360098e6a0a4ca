"""The scheduler without preemption that does not starve anyone who is waited for by retrying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.sim.point import RETRY

if TYPE_CHECKING:
    from softsgx.sim.task import Task


class Cooperative:
    """The current task goes on until it blocks or is about to retry; then the next one in turn.

    A task at a RETRY point spins: it waits for what only another task can bring about.
    """

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> bool:
        """True once: there is only one such execution."""
        first = not self._begun
        self._begun = True
        return first

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The current task; or, if it retries or is blocked, the next by index, round robin."""
        if current is not None and current.point[0] != RETRY:
            return current
        last = -1 if current is None else current.index
        for task in enabled:
            if task.index > last:
                return task
        return enabled[0]

    def draw(self, n: int, what: str) -> int:
        """The ordinary course."""
        return 0
