"""A scheduler by stages: one task until it stands at a given point, then the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from softsgx.sim import LOCK, RETRY, WAIT, Cooperative, Point, Task

Until = Callable[[Point], bool]


class Held:
    """Runs the named task of each stage until its next point is the one asked for, or it ends.

    Meanwhile all other tasks stand still, except interrupt handlers and tasks in the way of an
    interrupt. A stage ends when its task waits for a lock. After the last stage it is Cooperative.
    """

    def __init__(self, *stages: tuple[str, Until]) -> None:
        self.stages = list(stages)
        self._rest = Cooperative()
        self._known: dict[str, Task] = {}

    def begin(self) -> bool:
        """As for Cooperative: there is one execution."""
        return self._rest.begin()

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The task of the stage; handlers of interrupts before it."""
        self._known.update((task.name, task) for task in enabled)
        for task in enabled:
            if task.interrupt:
                return task
        while self.stages:
            name, until = self.stages[0]
            task = self._known[name]
            if task in enabled and not until(task.point):
                return task
            if task not in enabled and not task.done and task.point[0] == WAIT:
                return enabled[0]
            del self.stages[0]
        return self._rest.choose(enabled, current)

    def draw(self, n: int, what: str) -> int:
        """The ordinary course."""
        return 0


def to_the_end(_point: Point) -> bool:
    """No point: the stage lasts until the task has ended or is blocked."""
    return False


def at(kind: str, nth: int = 1) -> Until:
    """The nth point of this kind that the task reaches in the stage."""
    left = [nth]

    def until(point: Point) -> bool:
        left[0] -= point[0] == kind
        return left[0] <= 0

    return until


def at_retry(point: Point) -> bool:
    """The task is about to try again what another task must bring about."""
    return point[0] == RETRY


def at_lock(name: str, nth: int = 1) -> Until:
    """The nth time the task is about to take a lock whose name has this prefix."""
    left = [nth]

    def until(point: Point) -> bool:
        found = point[0] == LOCK and getattr(point[1], "name", "").startswith(name)
        left[0] -= found
        return left[0] <= 0

    return until
