"""The scheduler of virtual time: a discrete-event simulation in which each point has a price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from softsgx.sim.errors import Unmodelled
from softsgx.sim.scheduler import OneExecution

if TYPE_CHECKING:
    from softsgx.sim.task import Task

Price: TypeAlias = "int | Callable[[Task], int]"
"""Cycles, or a function that computes them from the task at the point, without side effects."""


class VirtualTime(OneExecution):
    """Every kind of point has a price in cycles; the point that is finished first runs next.

    A point starts when its task is enabled at it and finishes its price later; the step takes
    place, and the processor's clock is set, at the finish. Ties go to the lower index. Steps are
    ordered by finish and not by start because a step's effects come at its end: a lock that is
    released after a leaf of 10,000 cycles must not be free for a task that tries it meanwhile.

    A blocked task starts at the finish of the step that released it; a spawned one at the finish
    of the step that spawned it.

    A processor does one thing at a time. A step of one task delays the points of the other tasks
    there by the time that it took: an interrupted task keeps the work done so far. While an
    interrupt handler is enabled, other tasks of its processor do not run. A task without processor
    has one of its own.

    An unrecorded execution under this scheduler does not ask it; see `timed.py`.
    """

    def __init__(self, prices: Mapping[str, Price], default: int | None = None) -> None:
        super().__init__()
        self.prices = dict(prices)
        self.default = default
        self.counts: dict[str, int] = {}
        """How many points of each kind were executed."""
        self.elapsed = 0
        """The finish of the last step, in cycles."""
        self.clocks: dict[int, int] = {}
        """By processor, the finish of the last step on it."""
        self.started: dict[Task, int] = {}
        """When the pending point of each enabled task started."""
        self.delays: list[tuple[int, int]] = []
        """(processor, cycles) of charges that have not delayed the points begun there yet."""
        self.busy: dict[int, int] = {}
        """By processor, the time until which a charge occupies it: nothing begins there before."""

    def now(self, cpu: int) -> int:
        """The processor's clock in cycles: the finish of the last step on it."""
        return self.clocks.get(cpu, 0)

    def begin(self) -> bool:
        """True once; all clocks at 0."""
        first = super().begin()
        self.counts.clear()
        self.elapsed = 0
        self.clocks.clear()
        self.started.clear()
        self.delays.clear()
        self.busy.clear()
        return first

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The enabled task whose point is finished first; charges it."""
        # A task that was not enabled before the last step became so at its finish.
        started = self.started
        if self.delays:
            self._delay()
        for task in enabled:
            if task not in started:
                started[task] = self.begins(task)
        if len(started) > len(enabled):
            self._forget_blocked(enabled)
        interrupted = [task.cpu for task in enabled if task.interrupt]
        first: Task | None = None
        finish = 0
        for task in enabled:
            if interrupted and not task.interrupt and task.cpu in interrupted:
                continue
            done = started[task] + self.price(task)
            if first is None or done < finish:
                first, finish = task, done
        assert first is not None, "an interrupt handler is never excluded"
        self._charge(first, finish)
        return first

    def _forget_blocked(self, enabled: Sequence[Task]) -> None:
        # A task that lost the race for a lock starts over when that is released. One that is merely
        # interrupted stands at a point it could pass, and keeps the work done.
        for task in list(self.started):
            if task not in enabled and task.gate is not None and not task.gate(task):
                del self.started[task]

    def price(self, task: Task) -> int:
        """The price of the point at which the task stands; Unmodelled if its kind has none."""
        kind = task.point[0]
        price = self.prices.get(kind, self.default)
        if price is None:
            raise Unmodelled(f"no price for points of kind {kind!r}, and no default price")
        return price if isinstance(price, int) else price(task)

    def charge(self, cpu: int, kind: str) -> None:
        """Count another point on a processor, within the current step, and charge its price.

        That delays all points begun there, before or now. It is for the cost that follows an
        interrupt, whatever was interrupted.
        """
        price = self.prices.get(kind, self.default)
        assert isinstance(price, int), f"no fixed price for {kind!r}"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.clocks[cpu] = self.busy[cpu] = max(self.now(cpu), self.elapsed) + price
        self.delays.append((cpu, price))

    def begins(self, task: Task) -> int:
        """When the point of a task that is enabled now begins."""
        cpu = task.cpu
        busy = 0 if cpu is None else self.busy.get(cpu, 0)
        return max(self.elapsed, busy)

    def _delay(self) -> None:
        for cpu, cycles in self.delays:
            for task in self.started:
                self.started[task] += cycles if task.cpu == cpu else 0
        self.delays.clear()

    def _charge(self, task: Task, finish: int) -> None:
        start = self.started.pop(task)
        kind = task.point[0]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.elapsed = finish
        cpu = task.cpu
        if cpu is None:
            return
        self.clocks[cpu] = finish
        for other, other_start in self.started.items():
            if other.cpu == cpu:
                self.started[other] = other_start + finish - max(other_start, start)
