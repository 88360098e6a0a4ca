"""What all strategies have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from softsgx.sim import RETRY, ScheduleMismatch, Scheduler

if TYPE_CHECKING:
    from softsgx.sim import Task


class Strategy(Scheduler, Protocol):
    """A scheduler of many executions: begin(), one execution, end(), until begin() is False."""

    def end(self, left: Sequence[Task]) -> None:
        """The execution is over, perhaps cut. `left` are the tasks that have not ended."""

    @property
    def exhausted(self) -> bool:
        """Whether begin() returned False with nothing left out, not even by a bound."""

    @property
    def fraction(self) -> float:
        """The share of the tree of choices that was covered, 0 to 1; 0 if unknown."""


Trail = list[tuple[int, str]]
"""For each step of an execution, the index of the task and the kind of its point."""


def enabled_task(enabled: Sequence[Task], index: int, depth: int) -> Task:
    """The task that was chosen here in an earlier execution. ScheduleMismatch if it is blocked."""
    for task in enabled:
        if task.index == index:
            return task
    raise ScheduleMismatch(depth, f"task {index} was enabled here before and is not now")


def spins(task: Task, trail: Trail) -> bool:
    """Whether a task at a RETRY point would only see what it saw the last time.

    It spins until another task takes a step that is no retry itself. Scheduling it before that
    changes nothing and would make the tree of choices infinite.
    """
    for index, kind in reversed(trail):
        if index == task.index:
            return True
        if kind != RETRY:
            return False
    return False


def candidates(enabled: Sequence[Task], trail: Trail) -> Sequence[Task]:
    """The enabled tasks except those that spin, unless all do."""
    for task in enabled:
        if task.point[0] == RETRY:
            awake = [t for t in enabled if t.point[0] != RETRY or not spins(t, trail)]
            return awake or enabled
    return enabled


def preempts(task: Task, enabled: Sequence[Task], current: Task | None) -> bool:
    """Whether choosing this task is a preemption.

    It is if the current task could continue, or if an interrupt could be taken: processors take
    interrupts at once, so delaying one counts like any other preemption.
    """
    if current is not None and current.point[0] != RETRY and current in enabled:
        return task is not current
    return not task.interrupt and any(other.interrupt for other in enabled)


def default_next(tasks: Sequence[Task], current: Task | None, last: int) -> Task:
    """The current task if it can continue, else an interrupt, else the next after the last."""
    if current is not None and current in tasks and current.point[0] != RETRY:
        return current
    for task in tasks:
        if task.interrupt:
            return task
    for task in tasks:
        if task.index > last:
            return task
    return tasks[0]
