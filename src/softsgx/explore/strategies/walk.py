"""Random walk: at every choice each candidate is equally likely.

It also estimates: the product of the numbers of candidates along a walk is an
unbiased estimate of the number of schedules (D. E. Knuth, Estimating the efficiency of backtrack
programs, 1975).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.explore.orders import OrdersWatch
from softsgx.explore.strategies.strategy import Trail, candidates
from softsgx.sim import Rng

if TYPE_CHECKING:
    from softsgx.sim import Task


class Walk:
    """Executions `first` to `first + count - 1`; each depends only on the seed and its number.

    `watch` notes the orders.
    """

    fraction = 0.0
    exhausted = False

    def __init__(
        self, rng: Rng, count: int, first: int = 0, *, watch: OrdersWatch | None = None
    ) -> None:
        self.watch = watch
        self._rng = rng
        self._next = first
        self._stop = first + count
        self._trail: Trail = []
        self._product = 1
        self._products = 0
        self._walks = 0
        self._below = rng.below

    @property
    def schedules(self) -> float:
        """The estimated number of schedules; 0 before the first walk."""
        return self._products / self._walks if self._walks else 0.0

    def begin(self) -> bool:
        """Take the next substream of random numbers."""
        if self._next == self._stop:
            return False
        self._below = self._rng.stream(f"walk {self._next}").below
        self._next += 1
        self._product = 1
        self._trail.clear()
        if self.watch is not None:
            self.watch.begin()
        return True

    def end(self, left: Sequence[Task]) -> None:
        """Count the walk, and note the orders."""
        if self.watch is not None:
            self.watch.end()
        self._products += self._product
        self._walks += 1

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """Any candidate."""
        tasks = candidates(enabled, self._trail) if len(enabled) > 1 else enabled
        task = tasks[0]
        if len(tasks) > 1:
            self._product *= len(tasks)
            task = tasks[self._below(len(tasks))]
        self._trail.append((task.index, task.point))
        if self.watch is not None:
            self.watch.step(task)
        return task

    def draw(self, n: int, what: str) -> int:
        """Any value."""
        self._product *= n
        return self._below(n)
