"""Depth first search of all schedules with a bounded number of preemptions.

A preemption is a switch to another task although the current one could continue, or although an
interrupt could be taken. Leaving a task that is blocked, has ended or is about to retry is not one.
Within the bound every schedule is executed exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.explore.strategies.strategy import (
    Trail,
    candidates,
    default_next,
    enabled_task,
    preempts,
)
from softsgx.sim import Choice, ScheduleMismatch

if TYPE_CHECKING:
    from softsgx.sim import Task


class Bounded:
    """At most `bound` preemptions; None: no bound, plain depth first search.

    With `prefix`, only the subtree below these choices, which is `share` of the whole tree.
    """

    def __init__(
        self, bound: int | None, prefix: Sequence[Choice] = (), share: float = 1.0
    ) -> None:
        self.bound = bound
        self.cut = False
        """Whether the bound has excluded any schedule."""
        self.preemptions = 0
        """The preemptions in the current execution so far."""
        self.fraction = 0.0
        # For each choice: what was taken, what remains to take, its share of the tree. A draw is a
        # choice, too: ~value.
        self._taken: list[Choice] = list(prefix)
        self._left: list[tuple[Choice, ...]] = [()] * len(prefix)
        self._share: list[float] = [share] * len(prefix)
        self._fixed = len(prefix)
        self._trail: Trail = []
        self._last = -1
        self._depth = 0
        self._begun = False
        self._over = False

    @property
    def exhausted(self) -> bool:
        """Whether every schedule was executed, and the bound excluded none."""
        return self._over and not self.cut

    def begin(self) -> bool:
        """Advance to the deepest choice that has an alternative left."""
        if self._begun:
            taken, left, share = self._taken, self._left, self._share
            while len(left) > self._fixed and not left[-1]:
                taken.pop(), left.pop(), share.pop()
            if len(left) <= self._fixed:
                self._over = True
                return False
            taken[-1], *rest = left[-1]
            left[-1] = tuple(rest)
        self._begun = True
        self._depth = 0
        self._last = -1
        self.preemptions = 0
        self._trail.clear()
        return True

    def end(self, left: Sequence[Task]) -> None:
        """Add the leaf's share of the tree."""
        self.fraction += self._share[-1] if self._share else 1.0

    def alternatives(self) -> list[tuple[list[Choice], float]]:
        """The prefixes that remain after the last execution, with their shares of the tree.

        In the order in which begin() would take them.
        """
        found = []
        for depth in range(len(self._left) - 1, self._fixed - 1, -1):
            for choice in self._left[depth]:
                found.append(([*self._taken[:depth], choice], self._share[depth]))
        return found

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The choice already taken at this depth; else a new one, the current task first."""
        if len(enabled) == 1:
            task = enabled[0]
        else:
            depth = self._depth
            self._depth = depth + 1
            if depth < len(self._taken):
                task = enabled_task(enabled, self._taken[depth], depth)
            else:
                task = self._new(enabled, current)
            if task is not current and preempts(task, enabled, current):
                self.preemptions += 1
        self._last = task.index
        self._trail.append((task.index, task.point))
        return task

    def draw(self, n: int, what: str) -> int:
        """0 in the first execution, then all other values."""
        depth = self._depth
        self._depth = depth + 1
        if depth == len(self._taken):
            self._push(~0, tuple([~value for value in range(1, n)]))
        value = ~self._taken[depth]
        if not 0 <= value < n:
            raise ScheduleMismatch(
                depth, f"draw of {what!r} below {n}: the choice in the schedule is not one of these"
            )
        return value

    def _new(self, enabled: Sequence[Task], current: Task | None) -> Task:
        tasks = candidates(enabled, self._trail)
        first = default_next(tasks, current, self._last)
        others = [task for task in tasks if task is not first]
        if self.bound is not None and self.preemptions >= self.bound:
            free = [task for task in others if not preempts(task, enabled, current)]
            self.cut = self.cut or len(free) < len(others)
            others = free
        self._push(first.index, tuple([task.index for task in others]))
        return first

    def _push(self, choice: Choice, others: tuple[Choice, ...]) -> None:
        share = self._share[-1] if self._share else 1.0
        self._taken.append(choice)
        self._left.append(others)
        self._share.append(share / (1 + len(others)))
