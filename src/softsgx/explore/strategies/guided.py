"""Random executions, guided by the orders of conflicting steps that were not seen yet.

Executions that showed a new order are kept. Three of four executions take up one of them, and in it
a step x that came before a step y in all executions so far: they repeat the choices up to x, and
then delay the task of x until another task has done y. All the rest is decided as in PCT. An
execution depends on those before it, so the search cannot be divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from softsgx.explore.orders import OrdersWatch, bits
from softsgx.explore.strategies.pct import Pct
from softsgx.explore.strategies.strategy import enabled_task
from softsgx.sim import Choice, Rng, ScheduleMismatch

if TYPE_CHECKING:
    from softsgx.sim import Task

_KEPT_MAX: Final = 256
_TRIES: Final = 4
"""How many kept executions are looked at for an order to reverse before PCT decides alone."""


class _Kept:
    """An execution: its choices, the numbers of its steps, and how many choices precede each."""

    __slots__ = ("choices", "preceding", "steps")

    def __init__(self, choices: list[Choice], steps: list[int], preceding: list[int]) -> None:
        self.choices = choices
        self.steps = steps
        self.preceding = preceding


class Guided(Pct):
    """Executions `first` to `first + count - 1` of the seed; `depth` and `steps` as of PCT."""

    watch: OrdersWatch

    def __init__(
        self,
        rng: Rng,
        count: int,
        depth: int,
        steps: int,
        first: int = 0,
        *,
        watch: OrdersWatch,
    ) -> None:
        super().__init__(rng, count, depth, steps, first, watch=watch)
        self._kept: list[_Kept] = []
        # For each step, the mask of those behind which it has been delayed already.
        self._tried: dict[int, int] = {}
        # The choices to repeat; then the next task is delayed until step `_until`, -1: it is not.
        self._prefix: Sequence[Choice] = ()
        self._until = -1
        self._delayed = -1
        # The execution in progress: its choices, and how many of them precede each step.
        self._choices: list[Choice] = []
        self._preceding: list[int] = []

    def begin(self) -> bool:
        """Choose the order that the execution is to show, if it is to show one."""
        if not super().begin():
            return False
        self._choices, self._preceding = [], []
        self._prefix, self._until, self._delayed = (), -1, -1
        if self._kept and self._next % 4:
            self._aim(self._rng.stream(f"aim {self._next}"))
        return True

    def _aim(self, rng: Rng) -> None:
        orders = self.watch.orders
        for _ in range(_TRIES):
            kept = rng.choice(self._kept)
            later = 0
            places: list[tuple[int, int]] = []
            for place in range(len(kept.steps) - 1, -1, -1):
                number = kept.steps[place]
                left = orders.one_sided(number) & later & ~self._tried.get(number, 0)
                if left:
                    places.append((place, left))
                later |= 1 << number
            if places:
                place, left = rng.choice(places)
                number = kept.steps[place]
                self._until = rng.choice(list(bits(left)))
                self._tried[number] = self._tried.get(number, 0) | 1 << self._until
                # The step itself is repeated in `_among`, to learn its task.
                self._prefix = kept.choices[: kept.preceding[place] + 1]
                return

    def end(self, left: Sequence[Task]) -> None:
        """Keep the execution if it has shown a new order."""
        super().end(left)
        if self.watch.new:
            if len(self._kept) == _KEPT_MAX:
                self._kept.pop(0)
            self._kept.append(_Kept(self._choices, self.watch.steps.copy(), self._preceding))

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The choice to repeat; else that of PCT among the tasks that are not delayed."""
        task = super().choose(enabled, current)
        self._preceding.append(len(self._choices))
        self._choices.append(task.index)
        if self.watch.steps[-1] == self._until:
            self._until = self._delayed = -1
        return task

    def _among(self, enabled: Sequence[Task]) -> Sequence[Task]:
        depth = len(self._choices)
        if depth < len(self._prefix) - 1:
            return (enabled_task(enabled, self._prefix[depth], len(self._preceding)),)
        if depth == len(self._prefix) - 1:
            self._delayed = self._prefix[depth]
        tasks = super()._among(enabled)
        others = [task for task in tasks if task.index != self._delayed]
        if not others:
            # Nobody else can go on: y cannot come first.
            self._until = self._delayed = -1
        return others or tasks

    def draw(self, n: int, what: str) -> int:
        """The draw to repeat; else as PCT."""
        depth = len(self._choices)
        if depth < len(self._prefix) - 1:
            value = ~self._prefix[depth]
            if not 0 <= value < n:
                raise ScheduleMismatch(depth, f"{what!r} below {n} was not drawn here before")
        else:
            value = super().draw(n, what)
        self._choices.append(~value)
        return value
