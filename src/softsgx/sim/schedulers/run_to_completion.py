"""The scheduler without preemption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.sim.scheduler import OneExecution

if TYPE_CHECKING:
    from softsgx.sim.task import Task


class RunToCompletion(OneExecution):
    """The current task goes on as long as it is enabled, then the one of lowest index. Draws 0."""

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The current task, or else the first."""
        return current or enabled[0]
