"""The interface of schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from softsgx.sim.task import Task


class Scheduler(Protocol):
    """Three decisions. All else about an execution follows from them.

    A caller that runs several executions calls begin() before each; Execution never does.
    """

    def begin(self) -> bool:
        """Make ready for the next execution; False when there is none left."""

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """One of the enabled tasks, to take its next step.

        Called before every step, even if only one task is enabled, because time passes at each.
        `enabled` is in the order of the indices; it belongs to the execution and changes after the
        call. `current` is the task that took the last step if it is enabled, else None. To choose
        another task while `current` is not None is a preemption.
        """

    def draw(self, n: int, what: str) -> int:
        """A number in [0, n), n > 1. By convention 0 is the ordinary course: no fault, no lie."""


class OneExecution:
    """Base of the schedulers with a fixed rule: one execution, in which every draw is 0."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> bool:
        """True the first time."""
        first = not self._begun
        self._begun = True
        return first

    def draw(self, n: int, what: str) -> int:
        """Always 0."""
        return 0
