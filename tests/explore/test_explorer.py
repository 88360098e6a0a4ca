"""The explorer on small scenarios: what is complete, what is found, and what is reported."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from math import comb
from typing import Any

import pytest

from softsgx.explore import (
    STRATEGIES,
    Kind,
    Outcome,
    Plan,
    ReplayRefused,
    Scenario,
    Violation,
    explore,
    record,
    replay_string,
)
from softsgx.explore.outcome import LeftOut, coverage
from softsgx.explore.replay import choices_of
from softsgx.explore.strategies import Bounded
from softsgx.explore.table import table
from softsgx.sim import RETRY, Execution, Mutex, Rng, Steps
from tests.explore.bodies import Bodies
from tests.explore.programs import plain, random_program, search


class Counter(Scenario):
    """Two additions that are not atomic."""

    def start(self, execution: Execution) -> None:
        self.value = 0
        execution.spawn(self.add(), "A")
        execution.spawn(self.add(), "B")

    def add(self) -> Steps[None]:
        yield ("read", "value", False)
        value = self.value
        yield ("write", "value", True)
        self.value = value + 1

    def check(self, execution: Execution) -> None:
        if self.value != 2:
            raise Violation("lost update", f"value {self.value} after two additions")

    def state(self) -> str:
        return f"value {self.value}"


def steps(count: int, what: Any = "x") -> Steps[None]:
    for _ in range(count):
        yield ("write", what, True)


def tasks(*counts: int) -> Bodies:
    return Bodies(lambda: None, *[lambda _s, n=count: steps(n) for count in counts])


# What is complete


def test_depth_first_counts_all_schedules() -> None:
    outcome = explore(tasks(6, 6), Plan(strategy="dfs"))
    assert outcome.executions == comb(12, 6)
    assert outcome.complete
    assert outcome.covered == "complete: every schedule of up to 12 points"


@pytest.mark.parametrize("bound", range(4))
def test_a_bound_counts_the_schedules_with_so_few_preemptions(bound: int) -> None:
    outcome = explore(tasks(4, 3), Plan(strategy="dfs", preemptions=bound))
    assert outcome.executions == sum(
        1 for schedule in _schedules(4, 3) if _preemptions(schedule, 4, 3) <= bound
    )
    assert not outcome.complete
    assert outcome.bound == bound


def _schedules(a: int, b: int) -> list[str]:
    if not a or not b:
        return ["a" * a + "b" * b]
    later = ["a" + s for s in _schedules(a - 1, b)]
    return later + ["b" + s for s in _schedules(a, b - 1)]


def _preemptions(schedule: str, a: int, b: int) -> int:
    left, count = {"a": a, "b": b}, 0
    for now, following in pairwise(schedule):
        left[now] -= 1
        count += now != following and left[now] > 0
    return count


def bounded(bound: int) -> Callable[[Scenario], Bounded]:
    return lambda _scenario: Bounded(bound)


def test_a_bound_that_left_something_out_anywhere_is_not_the_end() -> None:
    """The search is complete only if no choice anywhere was left out.

    Checked without its own bookkeeping: the program without a bound must have as many schedules.
    """
    rng = Rng(15)
    cut = 0
    for _ in range(40):
        program = random_program(rng, tasks=3, length=3)
        whole = plain(program, limit=3000)
        if not whole.exhausted:
            continue  # too large to count
        for bound in range(4):
            ends = search(program, bounded(bound))
            assert ends.exhausted == (ends.executions == whole.executions), (program, bound)
            cut += not ends.exhausted
    assert cut > 20


def test_deepening_ends_when_a_bound_leaves_nothing_out() -> None:
    outcome = explore(tasks(2, 2))
    assert outcome.complete
    assert outcome.failure is None


def test_a_limit_is_not_called_complete() -> None:
    outcome = explore(tasks(6, 6), Plan(strategy="dfs", executions=100))
    assert outcome.executions == 100
    assert not outcome.complete
    assert "the limit of executions was reached" in outcome.covered
    outcome = explore(tasks(6, 6), Plan(strategy="dfs", executions=800))
    assert outcome.walks == 64
    assert outcome.schedules == pytest.approx(comb(12, 6), rel=0.5)


def test_the_deadline_stops() -> None:
    stepped: list[int] = []

    def body(_: Any) -> Steps[None]:
        for _step in range(6):
            yield ("write", "x", True)
            stepped.append(1)

    outcome = explore(
        Bodies(lambda: None, body, body),
        Plan(strategy="random"),
        deadline=lambda: len(stepped) >= 60,
    )
    # 1 and 2 were executed twice, to see whether they are deterministic.
    assert (outcome.executions, len(stepped)) == (3, 60)
    assert LeftOut.TIME in outcome.reasons


def test_the_number_of_schedules_is_estimated_without_bias() -> None:
    outcome = explore(tasks(3, 3, 2), Plan(strategy="dfs", preemptions=0))
    assert outcome.schedules == pytest.approx(560, rel=0.3)


def test_coverage_says_what_is_not_known() -> None:
    assert coverage(Outcome("s", "pct")) == "schedules and draws were sampled"


# What is found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_finds_the_lost_update(strategy: str) -> None:
    outcome = explore(Counter(), Plan(strategy=strategy, executions=1000))
    failure = outcome.failure
    assert failure is not None
    assert (failure.kind, failure.rule, failure.task) == (Kind.VIOLATION, "lost update", "")
    assert (failure.preemptions, failure.steps) == (1, 4)
    assert outcome.found_after <= 20


def test_the_schedule_is_minimal() -> None:
    """Found at random among irrelevant steps, the failure is minimised to one preemption."""

    class Long(Counter):
        def add(self) -> Steps[None]:
            yield from steps(5, "distraction")
            yield from super().add()
            yield from steps(5, "distraction")

    outcome = explore(Long(), Plan(strategy="random", seed=3))
    assert outcome.failure is not None
    assert outcome.failure.preemptions == 1


def test_a_deadlock_is_found() -> None:
    class Locks:
        def __init__(self) -> None:
            self.one, self.two = Mutex("one"), Mutex("two")

    def take(first: Mutex, second: Mutex) -> Steps[None]:
        with (yield from first.acquire()), (yield from second.acquire()):
            pass

    scenario = Bodies(Locks, lambda s: take(s.one, s.two), lambda s: take(s.two, s.one))
    for strategy in STRATEGIES:
        failure = explore(scenario, Plan(strategy=strategy, executions=1000)).failure
        assert failure is not None
        assert failure.kind is Kind.DEADLOCK
        assert failure.preemptions == 1


def test_who_retries_is_waited_for() -> None:
    """A spinning task costs no preemption and does not make the tree infinite."""

    class Flag:
        up = False

    def spin(flag: Flag) -> Steps[None]:
        yield ("read", "flag", False)
        while not flag.up:
            yield (RETRY, "flag", False)

    def raise_it(flag: Flag) -> Steps[None]:
        yield ("write", "other", True)
        yield ("write", "flag", True)
        flag.up = True

    scenario = Bodies(Flag, spin, raise_it)
    for strategy in ("deepening", "exhaustive", "dfs"):
        outcome = explore(scenario, Plan(strategy=strategy, executions=1000))
        assert outcome.complete, strategy
        assert outcome.executions < 20


# What bad input gets


def failing(body: Callable[[], Steps[None]], **options: int) -> tuple[Kind, str, str]:
    scenario = Bodies(lambda: None, lambda _s: body())
    for name, value in options.items():
        setattr(scenario, name, value)
    failure = explore(scenario, Plan(strategy="dfs")).failure
    assert failure is not None
    return failure.kind, failure.rule, failure.where


def test_a_scenario_that_raises_is_reported_with_its_line() -> None:
    def body() -> Steps[None]:
        yield ("read", "x", False)
        raise ZeroDivisionError("oops")

    kind, rule, where = failing(body)
    assert (kind, rule) == (Kind.SCENARIO, "ZeroDivisionError")
    assert where.startswith("test_explorer.py:")


def test_a_scenario_without_tasks_is_no_success() -> None:
    class Empty(Scenario):
        def start(self, execution: Execution) -> None:
            if self.daemon:  # type: ignore[attr-defined]
                execution.spawn(steps(2), "daemon", daemon=True)

    for daemon in (False, True):
        scenario = Empty()
        scenario.daemon = daemon  # type: ignore[attr-defined]
        for strategy in STRATEGIES:
            outcome = explore(scenario, Plan(strategy=strategy, executions=5))
            assert outcome.failure is not None
            assert outcome.failure.kind is Kind.SCENARIO
            assert "no task was spawned" in outcome.failure.text
            assert not outcome.complete


def test_a_scenario_that_wants_to_leave_is_reported() -> None:
    """sys.exit() in a body ended the explorer silently."""

    def body() -> Steps[None]:
        yield ("read", "x", False)
        raise SystemExit(0)

    assert failing(body)[:2] == (Kind.SCENARIO, "SystemExit")


def test_a_broken_model_is_an_assertion() -> None:
    def body() -> Steps[None]:
        lock = Mutex("m")
        yield ("read", "x", False)
        lock.release()

    kind, rule, where = failing(body)
    assert kind is Kind.ASSERTION
    assert where.startswith("locks.py:")
    assert where in rule


def test_a_scenario_without_end_meets_the_step_bound() -> None:
    def body() -> Steps[None]:
        while True:
            yield ("read", "x", False)

    line = body.__code__.co_firstlineno + 2
    found = Kind.STEP_BOUND, "step bound", f"test_explorer.py:{line}"
    assert failing(body, max_steps=50) == found


def test_a_scenario_that_remembers_is_nondeterministic() -> None:
    class Remembers(Scenario):
        runs = 0

        def start(self, execution: Execution) -> None:
            self.runs += 1
            execution.spawn(steps(2 + self.runs % 2), "A")
            execution.spawn(steps(2), "B")

    for strategy in STRATEGIES:
        failure = explore(Remembers(), Plan(strategy=strategy, executions=50)).failure
        assert failure is not None
        assert failure.kind is Kind.NONDETERMINISM
        assert re.fullmatch(r"test_explorer\.py:\d+", failure.where)


def test_a_failure_that_does_not_happen_again_is_nondeterminism() -> None:
    """Two replays were compared with each other and not with the failure: as both had none, it was
    reported as if it had been confirmed."""

    class Once(Counter):
        failed = False

        def check(self, execution: Execution) -> None:
            if not self.failed and self.value != 2:
                self.failed = True
                super().check(execution)

    failure = explore(Once()).failure
    assert failure is not None
    assert failure.kind is Kind.NONDETERMINISM
    assert "ends with: value 1 after two additions; the second with: no failure" in failure.text


def test_a_failure_that_happens_again_otherwise_is_nondeterminism() -> None:
    class Numbered(Counter):
        runs = 0

        def check(self, execution: Execution) -> None:
            self.runs += 1
            raise Violation("order", f"run {self.runs}")

    failure = explore(Numbered()).failure
    assert failure is not None
    assert failure.kind is Kind.NONDETERMINISM
    assert re.search(r"ends with: run \d; the second with: run \d", failure.text)


def test_only_reduction_needs_names_of_objects() -> None:
    """The executions that are checked for nondeterminism are recorded, and must not need them."""

    class Nameless:
        """Equal to itself only."""

    thing = Nameless()
    scenario = Bodies(lambda: None, lambda _: steps(2, thing), lambda _: steps(2, thing))
    for strategy in STRATEGIES:
        failure = explore(scenario, Plan(strategy=strategy, executions=20)).failure
        assert (failure is None) == (strategy != "exhaustive")
        assert failure is None or failure.rule == "Unstable"


def test_an_unknown_strategy_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="known are deepening"):
        Plan(strategy="luck")


# Replaying


def test_a_replay_string_repeats_the_failure() -> None:
    scenario = Counter()
    failure = explore(scenario).failure
    assert failure is not None
    text = replay_string(scenario, failure.choices)
    again = record(Counter(), choices_of(text, Counter())).executed.failure
    assert failure.same_as(again)


@pytest.mark.parametrize(
    ("place", "other", "reason"),
    [
        (0, "9.9.9", "made by softsgx 9.9.9"),
        (1, "Other", "for scenario Other, not for Counter"),
        (2, "00000000", "scenario Counter has changed since"),
    ],
)
def test_a_replay_for_something_else_is_refused(place: int, other: str, reason: str) -> None:
    parts = replay_string(Counter(), (0, 1, 1)).split("/", 3)
    parts[place] = other
    with pytest.raises(ReplayRefused, match=reason):
        choices_of("/".join(parts), Counter())


def test_a_replay_that_is_none_is_refused() -> None:
    with pytest.raises(ReplayRefused, match="not VERSION/SCENARIO/IDENTITY/SCHEDULE"):
        choices_of("1:abab", Counter())


def test_the_table_has_a_column_per_task_and_the_state() -> None:
    assert table(Counter(), [0, 1, 1]) == (
        "      A              B              value 0\n"
        "   1   read value\n"
        "      -- A is preempted\n"
        "   2                 *read value\n"
        "   3                  write value   value 1\n"
        "   4   write value\n"
        "      ! VIOLATION lost update: value 1 after two additions\n"
    )
