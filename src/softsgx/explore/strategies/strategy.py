"""What all strategies have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from softsgx.sim import RETRY, Point, ScheduleMismatch, Scheduler

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


Trail = list[tuple[int, Point]]
"""For each step of an execution, the index of the task and the point before which it was."""


def enabled_task(enabled: Sequence[Task], index: int, depth: int) -> Task:
    """The task that an earlier execution chose here. ScheduleMismatch if it is not enabled now."""
    for task in enabled:
        if task.index == index:
            return task
    raise ScheduleMismatch(depth, f"task {index} was enabled here before and is not now")


def spins(task: Task, trail: Trail) -> bool:
    """Whether a task at a RETRY point would only see what it saw the last time.

    It has looked in its last step. It spins until another task takes a step that could change what
    it sees. Scheduling it before that would change nothing, and would make the tree of choices
    infinite.
    """
    for step in range(len(trail) - 1, -1, -1):
        index, point = trail[step]
        if index == task.index:
            return True
        if point[0] != RETRY or not _in_vain(step, trail, task.execution.tasks):
            return False
    return False


def _in_vain(step: int, trail: Trail, live: Sequence[Task]) -> bool:
    """Whether a step of a task that retries has only brought it to where it retried before."""
    index = trail[step][0]
    reached: Point | None = None
    for later in range(step + 1, len(trail)):
        if trail[later][0] == index:
            reached = trail[later][1]
            break
    else:
        reached = next((task.point for task in live if task.index == index), None)
    if reached is None or reached[0] != RETRY:
        return False
    for earlier in range(step, -1, -1):
        other, point = trail[earlier]
        if point[0] != RETRY:
            return False
        if other == index and point == reached:
            return True
    return False


def retried(trail: Trail) -> dict[int, list[Point]]:
    """By task, the points before its retries since the last other step."""
    start = len(trail)
    while start and trail[start - 1][1][0] == RETRY:
        start -= 1
    found: dict[int, list[Point]] = {}
    for index, point in trail[start:]:
        before = found.setdefault(index, [])
        if point not in before:
            before.append(point)
    return found


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
