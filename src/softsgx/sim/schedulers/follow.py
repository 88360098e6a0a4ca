"""The scheduler that replays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.sim.errors import ScheduleMismatch
from softsgx.sim.schedule import Choice, decode, letters
from softsgx.sim.scheduler import OneExecution

if TYPE_CHECKING:
    from softsgx.sim.task import Task


class Follow(OneExecution):
    """Makes the choices of a given schedule.

    After the last choice it goes on as RunToCompletion does; with complete=False the next choice
    raises ScheduleMismatch. A choice that the execution does not offer always raises it.
    """

    def __init__(self, schedule: str | Sequence[Choice], *, complete: bool = True) -> None:
        super().__init__()
        choices = decode(schedule) if isinstance(schedule, str) else schedule
        self.choices: tuple[Choice, ...] = tuple(choices)
        self.complete = complete
        self._next = 0

    @property
    def rest(self) -> tuple[Choice, ...]:
        """The choices not yet made. If an execution has ended, it was shorter than its schedule."""
        return self.choices[self._next :]

    def expect_end(self) -> None:
        """For an execution that has ended: ScheduleMismatch unless every choice was made."""
        if self.rest:
            raise ScheduleMismatch(self._next, "the execution has ended before it")

    def begin(self) -> bool:
        """True once: a schedule is one execution."""
        first = super().begin()
        self._next = 0
        return first

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The only enabled task, or the task that the schedule names."""
        if len(enabled) == 1:
            return enabled[0]
        choice = self._take("a task")
        if choice is None:
            return current or enabled[0]
        if choice < 0:
            raise self._mismatch(f"it is the draw ={~choice}, but a task is to be chosen")
        for task in enabled:
            if task.index == choice:
                return task
        offered = ", ".join(map(str, enabled))
        raise self._mismatch(f"task {letters(choice)} is not enabled; enabled are {offered}")

    def draw(self, n: int, what: str) -> int:
        """The value that the schedule names."""
        choice = self._take(f"{what!r}")
        if choice is None:
            return 0
        if choice >= 0:
            raise self._mismatch(f"it is task {letters(choice)}, but {what!r} is to be drawn")
        if ~choice >= n:
            raise self._mismatch(f"the draw ={~choice} of {what!r} is not below {n}")
        return ~choice

    def _take(self, wanted: str) -> Choice | None:
        step = self._next
        if step == len(self.choices):
            if not self.complete:
                raise ScheduleMismatch(step, f"the schedule has ended, {wanted} is to be chosen")
            return None
        self._next = step + 1
        return self.choices[step]

    def _mismatch(self, reason: str) -> ScheduleMismatch:
        return ScheduleMismatch(self._next - 1, reason)
