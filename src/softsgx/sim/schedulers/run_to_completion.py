"""The scheduler without preemption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softsgx.sim.task import Task


class RunToCompletion:
    """The current task goes on as long as it is enabled, then the one of lowest index. Draws 0."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> bool:
        """True once: there is only one such execution."""
        first = not self._begun
        self._begun = True
        return first

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The current task, or else the first."""
        return current or enabled[0]

    def draw(self, n: int, what: str) -> int:
        """The ordinary course."""
        return 0
