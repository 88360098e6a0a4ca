"""Exploring a scenario: one strategy after another, until a failure or the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from softsgx.explore.confirm import confirm, difference
from softsgx.explore.execute import execute_next
from softsgx.explore.limits import Allowance, Deadline, LimitReached, no_deadline
from softsgx.explore.outcome import LeftOut, Outcome
from softsgx.explore.plan import BOUNDED, DEEP, EXHAUSTIVE, RANDOM, SAMPLED, STATES, Plan
from softsgx.explore.record import Recorder, Recording
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies import Bounded, Dpor, Pct, States, Strategy, Walk
from softsgx.explore.strategies.sampled import sampled
from softsgx.sim import Rng

WALKS: Final = 64
"""How many random walks estimate the number of schedules, if not all were executed."""

Progress = Callable[[Outcome], None]


def explore(
    scenario: Scenario,
    plan: Plan | None = None,
    *,
    deadline: Deadline = no_deadline,
    late: Deadline | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Search a scenario for a failure. ValueError if it cannot be explored as it asks.

    `deadline` says whether to stop, and is asked before each step; `late` is a little later, when
    to stop confirming and minimising a failure and estimating, too. `progress` is called after each
    execution.
    """
    plan = plan or Plan()
    outcome = begun(scenario, plan)
    for bound, strategy in strategies(scenario, plan, deadline):
        drive(scenario, strategy, outcome, plan.executions, deadline, progress)
        outcome.fraction = strategy.fraction
        if outcome.failure is not None or outcome.stopped:
            break
        if strategy.exhausted:
            outcome.exhausted = True
            break
        outcome.bound = max(outcome.bound, bound)
    return finish(scenario, outcome, plan, late or deadline)


def begun(scenario: Scenario, plan: Plan) -> Outcome:
    """The outcome of a search that has done nothing yet. ValueError as `explore`."""
    refused = scenario.refusal()
    if refused:
        raise ValueError(f"{type(scenario).__name__}: {refused}")
    return Outcome(scenario.name, plan.strategy, granularity=scenario.granularity)


def finish(
    scenario: Scenario, outcome: Outcome, plan: Plan, deadline: Deadline = no_deadline
) -> Outcome:
    """End a search: confirm its failure, or estimate the number of schedules by random walks.

    If one of these walks fails, that is the failure of the search. All of this, with the checks of
    the search for nondeterminism, takes the executions that the plan has left and a tenth more.
    """
    _settle(outcome, plan)
    checks = outcome.executions.bit_length()
    left = plan.executions - outcome.executions + plan.executions // 10 - checks
    allowance = Allowance(left, deadline)
    if outcome.failure is not None:
        outcome.found_after = outcome.executions
        confirm(scenario, outcome, plan, allowance)
    elif (outcome.left_out or not outcome.exhausted) and plan.strategy != RANDOM and left > 0:
        _estimate(scenario, outcome, plan, allowance)
    return outcome


def abandon(outcome: Outcome, plan: Plan) -> Outcome:
    """End a search without executing anything more: an execution may hang."""
    _settle(outcome, plan)
    if outcome.failure is not None:
        outcome.found_after = outcome.executions
        outcome.confirmed = outcome.minimised = False
    return outcome


def _settle(outcome: Outcome, plan: Plan) -> None:
    """Say why the search ended, if it did not end by itself."""
    if outcome.stopped:
        full = outcome.executions >= plan.executions
        outcome.left_out.add(LeftOut.EXECUTIONS if full else LeftOut.TIME)
    elif outcome.failure is None and not outcome.exhausted and outcome.bound >= 0:
        outcome.left_out.add(LeftOut.PREEMPTIONS)


def _estimate(scenario: Scenario, outcome: Outcome, plan: Plan, allowance: Allowance) -> None:
    number = min(WALKS, allowance.left)
    walk = Walk(Rng(plan.seed).stream("estimate"), number)
    estimate = Outcome(scenario.name, RANDOM)
    drive(scenario, walk, estimate, number, allowance.deadline, None, outcome.executions)
    allowance.left -= estimate.executions
    outcome.walks = estimate.executions
    outcome.schedules = walk.schedules
    outcome.longest = max(outcome.longest, estimate.longest)
    if estimate.failure is not None:
        outcome.found_after = outcome.executions
        outcome.failure = estimate.failure
        confirm(scenario, outcome, plan, allowance)


def strategies(
    scenario: Scenario, plan: Plan, deadline: Deadline = no_deadline
) -> Iterator[tuple[int, Strategy]]:
    """The strategies of a plan, each with the bound that is complete when it has ended, or -1."""
    for bound in plan.bounds:
        yield (-1 if bound is None else bound), _strategy(scenario, plan, bound, deadline)


def _strategy(scenario: Scenario, plan: Plan, bound: int | None, deadline: Deadline) -> Strategy:
    if plan.strategy == EXHAUSTIVE:
        return Dpor(scenario)
    if plan.strategy == STATES:
        return States(scenario)
    if plan.strategy in SAMPLED:
        steps = steps_of(scenario, deadline) if plan.strategy in DEEP else 1
        how = {"depth": plan.depth, "steps": steps}
        return sampled(plan.strategy, scenario, plan.seed, plan.executions, **how)
    assert plan.strategy in BOUNDED, f"no strategy {plan.strategy!r}"
    return Bounded(bound)


def steps_of(scenario: Scenario, deadline: Deadline = no_deadline) -> int:
    """The number of steps without preemption, from which DEEP strategies take the length."""
    strategy = Bounded(0)
    strategy.begin()
    try:
        found = execute_next(scenario, strategy, deadline)
    except LimitReached:
        return 1
    return found.execution.steps if found is not None else 1


def drive(
    scenario: Scenario,
    strategy: Strategy,
    outcome: Outcome,
    limit: int,
    deadline: Deadline,
    progress: Progress | None,
    before: int = 0,
) -> None:
    """Execute a strategy until it ends, fails, or reaches the limit or the deadline.

    `before`: earlier executions that the outcome does not count.
    """
    if isinstance(strategy, Walk | Pct) and strategy.watch is not None:
        outcome.orders = strategy.watch.orders
    while outcome.failure is None:
        if not strategy.begin():
            break
        if outcome.executions >= limit or deadline():
            outcome.stopped = True
            return
        try:
            execute_and_count(scenario, strategy, outcome, before, deadline)
        except LimitReached:
            outcome.stopped = True
            return
        finally:
            if isinstance(strategy, States):
                outcome.states, outcome.depth = strategy.states, strategy.depth
        if progress is not None:
            outcome.fraction = strategy.fraction
            progress(outcome)
    if isinstance(strategy, Dpor):
        outcome.redundant = strategy.redundant
    if isinstance(strategy, States):
        outcome.schedules = strategy.schedules


def execute_and_count(
    scenario: Scenario,
    strategy: Strategy,
    outcome: Outcome,
    before: int = 0,
    deadline: Deadline = no_deadline,
) -> None:
    """Carry out the execution that a strategy has begun, and add it to the outcome.

    `before`: earlier executions that the outcome does not count. LimitReached at the deadline; then
    the execution does not count, unless only its check was cut.
    """
    # At powers of two, execute the schedule again to see whether the scenario is deterministic.
    checked = (before + outcome.executions + 1).bit_count() == 1
    recorder = Recorder(strategy, scenario) if checked else None
    found = execute_next(scenario, strategy, deadline, recorder)
    outcome.executions += 1
    if found is None:
        return
    execution = found.execution
    outcome.points += execution.steps
    outcome.longest = max(outcome.longest, execution.steps)
    outcome.failure = found.failure
    if found.failure is None and recorder is not None:
        first = Recording(found, recorder)
        outcome.failure = difference(scenario, execution.choices, deadline, first)
