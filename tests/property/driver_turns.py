"""The scheduler of the driver's state machine, which decides turn by turn which task runs.

All system calls, enclave threads and kernel threads are daemons of one execution; `run()` returns
when the clock, its only other task, has had its step. So a rule of the state machine can run one
task for a drawn number of steps, suspend it there, and start the next.
"""

from collections.abc import Callable, Sequence

from softsgx.sim import RETRY, Steps, Task

CLOCK = "clock"


def tick() -> Steps[None]:
    """The clock: one step, which ends the turn."""
    yield (CLOCK, CLOCK, False)


class Turns:
    """Lets `preferred` take up to `left` steps; while it cannot go on, others in its place.

    `look` is called between any two steps. The drawn number `other` chooses the substitute.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self.look = look
        self.preferred: Task | None = None
        self.left = 0
        self.other = 0

    def begin(self) -> bool:
        """Always True: the state machine creates the only execution itself."""
        return True

    def turn(self, preferred: Task | None, steps: int, other: int) -> None:
        """Set the task and the length of the next turn."""
        self.preferred, self.left, self.other = preferred, steps, other

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The preferred task, one that it waits for, or the clock when the turn is over."""
        self.look()
        clock = next(task for task in enabled if task.name == CLOCK)
        others = [task for task in enabled if task is not clock]
        first = self.preferred
        if not self.left or not others or (first is not None and first.done):
            return clock
        self.left -= 1
        if first is not None and first in others and (first.point[0] != RETRY or len(others) == 1):
            return first
        self.other += 1
        rest = [task for task in others if task is not first or self.other % 4 == 0]
        return rest[self.other % len(rest)]

    def draw(self, n: int, what: str) -> int:
        """Always 0, the default outcome."""
        return 0
