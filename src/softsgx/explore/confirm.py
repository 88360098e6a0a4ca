"""Confirming a failure: it is executed again, then minimised."""

from __future__ import annotations

from collections.abc import Sequence

from softsgx.explore.failure import Failure, Kind
from softsgx.explore.limits import Allowance, Deadline, LimitReached, no_deadline
from softsgx.explore.minimise import minimise
from softsgx.explore.outcome import Outcome
from softsgx.explore.plan import Plan
from softsgx.explore.record import Recording, plain_text, record, replay_difference
from softsgx.explore.scenario import Scenario
from softsgx.sim import Choice


def difference(
    scenario: Scenario,
    choices: Sequence[Choice],
    deadline: Deadline = no_deadline,
    first: Recording | None = None,
) -> Failure | None:
    """A failure if one schedule has two different executions; None if they agree.

    `first`, `deadline`: as for `replay_difference`.
    """
    why, where = replay_difference(scenario, choices, deadline, first)
    if not why:
        return None
    steps = first.executed.execution.steps if first is not None else len(choices)
    return _nondeterminism(scenario, why, where, choices, steps)


def _nondeterminism(
    scenario: Scenario, why: str, where: str, choices: Sequence[Choice], steps: int
) -> Failure:
    kind = Kind.NONDETERMINISM
    return Failure(kind, "nondeterminism", why, where or scenario.file, "", tuple(choices), steps)


def confirm(scenario: Scenario, outcome: Outcome, plan: Plan, allowance: Allowance) -> None:
    """Execute the failure of a search again, count its preemptions, and minimise it.

    The first execution is done even if the allowance has none left, but not past its deadline.
    """
    failure = outcome.failure
    assert failure is not None, "there is no failure to confirm"
    if failure.kind is Kind.NONDETERMINISM or not failure.steps:
        return
    outcome.confirmed = outcome.minimised = False
    try:
        allowance.left = max(1, allowance.left)
        again = record(scenario, failure.choices, deadline=allowance.spend())
        found = again.failure
        if found is None or not _same(failure, found):
            outcome.failure = _other(scenario, failure, found, allowance.deadline)
            return
    except LimitReached:
        return
    outcome.confirmed = outcome.minimised = True
    outcome.failure = found
    if plan.minimise and failure.kind not in (Kind.STEP_BOUND, Kind.SCENARIO):
        least = max(0, outcome.bound + 1)
        outcome.failure, outcome.minimised = minimise(scenario, again, allowance, least=least)


def _same(one: Failure, other: Failure) -> bool:
    """Whether two executions of one schedule ended alike."""
    first, second = [(f.kind, f.rule, plain_text(f), f.choices, f.steps) for f in (one, other)]
    return first == second


def _other(
    scenario: Scenario, failure: Failure, again: Failure | None, deadline: Deadline
) -> Failure:
    """The nondeterminism of a schedule that failed in one way, then in another or not at all."""
    why, where = replay_difference(scenario, failure.choices, deadline)
    if not why:
        then = plain_text(again) if again is not None else "no failure"
        why = f"the first run ends with: {plain_text(failure)}; the second with: {then}"
    return _nondeterminism(scenario, why, where, failure.choices, failure.steps)
