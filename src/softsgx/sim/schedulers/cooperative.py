"""A scheduler without preemption, but a task that retries gives way to the one it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.sim.point import RETRY
from softsgx.sim.scheduler import OneExecution

if TYPE_CHECKING:
    from softsgx.sim.task import Task


class Cooperative(OneExecution):
    """The current task goes on until it blocks or is about to retry; then the next one in turn.

    A task at a RETRY point spins: it waits for what only another task can bring about.
    """

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The current task; or, if it retries or is blocked, the next by index, round robin."""
        if current is not None and current.point[0] != RETRY:
            return current
        last = -1 if current is None else current.index
        for task in enabled:
            if task.index > last:
                return task
        return enabled[0]
