"""Exploring a scenario: one strategy after another, until a failure or the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from softsgx.explore.execute import execute_next
from softsgx.explore.failure import Failure, Kind
from softsgx.explore.minimise import minimise, with_preemptions
from softsgx.explore.outcome import Outcome
from softsgx.explore.plan import BOUNDED, EXHAUSTIVE, PCT, RANDOM, Plan
from softsgx.explore.record import replay_difference
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies import Bounded, Dpor, Pct, Strategy, Walk
from softsgx.sim import Choice, Rng

WALKS: Final = 64
"""How many random walks estimate the number of schedules, if not all were executed."""

Deadline = Callable[[], bool]
Progress = Callable[[Outcome], None]


def no_deadline() -> bool:
    """A deadline that never comes."""
    return False


def explore(
    scenario: Scenario,
    plan: Plan | None = None,
    *,
    deadline: Deadline = no_deadline,
    progress: Progress | None = None,
) -> Outcome:
    """Search a scenario for a failure.

    `deadline` says whether to stop; `progress` is called after each execution.
    """
    plan = plan or Plan()
    outcome = Outcome(scenario.name, plan.strategy)
    for bound, strategy in strategies(scenario, plan):
        drive(scenario, strategy, outcome, plan.executions, deadline, progress)
        outcome.fraction = strategy.fraction
        if outcome.failure is not None or outcome.stopped:
            break
        if strategy.exhausted:
            outcome.complete = True
            break
        outcome.bound = max(outcome.bound, bound)
    return finish(scenario, outcome, plan)


def finish(scenario: Scenario, outcome: Outcome, plan: Plan) -> Outcome:
    """End a search: confirm its failure, or estimate the number of schedules by random walks.

    If one of these walks fails, that is the failure of the search.
    """
    if outcome.failure is not None:
        outcome.found_after = outcome.executions
        outcome.failure = confirm(scenario, outcome.failure, plan, outcome.bound + 1)
    elif not outcome.complete and plan.strategy != RANDOM:
        walk = Walk(Rng(plan.seed).stream("estimate"), WALKS)
        estimate = Outcome(scenario.name, RANDOM)
        drive(scenario, walk, estimate, WALKS, no_deadline, None)
        outcome.schedules = walk.schedules
        if estimate.failure is not None:
            outcome.found_after = outcome.executions + estimate.executions
            outcome.failure = confirm(scenario, estimate.failure, plan, outcome.bound + 1)
    return outcome


def strategies(scenario: Scenario, plan: Plan) -> Iterator[tuple[int, Strategy]]:
    """The strategies of a plan, each with the bound that is complete when it has ended, or -1."""
    for bound in plan.bounds:
        yield (-1 if bound is None else bound), _strategy(scenario, plan, bound)


def _strategy(scenario: Scenario, plan: Plan, bound: int | None) -> Strategy:
    if plan.strategy == EXHAUSTIVE:
        return Dpor(scenario)
    if plan.strategy == RANDOM:
        return Walk(Rng(plan.seed), plan.executions)
    if plan.strategy == PCT:
        return Pct(Rng(plan.seed), plan.executions, plan.depth, steps_of(scenario))
    assert plan.strategy in BOUNDED, f"no strategy {plan.strategy!r}"
    return Bounded(bound)


def steps_of(scenario: Scenario) -> int:
    """The number of steps without preemption, by which PCT estimates the length of executions."""
    strategy = Bounded(0)
    strategy.begin()
    found = execute_next(scenario, strategy)
    return found.execution.steps if found is not None else 1


def drive(
    scenario: Scenario,
    strategy: Strategy,
    outcome: Outcome,
    limit: int,
    deadline: Deadline,
    progress: Progress | None,
) -> None:
    """Execute a strategy until it ends, fails, or reaches the limit or the deadline."""
    while outcome.failure is None:
        if not strategy.begin():
            break
        if outcome.executions >= limit or deadline():
            outcome.stopped = True
            return
        execute_and_count(scenario, strategy, outcome)
        if progress is not None:
            outcome.fraction = strategy.fraction
            progress(outcome)
    if isinstance(strategy, Dpor):
        outcome.redundant = strategy.redundant


def execute_and_count(
    scenario: Scenario, strategy: Strategy, outcome: Outcome, before: int = 0
) -> None:
    """Carry out the execution that a strategy has begun, and add it to the outcome.

    `before`: earlier executions that the outcome does not count.
    """
    found = execute_next(scenario, strategy)
    outcome.executions += 1
    if found is None:
        return
    execution = found.execution
    outcome.points += execution.steps
    outcome.failure = found.failure
    # At powers of two, execute the schedule again to see whether the scenario is deterministic.
    if found.failure is None and (before + outcome.executions).bit_count() == 1:
        outcome.failure = nondeterminism(scenario, execution.choices, execution.steps)


def nondeterminism(scenario: Scenario, choices: list[Choice], steps: int) -> Failure | None:
    """A failure if one schedule has two different executions; None if they agree."""
    why, where = replay_difference(scenario, choices)
    if not why:
        return None
    kind = Kind.NONDETERMINISM
    return Failure(kind, "nondeterminism", why, where or scenario.file, "", tuple(choices), steps)


def confirm(scenario: Scenario, failure: Failure, plan: Plan, least: int) -> Failure:
    """Execute a failure again; returns it with its preemptions counted, and minimised."""
    if failure.kind is Kind.NONDETERMINISM or not failure.steps:
        return failure
    again = nondeterminism(scenario, list(failure.choices), failure.steps)
    if again is not None:
        return again
    if not plan.minimise or failure.kind in (Kind.STEP_BOUND, Kind.SCENARIO):
        return with_preemptions(scenario, failure)
    return minimise(scenario, failure, least=max(0, least))
