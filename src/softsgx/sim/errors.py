"""Exceptions: what is not modelled, executions that cannot go on, schedules that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from softsgx.sim.point import BLOCKING

if TYPE_CHECKING:
    from softsgx.sim.point import Blocker
    from softsgx.sim.task import Task


class Unmodelled(Exception):
    """Raised for what is not modelled, and names it: nothing unmodelled succeeds silently."""


class TaskExit(Exception):
    """Ends the task that raises it, as a killed thread ends; not an error of the execution."""


class SimError(Exception):
    """An execution that cannot go on, or a schedule that cannot be followed."""


class ScheduleError(SimError, ValueError):
    """A string that is not a schedule. `position` counts characters from 0."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        shown = text if len(text) <= 60 else text[:57] + "..."
        super().__init__(f"schedule {shown!r}, character {position}: {reason}")
        self.text = text
        self.position = position
        self.reason = reason


class ScheduleMismatch(SimError):
    """A schedule whose choice the execution does not offer. `step` counts choices from 0."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"choice {step} of the schedule: {reason}")
        self.step = step
        self.reason = reason


class StepBound(SimError):
    """An execution that took more steps than it was allowed: a livelock, or too low a bound.

    `lines` says where the task of the last step stands; see `Task.lines`.
    """

    def __init__(self, max_steps: int, schedule: str, last: Task | None = None) -> None:
        super().__init__(f"not ended after {max_steps} steps (max_steps)")
        self.max_steps = max_steps
        self.schedule = schedule
        self.lines = last.lines() if last is not None else []


class Blocked(NamedTuple):
    """One line of a deadlock report."""

    task: Task
    kind: str
    object: Blocker
    holders: tuple[Task, ...]
    interrupted_by: Task | None

    def __str__(self) -> str:
        daemon = " (daemon)" if self.task.daemon else ""
        if self.interrupted_by is not None:
            by = f"by {self.interrupted_by}"
            return f"{self.task}{daemon} is interrupted on cpu {self.task.cpu} {by}"
        held_by = ", held by " + ", ".join(map(str, self.holders)) if self.holders else ""
        return f"{self.task}{daemon} waits for {self.kind} {self.object.name!r}{held_by}"


def blocked(live: Sequence[Task], handlers: Mapping[int, Task]) -> list[Blocked]:
    """A line for each task in `live`; `handlers` are the interrupt handlers in progress, by cpu."""
    lines = []
    for task in live:
        kind, blocker, _ = task.point
        handler = None if task.cpu is None else handlers.get(task.cpu)
        interrupted_by = None if handler is task else handler
        known: Any = blocker
        holders = tuple(known.holders()) if kind in BLOCKING else ()
        lines.append(Blocked(task, kind, known, holders, interrupted_by))
    return lines


class Deadlock(SimError):
    """Some tasks have not ended, and none of them can go on."""

    def __init__(self, blocked: Sequence[Blocked], schedule: str) -> None:
        lines = ["deadlock: no task can go on", *map(str, blocked)]
        super().__init__("\n  ".join(lines))
        self.blocked = tuple(blocked)
        self.schedule = schedule
