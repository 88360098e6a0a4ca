"""Units add up to the search by one process, whoever executes them, in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from softsgx.explore import Outcome, Plan, Scenario, explore
from softsgx.explore.outcome import LeftOut
from softsgx.explore.split import Search
from softsgx.explore.unit import Unit, UnitResult, work
from softsgx.sim import Choice, Execution, Rng
from softsgx.system.scenarios.catalogue import SCENARIOS
from tests.explore.programs import OPS, Run, random_program
from tests.explore.test_explorer import Counter, tasks
from tests.explore.test_orders import numbered


def search(
    scenario: Scenario,
    plan: Plan,
    quantum: int | Callable[[], int],
    order: Rng | None = None,
    late: int = 1,
) -> Outcome:
    """Search with three workers that return after `quantum` executions.

    With `order` they end in any order; with `late`, mostly the one that began last.
    """
    found = Search(scenario, plan)
    waiting: list[tuple[Any, Unit]] = []
    while not found.over:
        while len(waiting) < 3 and (taken := found.take()) is not None:
            waiting.append(taken)
        assert waiting, "nothing to do, and not over"
        at = 0 if order is None else order.below(len(waiting))
        if order is not None and order.below(late):
            at = len(waiting) - 1
        ticket, unit = waiting.pop(at)
        size = quantum if isinstance(quantum, int) else quantum()
        found.give(ticket, some(scenario, unit, size))
    return found.finish()


def some(scenario: Scenario, unit: Unit, quantum: int) -> UnitResult:
    left = iter(range(quantum - 1))
    return work(scenario, unit, pause=lambda: next(left, None) is None)


def summary(outcome: Outcome) -> tuple[object, ...]:
    return (
        outcome.executions,
        outcome.points,
        outcome.redundant,
        outcome.complete,
        outcome.bound,
        outcome.failure,
        outcome.longest,
        outcome.reasons,
        outcome.schedules,
        None if outcome.orders is None else (outcome.orders.pairs, outcome.orders.both),
    )


@pytest.mark.parametrize("quantum", [1, 3, 1000])
@pytest.mark.parametrize("plan", [Plan(strategy="dfs"), Plan(preemptions=3), Plan()])
def test_units_count_as_the_whole(plan: Plan, quantum: int) -> None:
    whole = explore(tasks(4, 3), plan)
    for order in (None, Rng(1), Rng(2)):
        outcome = search(tasks(4, 3), plan, quantum, order)
        assert summary(outcome) == summary(whole)
        if outcome.complete:
            assert outcome.fraction == pytest.approx(1.0)


@pytest.mark.parametrize("quantum", [1, 3, 1000])
@pytest.mark.parametrize("strategy", ["dfs", "deepening", "exhaustive", "random", "pct"])
def test_a_limit_is_met_exactly(strategy: str, quantum: int) -> None:
    """A unit that exceeds the limit is done again; how far it gets depends on timing."""
    for executions in (1, 2, 15, 69, 70, 71):
        plan = Plan(strategy=strategy, executions=executions)
        whole = explore(tasks(4, 4), plan)
        for order in (None, Rng(1), Rng(2)):
            outcome = search(tasks(4, 4), plan, quantum, order)
            assert (*summary(outcome), outcome.stopped) == (*summary(whole), whole.stopped)


def test_a_guided_search_is_not_divided() -> None:
    """Each execution depends on those before it: what is interrupted does not go on."""
    for executions in (1, 2, 15, 70):
        plan = Plan(strategy="guided", executions=executions)
        whole = explore(numbered(5), plan)
        assert whole.executions == executions
        for quantum in (executions, 1000):
            outcome = search(numbered(5), plan, quantum)
            assert (*summary(outcome), outcome.stopped) == (*summary(whole), False)
    cut = search(numbered(5), plan, 3)
    assert (cut.executions, cut.stopped) == (3, True)
    assert LeftOut.TIME in cut.reasons


@pytest.mark.parametrize("strategy", ["dfs", "deepening", "exhaustive", "random"])
def test_a_limit_is_met_however_fast_the_workers_are(strategy: str) -> None:
    """On a busy machine the unit that was done again up to the limit was interrupted before it:
    the search ended there, with 127 executions of 200."""
    for executions in (15, 40, 69):
        plan = Plan(strategy=strategy, executions=executions)
        whole = explore(tasks(4, 4), plan)
        for seed in range(20):
            order, speed = Rng(seed), Rng(seed).stream("speed")
            outcome = search(tasks(4, 4), plan, lambda: 1 + speed.below(60), order)  # noqa: B023
            assert (*summary(outcome), outcome.stopped) == (*summary(whole), whole.stopped)


@pytest.mark.parametrize("strategy", ["dfs", "deepening", "exhaustive", "random"])
def test_a_worker_that_comes_late_is_not_taken_for_another(strategy: str) -> None:
    """A unit was cut at the limit and done again, and what was left of it got the number of what
    had been left the first time, which a slow worker still held: its answer counted for the new
    unit (a wrong number of executions), and `--shipped --jobs 2` ended in a KeyError once."""
    for executions in (15, 20, 40):
        plan = Plan(strategy=strategy, executions=executions)
        whole = explore(tasks(4, 4), plan)
        for seed in range(60):
            order, speed = Rng(seed), Rng(seed).stream("speed")
            outcome = search(tasks(4, 4), plan, lambda: 1 + speed.below(20), order, late=8)  # noqa: B023
            assert (*summary(outcome), outcome.stopped) == (*summary(whole), whole.stopped)


@pytest.mark.parametrize("quantum", [1, 2, 1000])
def test_the_first_failure_in_order_counts(quantum: int) -> None:
    whole = explore(Counter(), Plan())
    for order in (None, Rng(1), Rng(2)):
        assert summary(search(Counter(), Plan(), quantum, order)) == summary(whole)


def test_when_the_time_is_over_the_limit_still_holds_for_subtrees() -> None:
    scenario, counted = tasks(4, 4), 0
    for executions in range(4, 24):
        found = Search(scenario, Plan(strategy="exhaustive", executions=executions))
        taken = found.take()
        assert taken is not None
        found.give(taken[0], some(scenario, taken[1], 3))
        waiting = []
        while (taken := found.take()) is not None:
            waiting.append(taken)
        for ticket, unit in waiting[1:]:  # the first is missing
            found.give(ticket, some(scenario, unit, 6))
        assert found.outcome.executions == 3
        found.stop()
        assert found.outcome.executions <= executions
        counted += found.outcome.executions > 3
    assert counted > 5


@pytest.mark.parametrize("strategy", ["dfs", "deepening"])
def test_when_the_time_is_over_the_limit_still_holds(strategy: str) -> None:
    """What had arrived was added up however much it was: a missing result hid the limit."""
    stopped = 0
    for seed in range(30):
        rng = Rng(seed)
        found = Search(tasks(4, 4), Plan(strategy=strategy, executions=20))
        waiting: list[tuple[Any, Unit]] = []
        for _ in range(12):
            while len(waiting) < 3 and (taken := found.take()) is not None:
                waiting.append(taken)
            if found.over or not waiting:
                break
            ticket, unit = waiting.pop()
            found.give(ticket, some(tasks(4, 4), unit, 1 + rng.below(12)))
        stopped += not found.over
        found.stop()
        assert found.outcome.executions <= 20
    assert stopped


@pytest.mark.parametrize("strategy", ["dfs", "exhaustive", "random"])
def test_when_the_time_is_over_what_has_come_counts_and_nothing_later(strategy: str) -> None:
    """Even if an earlier result is missing; a late worker changes nothing."""
    scenario = tasks(4, 4)
    found = Search(scenario, Plan(strategy=strategy, executions=300))
    waiting: list[tuple[Any, Unit]] = []
    while len(waiting) < (2 if strategy == "exhaustive" else 4):
        if (taken := found.take()) is not None:
            waiting.append(taken)
        else:
            ticket, unit = waiting.pop(0)
            found.give(ticket, some(scenario, unit, 1))
    before, late = found.outcome.executions, waiting.pop(0)
    came = [some(scenario, unit, 2) for _, unit in waiting]
    for (ticket, _), part in zip(waiting, came, strict=True):
        found.give(ticket, part)
    assert found.outcome.executions == before, "something before them is missing"
    found.stop()
    after = before + sum(part.executions for part in came)
    assert (found.outcome.executions, found.outcome.stopped) == (after, True)
    found.give(late[0], some(scenario, late[1], 2))
    found.stop()
    assert (found.outcome.executions, found.take()) == (after, None)


@pytest.mark.parametrize("strategy", ["dfs", "exhaustive", "random", "pct"])
def test_a_unit_that_is_done_is_given_back_at_once(strategy: str) -> None:
    """`pause` is asked between executions, but not after the last one."""
    scenario = tasks(3, 3)
    taken = Search(scenario, Plan(strategy=strategy, executions=30)).take()
    assert taken is not None
    asked = 0

    def pause() -> bool:
        nonlocal asked
        asked += 1
        assert asked <= 64, "it waits for the end of its time"
        return False

    part = work(scenario, taken[1], pause)
    assert (part.executions, part.rest, part.open) == (30 if asked > 20 else 20, (), ())
    assert asked == part.executions


def test_an_answer_counts_once() -> None:
    """A result that arrives again during the next bound does not count there."""
    scenario = tasks(3, 3)
    found = Search(scenario, Plan())
    first = found.take()
    assert first is not None
    part = some(scenario, first[1], 1000)
    found.give(first[0], part)
    assert (found.outcome.executions, found.outcome.bound, found.over) == (2, 0, False)
    found.give(first[0], part)
    assert (found.outcome.executions, found.outcome.bound, found.over) == (2, 0, False)


def test_random_executions_are_the_same_in_any_units() -> None:
    plan = Plan(strategy="random", executions=100, seed=5)
    outcome = search(tasks(3, 3), plan, 1)
    assert outcome.points == explore(tasks(3, 3), plan).points == 600
    assert (outcome.executions, outcome.complete) == (100, False)


# Partial-order reduction


class Seen:
    """A scenario that records the choices of each execution."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.choices: list[tuple[Choice, ...]] = []
        check = scenario.check

        def noted(execution: Execution) -> None:
            self.choices.append(tuple(execution.choices))
            check(execution)

        scenario.check = noted  # type: ignore[method-assign] # to see every execution


LOCKS = ("lock", "unlock", "read lock", "write lock", "trylock", "read", "write")


@pytest.mark.parametrize("quantum", [1, 2, 7, 50])
@pytest.mark.parametrize("ops", [OPS, LOCKS], ids=["all", "locks"])
def test_subtrees_are_the_whole_reduction(ops: tuple[str, ...], quantum: int) -> None:
    """The same executions, each once, and the same cuts, with draws, locks, daemons, retries."""
    compared = 0
    for number in range(30):
        program = random_program(Rng(7).stream(f"{ops} {number}"), 3, 4, ops)
        alone, divided = Seen(Run(program)), Seen(Run(program))
        plan = Plan(strategy="exhaustive", executions=2_000, minimise=False)
        one = explore(alone.scenario, plan)
        if one.stopped:
            continue
        many = search(divided.scenario, plan, quantum, Rng(number))
        assert summary(many) == summary(one), program
        if one.failure is None:
            compared += 1
            # Those that began before implicit conflicts were known to matter are done again.
            assert set(divided.choices) == set(alone.choices), program
    assert compared > 8


def test_a_strategy_that_is_not_handled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No unknown name is searched as if it were another strategy."""
    monkeypatch.setattr("softsgx.explore.plan.STRATEGIES", ("annealing",))
    plan = Plan(strategy="annealing")
    with pytest.raises(AssertionError, match="no strategy 'annealing'"):
        explore(Counter(), plan)
    with pytest.raises(AssertionError, match="no strategy 'annealing'"):
        Search(Counter(), plan)
    with pytest.raises(AssertionError, match="no units of strategy 'deepening'"):
        work(Counter(), Unit("deepening"))


def test_every_shipped_scenario_is_divided_exactly() -> None:
    for kind in SCENARIOS[:4]:
        plan = Plan(strategy="exhaustive", executions=60)
        one = explore(kind(), plan)
        many = search(kind(), plan, 60)
        assert (many.failure is None) == (one.failure is None), kind
        if one.complete:
            assert summary(many) == summary(one), kind
