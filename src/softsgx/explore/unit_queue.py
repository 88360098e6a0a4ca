"""A queue of independent units: bounded depth first search, and sampled executions."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from softsgx.explore.outcome import Outcome
from softsgx.explore.unit import Unit, UnitResult

Key = tuple[int, ...]
"""The place of a unit in the order of one process. What remains of a unit has its key with a number
appended, so that it comes right after the unit; a unit that is executed again has -1 appended."""


class UnitQueue:
    """Hands out units in any order, and adds up their results in the order of one process."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self.over = False
        """Everything has been added up, or what remains does not count."""
        self.cut = False
        self._units: dict[Key, Unit] = {}
        self._results: dict[Key, UnitResult] = {}
        # Keys of units that no worker has, and of units not added up yet.
        self._idle: list[Key] = []
        self._open: list[Key] = []
        self._first_failure: Key | None = None
        # A unit that is executed again because it exceeded the limit.
        self._again: Key | None = None
        self._beyond = False  # there are executions past the limit
        for number, unit in enumerate(units):
            self._add((number,), unit)

    def _add(self, key: Key, unit: Unit) -> None:
        self._units[key] = unit
        heappush(self._idle, key)
        heappush(self._open, key)

    def take(self) -> tuple[Key, Unit] | None:
        """A unit that no worker has; None if there is no such unit at present."""
        if not self._idle or self.over:
            return None
        if self._again is not None and self._idle[0] != self._again:
            return None
        if self._first_failure is not None and self._idle[0] > self._first_failure:
            return None
        key = heappop(self._idle)
        return key, self._units[key]

    def give(self, key: Key, result: UnitResult) -> None:
        """Accept the result of a unit."""
        if key not in self._units:
            return  # past the limit
        if key == self._again:
            self._again = None  # if it was interrupted before the limit, what remains counts
        self._results[key] = result
        if result.failure is not None and (
            self._first_failure is None or key < self._first_failure
        ):
            self._first_failure = key
        for number, unit in enumerate(result.rest):
            self._add((*key, number), unit)

    def add_up(self, outcome: Outcome, limit: int) -> None:
        """Add results to the outcome, up to the first that is missing."""
        while self._open and self._open[0] in self._results and not self.over:
            key = self._open[0]
            left = limit - outcome.executions
            if self._results[key].executions > left > 0:
                self._redo(key, left)
                return
            heappop(self._open)
            del self._units[key]
            self._count(outcome, self._results.pop(key))
            more = bool(self._open) or self._beyond
            outcome.stopped = more and outcome.executions >= limit
            self.over = outcome.failure is not None or outcome.stopped
        self.over = self.over or not self._open

    def _redo(self, key: Key, most: int) -> None:
        """Have a unit executed again, only up to the limit; later units do not count.

        It gets a new key: a worker may still have a unit that remained from the first time, and the
        result of that unit must not be taken for a result of the second time.
        """
        again = (*key, -1)
        self._again, self._beyond = again, True
        self._units = {again: self._units[key]._replace(most=most)}
        self._results.clear()
        self._first_failure = None
        self._open, self._idle = [again], [again]

    def stop(self, outcome: Outcome, limit: int) -> None:
        """Add up the remaining results that have arrived, up to the first failure or the limit."""
        for key in sorted(self._results):
            if outcome.executions + self._results[key].executions > limit:
                break
            self._count(outcome, self._results[key])
            if outcome.failure is not None:
                break
        self.over = True

    def _count(self, outcome: Outcome, result: UnitResult) -> None:
        result.add_to(outcome)
        outcome.fraction += result.fraction
        self.cut = self.cut or result.cut
