"""The deadline, the number of executions and max_steps hold for everything that a search does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from softsgx.explore import STRATEGIES, Kind, Outcome, Plan, Scenario, Violation, explore
from softsgx.explore.limits import LimitReached
from softsgx.explore.outcome import LeftOut
from softsgx.explore.plan import DEEP, STATES
from softsgx.explore.split import Search
from softsgx.explore.strategies import Bounded
from softsgx.explore.table import table
from softsgx.explore.unit import work
from softsgx.sim import Execution, Steps


class Counted(Scenario):
    """Three tasks; counts steps and executions. `fails` says whether an order is a failure."""

    def __init__(self, fails: Callable[[list[str]], bool] = lambda order: False) -> None:
        self.fails = fails
        self.starts = self.stepped = 0
        self.order: list[str] = []

    def start(self, execution: Execution) -> None:
        self.starts += 1
        self.order = []
        for name in "ABC":
            execution.spawn(self.body(name), name)

    def state_roots(self) -> dict[str, object]:
        """Not the counters, which go on from one execution to the next."""
        return {"order": self.order}

    def body(self, name: str) -> Steps[None]:
        for _ in range(4):
            yield ("write", "x", True)
            self.stepped += 1
            self.order.append(name)

    def check(self, execution: Execution) -> None:
        if self.fails(self.order):
            raise Violation("order", "".join(self.order))


FAILS: dict[str, Callable[[list[str]], bool]] = {
    "never": lambda order: False,
    "soon": lambda order: order[-1] != "C",
    "later": lambda order: order[:3] == ["C", "B", "A"],
    "seldom": lambda order: "".join(order[2:8]) == "CABCAB",
}


@pytest.mark.parametrize("fails", FAILS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_takes_a_step_after_the_deadline(strategy: str, fails: str) -> None:
    """A budget of 1 s took 22 s with slow steps: random walks and minimiser asked no clock."""
    late = 0
    for allowed in (0, 1, 30, 100, 400, 1000, 3000):
        scenario = Counted(FAILS[fails])
        outcome = explore(
            scenario,
            Plan(strategy=strategy, executions=1000),
            deadline=lambda: scenario.stepped >= allowed,  # noqa: B023
        )
        assert scenario.stepped <= allowed
        assert outcome.points <= allowed
        late += scenario.stepped == allowed
        if scenario.stepped == allowed:
            assert not outcome.complete
        if outcome.failure is not None and not outcome.confirmed:
            assert not outcome.minimised
    assert late >= 3


def test_what_follows_a_search_has_a_deadline_of_its_own() -> None:
    scenario = Counted(FAILS["later"])
    explore(scenario, Plan(strategy="random", minimise=False))
    confirmed = scenario.stepped
    for more in (-1, 0, 10, 50):
        scenario = Counted(FAILS["later"])
        outcome = explore(
            scenario,
            Plan(strategy="random"),
            late=lambda: scenario.stepped >= confirmed + more,  # noqa: B023
        )
        assert outcome.failure is not None
        assert (outcome.confirmed, outcome.minimised) == (more >= 0, False)
        assert scenario.stepped == confirmed + more


@pytest.mark.parametrize("fails", FAILS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_executions_are_a_limit_for_everything(strategy: str, fails: str) -> None:
    """`--executions 3` said "found after 4", and minimised in 2,600 executions more."""
    for limit in (1, 3, 10, 50, 128, 300):
        scenario = Counted(FAILS[fails])
        outcome = explore(scenario, Plan(strategy=strategy, executions=limit))
        # Confirming a failure and checking for nondeterminism take a few, however low the limit.
        few = limit.bit_length() + 1
        length = int(strategy in DEEP)  # to learn how long an execution is
        assert scenario.starts <= max(limit + limit // 10, limit + few) + length
        assert outcome.executions <= limit
        assert outcome.found_after <= limit
        assert outcome.walks <= limit // 10 or not outcome.stopped


def test_a_failure_of_the_random_walks_says_where_it_was_found() -> None:
    scenario = Counted(FAILS["later"])
    outcome = explore(scenario, Plan(strategy="dfs", preemptions=0))
    assert outcome.failure is not None
    assert (outcome.found_after, outcome.executions) == (6, 6)
    assert 0 < outcome.walks <= 64
    assert outcome.left_out == {LeftOut.PREEMPTIONS}


def test_a_limit_in_the_minimiser_leaves_the_best_so_far() -> None:
    def outcome_of(executions: int) -> Outcome:
        scenario = Counted(FAILS["later"])
        return explore(scenario, Plan(strategy="random", executions=executions))

    whole = outcome_of(1000)
    cut = outcome_of(whole.found_after)
    some = outcome_of(whole.found_after + 6)
    assert (whole.confirmed, whole.minimised) == (True, True)
    assert (cut.confirmed, cut.minimised) == (True, False)
    assert whole.failure is not None
    assert cut.failure is not None
    assert some.failure is not None
    assert whole.failure.preemptions <= some.failure.preemptions <= cut.failure.preemptions
    assert whole.failure.preemptions < cut.failure.preemptions


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_execution_takes_more_than_max_steps(strategy: str) -> None:
    class Endless(Counted):
        max_steps = 20

        def start(self, execution: Execution) -> None:
            super().start(execution)
            execution.spawn(self.last(), "D")

        def last(self) -> Steps[None]:
            yield ("write", "x", True)
            while self.order[:1] == ["C"]:
                yield ("write", "x", True)
                self.order.append("D")

    scenario = Endless()
    failure = explore(scenario, Plan(strategy=strategy, executions=5000)).failure
    assert failure is not None
    assert (failure.kind, failure.steps) == (Kind.STEP_BOUND, 20)
    assert scenario.stepped <= 20 * scenario.starts


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_a_worker_did_before_the_deadline_counts_and_is_not_taken_for_all(
    strategy: str,
) -> None:
    """A unit that is cut in an execution cannot say what remains of it."""
    scenario = Counted()
    search = Search(scenario, Plan(strategy=strategy, executions=100))
    taken = search.take()
    assert taken is not None
    ticket, unit = taken
    end = scenario.stepped + 12 * 7 + 5
    result = work(scenario, unit, deadline=lambda: scenario.stepped >= end)
    assert result.late
    search.give(ticket, result)
    assert (search.over, search.outcome.executions) == (False, 0)
    search.stop()
    # Of seven executions, the first, second and fourth were checked; STATES cuts the first.
    outcome = search.finish(lambda: True)
    assert (outcome.executions, outcome.points) == ((6, 60) if strategy == STATES else (4, 48))
    assert not outcome.complete
    assert LeftOut.TIME in outcome.reasons
    assert outcome.longest == 12


def test_a_failure_that_arrived_stays_whatever_arrives_late() -> None:
    scenario = Counted(FAILS["later"])
    search = Search(scenario, Plan(strategy="random", executions=200))
    units = [search.take() for _ in range(3)]
    for taken in reversed(units):
        assert taken is not None
        ticket, unit = taken
        end = scenario.stepped + 20
        cut = unit.first == 0
        result = work(scenario, unit, deadline=lambda: cut and scenario.stepped >= end)  # noqa: B023
        assert (result.late, result.failure is None) == (cut, cut)
        search.give(ticket, result)
    search.stop()
    assert search.outcome.failure is not None


def test_the_table_of_a_failure_ends_at_its_deadline() -> None:
    scenario = Counted()
    strategy = Bounded(0)
    assert strategy.begin()
    assert "write x" in table(scenario, [])
    with pytest.raises(LimitReached):
        table(scenario, [], lambda: scenario.stepped >= 20)
    assert scenario.stepped == 20


BAD: dict[str, dict[str, Any]] = {
    "strategy exhaustive has no bound of preemptions": {"strategy": "exhaustive", "preemptions": 2},
    "strategy pct has no bound of preemptions": {"strategy": "pct", "preemptions": 0},
    "executions = 0: not a number from 1 up": {"executions": 0},
    "executions = 1.5: not a number from 1 up": {"executions": 1.5},
    "depth = 0: not a number from 1 up": {"strategy": "pct", "depth": 0},
    "preemptions = -1: not a number from 0 up": {"preemptions": -1},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_plan_that_no_strategy_can_follow_is_refused(reason: str) -> None:
    """exhaustive ignored a bound, and zero executions found nothing."""
    with pytest.raises(ValueError, match=reason):
        Plan(**BAD[reason])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("max_steps", 0, "Counted: max_steps = 0: not a number of steps from 1 up"),
        ("max_steps", 1e3, "Counted: max_steps = 1000.0: not a number of steps"),
        ("points", "access", "Counted: points = 'access': a scenario in Python yields its points"),
    ],
)
def test_a_scenario_that_cannot_do_what_it_asks_is_refused(
    name: str, value: object, reason: str
) -> None:
    scenario = Counted()
    setattr(scenario, name, value)
    for make in (explore, lambda each: Search(each, Plan())):
        with pytest.raises(ValueError, match=reason):
            make(scenario)
    assert scenario.starts == 0
