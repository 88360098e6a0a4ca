"""Coverage by orders: which pairs of conflicting steps were seen in both orders.

A step is known by the name of its task and by its point: the kind, the object, whether it writes.
Two steps of tasks with different names are a pair if what their points announce is in conflict
(`Scenario.objects`); what a step notes while it runs (`sim.touch`) does not count. An execution
shows the order x, y if any step x comes before any step y in it, however far apart.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.explore.footprint import Footprint, Unstable, conflict, key_of
from softsgx.explore.scenario import Scenario
from softsgx.sim.touch import READ, WRITE

if TYPE_CHECKING:
    from softsgx.sim import Task

_CACHE_MAX: Final = 10_000
"""Points that are remembered by identity; scenarios may make new objects in each execution."""

StepKey = tuple[str, str, Hashable, bool]
"""The name of the task, and the kind, the key of the object and the mode of the point."""


class SeenOrders(NamedTuple):
    """Orders as plain data: steps, and for each a mask of those that were seen before it."""

    steps: tuple[StepKey, ...] = ()
    before: tuple[int, ...] = ()


class Orders:
    """The orders that were seen so far; steps have numbers in the order in which they came up."""

    def __init__(self) -> None:
        self.steps: dict[StepKey, int] = {}
        # For each step, masks of the conflicting steps seen before it, and after it.
        self.before: list[int] = []
        self.after: list[int] = []

    def number(self, step: StepKey) -> int:
        """The number of a step, perhaps a new one."""
        number = self.steps.setdefault(step, len(self.before))
        if number == len(self.before):
            self.before.append(0)
            self.after.append(0)
        return number

    def see(self, number: int, mask: int) -> None:
        """The steps of `mask` were seen before this one."""
        for other in bits(mask & ~self.before[number]):
            self.after[other] |= 1 << number
        self.before[number] |= mask

    def one_sided(self, number: int) -> int:
        """The steps that were seen after this one, and never before it."""
        return self.after[number] & ~self.before[number]

    @property
    def pairs(self) -> int:
        """How many pairs were seen, in one order at least."""
        return sum((b | a).bit_count() for b, a in zip(self.before, self.after, strict=True)) // 2

    @property
    def both(self) -> int:
        """How many pairs were seen in both orders."""
        return sum((b & a).bit_count() for b, a in zip(self.before, self.after, strict=True)) // 2

    def seen(self) -> SeenOrders:
        """As plain data."""
        return SeenOrders(tuple(self.steps), tuple(self.before))

    def add(self, seen: SeenOrders) -> None:
        """Add what was seen elsewhere."""
        numbers = [self.number(step) for step in seen.steps]
        for number, before in zip(numbers, seen.before, strict=True):
            self.see(number, sum(1 << numbers[other] for other in bits(before)))


class OrdersWatch:
    """Notes the orders of each execution of a scenario, when it has ended.

    `new` is how many orders the last one has shown that none before it did; `steps` are its steps.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.orders = Orders()
        self.new = 0
        self.steps: list[int] = []
        self._scenario = scenario
        self._cache: dict[tuple[str, Hashable], int] = {}
        # For each step, the mask of those that it conflicts with.
        self._conflicts: list[int] = []
        # For each footprint, and for each task, the mask of its steps.
        self._alike: dict[Footprint, int] = {}
        self._own: dict[str, int] = {}

    def begin(self) -> None:
        """A new execution; one that has not ended does not count."""
        self.steps.clear()

    def step(self, task: Task) -> None:
        """The next step is one of this task."""
        known = (task.name, task.point)
        number = self._cache.get(known)
        if number is None:
            if len(self._cache) >= _CACHE_MAX:
                self._cache.clear()
            number = self._cache[known] = self._number(task)
        self.steps.append(number)

    def end(self) -> None:
        """The execution has ended."""
        orders, conflicts = self.orders, self._conflicts
        before = orders.before
        done = self.new = 0
        for number in self.steps:
            new = done & conflicts[number] & ~before[number]
            if new:
                self.new += new.bit_count()
                orders.see(number, new)
            done |= 1 << number

    def _number(self, task: Task) -> int:
        kind, touched, write = task.point
        try:
            key = key_of(touched)
            footprint = self._scenario.objects(task, task.point)
        except Unstable:
            key = type(touched).__name__
            footprint = ((key, WRITE if write else READ),)
        number = self.orders.number((task.name, kind, key, write))
        if number == len(self._conflicts):
            self._add(number, task.name, footprint)
        return number

    def _add(self, number: int, name: str, footprint: Footprint) -> None:
        found = 0
        for known, mask in self._alike.items():
            if conflict(footprint, known):
                found |= mask
        found &= ~self._own.get(name, 0)
        own = 1 << number
        self._conflicts.append(found)
        for other in bits(found):
            self._conflicts[other] |= own
        self._alike[footprint] = self._alike.get(footprint, 0) | own
        self._own[name] = self._own.get(name, 0) | own


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits of a mask, in ascending order."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
