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
        """Whether begin() returned False and no schedule was left out, not even by a bound."""

    @property
    def fraction(self) -> float:
        """The share of the tree of choices that was covered, 0 to 1; 0 if unknown."""


Trail = list[tuple[int, str]]
"""For each step of an execution, the index of the task and the kind of its point."""


def enabled_task(enabled: Sequence[Task], index: int, depth: int) -> Task:
    """The task that an earlier execution chose here. ScheduleMismatch if it is not enabled now."""
    for task in enabled:
        if task.index == index:
            return task
    raise ScheduleMismatch(depth, f"task {index} was enabled here before and is not now")


def spins(task: Task, trail: Trail) -> bool:
    """Whether a task at a RETRY point would only see what it saw the last time.

    It spins until another task takes a step that is not a retry. Scheduling it before that would
    change nothing, and would make the tree of choices infinite.
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

    It is if another task is current and could continue. If no current task could continue, it is if
    an interrupt could be taken instead: processors take interrupts at once, so a delay counts like
    any other preemption.
    """
    if current is not None and current.point[0] != RETRY and current in enabled:
        return task is not current
    return not task.interrupt and any(other.interrupt for other in enabled)


def default_next(tasks: Sequence[Task], current: Task | None, last: int) -> Task:
    """The current task if it can continue, else an interrupt, else the next index after `last`."""
    if current is not None and current in tasks and current.point[0] != RETRY:
        return current
    for task in tasks:
        if task.interrupt:
            return task
    for task in tasks:
        if task.index > last:
            return task
    return tasks[0]
