"""Limits of a search: a deadline, and a number of executions.

A step cannot be interrupted. So a deadline is asked before each step, and whatever executes ends
within one step of it; `start` and `check` of a scenario count as a step each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softsgx.sim import Scheduler, Task

Deadline = Callable[[], bool]
"""Whether the time is up."""


def no_deadline() -> bool:
    """A deadline that never comes."""
    return False


class LimitReached(Exception):
    """Raised out of an execution whose time is up, or instead of one more execution."""


class Watched:
    """A scheduler that ends the execution by LimitReached when the time is up."""

    def __init__(self, inner: Scheduler, deadline: Deadline) -> None:
        self.draw = inner.draw
        self.begin = inner.begin
        self._choose = inner.choose
        self._deadline = deadline

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """As the inner one."""
        if self._deadline():
            raise LimitReached("the time is up")
        return self._choose(enabled, current)


class Allowance:
    """How many executions may still be carried out, and until when."""

    def __init__(self, executions: int, deadline: Deadline = no_deadline) -> None:
        self.left = executions
        self.deadline = deadline

    def spend(self) -> Deadline:
        """Take one execution; the deadline for it. LimitReached if there is none left."""
        if self.left <= 0:
            raise LimitReached("no execution is left")
        self.left -= 1
        return self.deadline
