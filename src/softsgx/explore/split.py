"""Exploration in units: disjoint pieces of work that add up to the exploration by one process.

`Search` hands out units and takes their results in any order. Its outcome is that of a search by
one process, however many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from softsgx.explore.explorer import begun, finish, steps_of
from softsgx.explore.limits import Deadline, no_deadline
from softsgx.explore.outcome import Outcome
from softsgx.explore.plan import BOUNDED, DEEP, DFS, EXHAUSTIVE, SAMPLED, STATES, WHOLE, Plan
from softsgx.explore.scenario import Scenario
from softsgx.explore.tree import Tree
from softsgx.explore.unit import Unit, UnitResult
from softsgx.explore.unit_queue import UnitQueue

CHUNK: Final = 64
"""Random executions in a unit."""

Division = UnitQueue | Tree


def divisions(scenario: Scenario, plan: Plan) -> Iterator[tuple[int, Division]]:
    """The searches of a plan, one for each bound, as units; each with its bound, or -1.

    The caller stops when a search has left nothing out.
    """
    for bound in plan.bounds:
        yield (-1 if bound is None else bound), _division(scenario, plan, bound)


def _division(scenario: Scenario, plan: Plan, bound: int | None) -> Division:
    if plan.strategy == EXHAUSTIVE:
        return Tree()
    if plan.strategy == STATES:
        return UnitQueue([Unit(STATES, most=plan.executions)])
    if plan.strategy in BOUNDED:
        return UnitQueue([Unit(DFS, bound=bound)])
    assert plan.strategy in SAMPLED, f"no strategy {plan.strategy!r}"
    steps = steps_of(scenario) if plan.strategy in DEEP else 0
    whole = Unit(plan.strategy, plan.seed, depth=plan.depth, steps=steps)
    if plan.strategy in WHOLE:
        return UnitQueue([whole._replace(number=plan.executions)])
    return UnitQueue(
        whole._replace(first=first, number=min(CHUNK, plan.executions - first))
        for first in range(0, plan.executions, CHUNK)
    )


class Search:
    """An exploration by many workers. Once `over` is set, only `finish` changes the outcome."""

    def __init__(self, scenario: Scenario, plan: Plan) -> None:
        self.scenario = scenario
        self.plan = plan
        self.outcome = begun(scenario, plan)
        self.over = False
        self._late: list[UnitResult] = []
        self._divisions = divisions(scenario, plan)
        self._number = 0
        self._next()

    def _next(self) -> None:
        found = next(self._divisions, None)
        if found is None:
            self.over = True
            return
        if self.outcome.executions >= self.plan.executions:
            self.outcome.stopped = self.over = True
            return
        self._number += 1
        self._bound, self._division = found
        self.outcome.fraction = 0.0

    def take(self) -> tuple[Any, Unit] | None:
        """A unit that no worker has, with a ticket; None if there is no such unit at present."""
        if self.over:
            return None
        found = self._division.take()
        return None if found is None else ((self._number, found[0]), found[1])

    def give(self, ticket: Any, result: UnitResult) -> None:
        """Accept the result of a unit."""
        number, inner = ticket
        if self.over or number != self._number:
            return
        if result.late:
            self._late.append(result)
            return
        division, outcome = self._division, self.outcome
        division.give(inner, result)
        division.add_up(outcome, self.plan.executions)
        if not division.over:
            return
        if outcome.failure is not None or outcome.stopped:
            self.over = True
        elif division.cut and self.plan.strategy in WHOLE:
            outcome.stopped = self.over = True
        elif not division.cut and self.plan.strategy not in SAMPLED:
            outcome.exhausted = self.over = True
        else:
            outcome.bound = max(outcome.bound, self._bound)
            self._next()

    def stop(self) -> None:
        """Stop early. Results that have arrived count, even if results before them are missing."""
        if not self.over:
            limit = self.plan.executions
            self._division.stop(self.outcome, limit)
            for result in self._late:
                failure = self.outcome.failure
                if self.outcome.executions + result.executions <= limit:
                    result.add_to(self.outcome)
                self.outcome.failure = failure
            self.outcome.stopped = True
            self.over = True

    def finish(self, deadline: Deadline = no_deadline) -> Outcome:
        """As `explorer.finish`, in this process."""
        return finish(self.scenario, self.outcome, self.plan, deadline)
