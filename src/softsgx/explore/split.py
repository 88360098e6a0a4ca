"""Exploration in parts: disjoint units of work that add up to the exploration by one process.

A unit is plain data, and so is what comes of it, so units can be sent to other processes or
machines. The units of a plan do not depend on who works on them, nor on how many do; put together
in their order, the parts are what one process would have found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from softsgx.explore.attempt import advance
from softsgx.explore.explorer import (
    Deadline,
    Outcome,
    Plan,
    drive,
    judged,
    never,
    steps_of,
)
from softsgx.explore.failure import Failure
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies import Bounded, Pct, Strategy, Walk
from softsgx.sim import Choice, Rng

CHUNK = 64
"""Random executions in a unit."""


class Unit(NamedTuple):
    """Random executions `first` to `first + number - 1`; or all below a prefix, within a bound."""

    strategy: str
    seed: int = 0
    first: int = 0
    number: int = 0
    depth: int = 0
    steps: int = 0
    bound: int | None = None
    prefix: tuple[Choice, ...] = ()

    def scheduler(self) -> Strategy:
        """The strategy that executes it."""
        rng = Rng(self.seed)
        if self.strategy == "random":
            return Walk(rng, self.number, self.first)
        if self.strategy == "pct":
            return Pct(rng, self.number, self.depth, self.steps, self.first)
        return Bounded(self.bound, self.prefix)


class Part(NamedTuple):
    """What came of a unit. `cut`: the bound left something out; `stopped`: the time was over."""

    executions: int
    points: int
    cut: bool
    stopped: bool
    failure: Failure | None


class Round(NamedTuple):
    """Units that may be worked on at once. `bound` is done when they are, -1 if none is."""

    bound: int
    before: Part
    units: tuple[Unit, ...]


def work(scenario: Scenario, unit: Unit, deadline: Deadline = never) -> Part:
    """Execute a unit, up to its first failure."""
    strategy = unit.scheduler()
    outcome = Outcome(scenario.name, unit.strategy)
    drive(scenario, strategy, outcome, 1 << 62, deadline, None)
    cut = isinstance(strategy, Bounded) and strategy.cut
    return Part(outcome.executions, outcome.points, cut, outcome.stopped, outcome.failure)


def rounds(scenario: Scenario, plan: Plan) -> Iterator[Round]:
    """The rounds of a plan; whoever works on them stops when a round was complete.

    Partial-order reduction has no units: what is left to do in one part of its tree is found in the
    others.
    """
    if plan.strategy == "exhaustive":
        raise ValueError("strategy exhaustive: it is not divided among processes")
    if plan.strategy in ("random", "pct"):
        steps = steps_of(scenario)
        units = [
            Unit(
                plan.strategy,
                plan.seed,
                first,
                min(CHUNK, plan.executions - first),
                plan.depth,
                steps,
            )
            for first in range(0, plan.executions, CHUNK)
        ]
        yield Round(-1, Part(0, 0, True, False, None), tuple(units))
        return
    bound = 0 if plan.strategy == "deepening" else plan.preemptions
    while True:
        yield _round(scenario, bound)
        if plan.strategy == "dfs" or bound == plan.preemptions:
            return
        assert bound is not None
        bound += 1


def _round(scenario: Scenario, bound: int | None) -> Round:
    """The first execution, and a unit for everything that it left open."""
    strategy = Bounded(bound)
    strategy.begin()
    found = advance(scenario, strategy)
    assert found is not None, "depth first does not cut"
    part = Part(1, found.execution.steps, strategy.cut, False, found.failure)
    units = [Unit("dfs", bound=bound, prefix=tuple(p)) for p in strategy.alternatives()]
    return Round(-1 if bound is None else bound, part, tuple(units))


def gather(outcome: Outcome, done: Round, parts: Sequence[Part | None]) -> bool:
    """Add the parts of a round to the outcome, in order; whether the exploration goes on.

    A part may be missing behind the first failure.
    """
    cut = False
    for part in (done.before, *parts):
        if part is None:
            break
        outcome.executions += part.executions
        outcome.points += part.points
        outcome.failure = part.failure
        outcome.stopped = outcome.stopped or part.stopped
        cut = cut or part.cut
        if part.failure is not None:
            return False
    if outcome.stopped:
        return False
    if not cut:
        outcome.complete = True
        return False
    outcome.bound = max(outcome.bound, done.bound)
    return True


def finish(scenario: Scenario, outcome: Outcome, plan: Plan) -> Outcome:
    """Judge the failure, in one process again."""
    if outcome.failure is not None:
        outcome.found_after = outcome.executions
        outcome.failure = judged(scenario, outcome.failure, plan, outcome.bound + 1)
    return outcome
