"""Units of work add up to what one process finds."""

from __future__ import annotations

import pytest

from softsgx.explore import Outcome, Plan, explore
from softsgx.explore.split import finish, gather, rounds, work
from tests.explore.test_explorer import Counter, tasks


@pytest.mark.parametrize("plan", [Plan(strategy="dfs"), Plan(preemptions=3), Plan()])
def test_units_count_as_the_whole(plan: Plan) -> None:
    whole = explore(tasks(4, 3), plan)
    outcome = Outcome("bodies", plan.strategy)
    for turn in rounds(tasks(4, 3), plan):
        parts = [work(tasks(4, 3), unit) for unit in turn.units]
        if not gather(outcome, turn, parts):
            break
    assert outcome.executions == whole.executions
    assert (outcome.complete, outcome.bound) == (whole.complete, whole.bound)


def test_the_first_failure_in_order_counts() -> None:
    plan = Plan()
    whole = explore(Counter(), plan)
    outcome = Outcome("Counter", "deepening")
    for turn in rounds(Counter(), plan):
        if not gather(outcome, turn, [work(Counter(), unit) for unit in turn.units]):
            break
    assert finish(Counter(), outcome, plan).failure == whole.failure
    assert outcome.executions == whole.executions


def test_random_executions_are_the_same_in_any_units() -> None:
    plan = Plan(strategy="random", executions=100, seed=5)
    (turn,) = rounds(tasks(3, 3), plan)
    assert [unit.number for unit in turn.units] == [64, 36]
    points = sum(work(tasks(3, 3), unit).points for unit in turn.units)
    assert points == explore(tasks(3, 3), plan).points == 600


def test_reduction_is_not_divided() -> None:
    with pytest.raises(ValueError, match="not divided"):
        next(rounds(Counter(), Plan(strategy="exhaustive")))
