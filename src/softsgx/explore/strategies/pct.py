"""Probabilistic concurrency testing.

Every task has a random priority, the task with the highest one runs, and at d - 1 random steps the
running task drops below all others. A bug has depth d if d ordering constraints expose it. One
execution finds it with probability at least 1 / (n k^(d - 1)), for n tasks and k steps (Burckhardt,
Kothari, Musuvathi, Nagarakatte, A randomized scheduler with probabilistic guarantees of finding
bugs, 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.explore.orders import OrdersWatch
from softsgx.explore.strategies.strategy import Trail, candidates
from softsgx.sim import Rng

if TYPE_CHECKING:
    from softsgx.sim import Task


class Pct:
    """Executions `first` to `first + count - 1` of the seed, of depth `depth`.

    `steps` is the assumed length of an execution: the k of the bound. `watch` notes the orders.
    """

    fraction = 0.0
    exhausted = False

    def __init__(
        self,
        rng: Rng,
        count: int,
        depth: int,
        steps: int,
        first: int = 0,
        *,
        watch: OrdersWatch | None = None,
    ) -> None:
        assert depth >= 1, "a bug has at least depth 1"
        self.watch = watch
        self._rng = rng
        self._next = first
        self._stop = first + count
        self._depth = depth
        self._steps = steps
        self._priority: dict[int, float] = {}
        self._change: dict[int, int] = {}
        self._stream = rng
        self._trail: Trail = []
        self._lowest = 0.0

    def begin(self) -> bool:
        """Draw change points for a new execution, and forget priorities."""
        if self._next == self._stop:
            return False
        self._stream = self._rng.stream(f"pct {self._next}")
        self._next += 1
        self._priority.clear()
        self._trail.clear()
        if self.watch is not None:
            self.watch.begin()
        self._lowest = 0.0
        steps = [self._stream.below(max(1, self._steps)) for _ in range(self._depth - 1)]
        self._change = dict.fromkeys(steps, 1)
        return True

    def end(self, left: Sequence[Task]) -> None:
        """Note the orders."""
        if self.watch is not None:
            self.watch.end()

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The candidate with the highest priority."""
        priority = self._priority
        for task in enabled:
            if task.index not in priority:
                priority[task.index] = 1.0 + self._stream.below(1 << 30)
        if len(self._trail) in self._change and current is not None:
            self._lowest -= 1.0
            priority[current.index] = self._lowest
        best = max(self._among(enabled), key=lambda task: priority[task.index])
        self._trail.append((best.index, best.point))
        if self.watch is not None:
            self.watch.step(best)
        return best

    def _among(self, enabled: Sequence[Task]) -> Sequence[Task]:
        return candidates(enabled, self._trail) if len(enabled) > 1 else enabled

    def draw(self, n: int, what: str) -> int:
        """0 with probability one half, otherwise any value, each with equal probability."""
        return 0 if self._stream.below(2) else self._stream.below(n)
