"""Who runs: one task at a time, until it ends, waits, or comes to a point that both drivers have.

All tasks are daemons of one execution; its only other task is a clock, whose step ends a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from softsgx.sim import RETRY, Steps, Task
from tests.differential.deliberate import POINTS

if TYPE_CHECKING:
    from softsgx.sim import Execution

# So many steps in one turn are a loop.
STEPS_MAX: Final = 200_000


class Turns:
    """The scheduler. `task` is whose turn it is; `left` at how many stops it is left alone."""

    def __init__(self) -> None:
        self.clock: Task | None = None
        self.task: Task | None = None
        self.left = 0
        self.steps = 0
        self.looped = False

    def begin(self) -> bool:
        """Always: the execution is made once."""
        return True

    def give(self, execution: Execution, task: Task, pause: int) -> None:
        """One turn for a task; with `pause` at most up to the stop of that number, from 1."""
        self.task, self.left, self.steps = task, pause or -1, 0
        self.clock = execution.spawn(_tick(), "clock")
        execution.run()
        self.task = None

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The task, or an interrupt that it waits for; the clock at the end of the turn."""
        task, clock = self.task, self.clock
        assert task is not None
        assert clock is not None
        if task.done:
            return clock
        if task not in enabled:
            return next((other for other in enabled if other.interrupt), clock)
        kind = task.point[0]
        if self.steps:
            if kind == RETRY:
                return clock
            if POINTS.even(kind):
                self.left -= 1
                if not self.left:
                    return clock
        self.steps += 1
        if self.steps > STEPS_MAX:
            self.looped = True
            return clock
        return task

    def draw(self, n: int, what: str) -> int:
        """Always 0."""
        return 0


def _tick() -> Steps[None]:
    yield ("clock", "clock", False)
