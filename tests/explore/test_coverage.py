"""The word complete is said only when nothing was left out; otherwise the result says what was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from softsgx.explore import Kind, Outcome, Plan, Scenario, explore
from softsgx.explore.outcome import LeftOut
from softsgx.explore.scenario import Granularity
from softsgx.sim import RwLock, Steps
from tests.explore.bodies import Bodies
from tests.explore.test_explorer import Counter, tasks


def endless() -> Scenario:
    def body(_: None) -> Steps[None]:
        while True:
            yield ("write", "x", True)

    scenario = Bodies(lambda: None, body)
    scenario.max_steps = 50
    return scenario


def twice_a_reader() -> Scenario:
    """Reads a second time, which has to wait for any writer that waits."""

    def reader(lock: RwLock) -> Steps[None]:
        with (yield from lock.acquire_read()), (yield from lock.acquire_read()):
            pass

    def writer(lock: RwLock) -> Steps[None]:
        yield ("write", "x", True)
        with (yield from lock.acquire_write()):
            pass

    return Bodies(lambda: RwLock("l", recursive=True), reader, writer)


def at(granularity: Granularity) -> Scenario:
    scenario = tasks(2, 2)
    scenario.granularity = granularity
    return scenario


CODE = Granularity("TLB misses and ENCLU", binary=True, whole=False)

LEFT_OUT: dict[LeftOut, Callable[[], Outcome]] = {
    LeftOut.FAILURE: lambda: explore(Counter()),
    LeftOut.STEP_BOUND: lambda: explore(endless(), Plan(strategy="dfs")),
    LeftOut.TIME: lambda: explore(tasks(2, 2), deadline=lambda: True),
    LeftOut.EXECUTIONS: lambda: explore(tasks(2, 2), Plan(strategy="dfs", executions=5)),
    LeftOut.SAMPLED: lambda: explore(tasks(2, 2), Plan(strategy="random", executions=500)),
    LeftOut.PREEMPTIONS: lambda: explore(tasks(2, 2), Plan(preemptions=1)),
    LeftOut.GRANULARITY: lambda: explore(at(CODE)),
}


def test_every_reason_is_here() -> None:
    assert list(LEFT_OUT) == list(LeftOut)


@pytest.mark.parametrize("reason", LeftOut)
def test_what_was_left_out_is_said_and_not_called_complete(reason: LeftOut) -> None:
    outcome = LEFT_OUT[reason]()
    assert outcome.reasons == (reason,)
    assert not outcome.complete
    assert "complete" not in outcome.covered
    if outcome.failure is None:
        assert reason in outcome.covered


def test_every_reason_alone_keeps_a_search_from_being_complete() -> None:
    for reason in LeftOut:
        outcome = Outcome("s", "dfs", exhausted=True)
        assert outcome.complete
        outcome.left_out.add(reason)
        assert not outcome.complete
        assert "complete" not in outcome.covered


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (lambda: explore(tasks(2, 2)), "complete: every schedule of up to 4 points"),
        (
            lambda: explore(tasks(2, 1), Plan(strategy="exhaustive")),
            "complete: one schedule of each equivalence class, of up to 3 points",
        ),
        (
            lambda: explore(at(Granularity("locks, PTE writes"))),
            "complete: every schedule of up to 4 points (locks, PTE writes)",
        ),
        (
            lambda: explore(at(CODE), Plan(strategy="dfs")),
            "every schedule of up to 4 points for this binary, at TLB misses and ENCLU; "
            "other tasks can get in between these points, too",
        ),
        (
            lambda: explore(tasks(2, 2), Plan(strategy="dfs", preemptions=1)),
            "every schedule with up to 1 preemption, of up to 4 points; "
            "schedules with more preemptions were left out; "
            "roughly 6 schedules with any number of preemptions, by 64 random walks",
        ),
        (
            lambda: explore(tasks(6, 6), Plan(executions=400)),
            "every schedule with up to 3 preemptions, of up to 12 points; "
            "38.3% of the schedules with up to 4 preemptions; the limit of executions was reached; "
            "roughly 9e+02 schedules with any number of preemptions, by 31 random walks",
        ),
        (
            lambda: explore(tasks(6, 6), Plan(strategy="dfs", executions=600)),
            "67.6% of the tree; the limit of executions was reached; "
            "roughly 9e+02 schedules with any number of preemptions, by 50 random walks",
        ),
        (
            lambda: explore(tasks(3, 3), Plan(strategy="pct", executions=10)),
            "1 of 1 pair of conflicting steps seen in both orders; "
            "schedules and draws were sampled",
        ),
        (
            lambda: Outcome(
                "s", "states", exhausted=True, states=60, depth=21, longest=24, schedules=2.5e9
            ),
            "complete: every step from each of 60 states, at most 21 steps deep, which covers "
            "2.5e+09 schedules, of up to 24 points",
        ),
        (lambda: Outcome("s", "states"), "nothing was decided"),
        (
            lambda: explore(tasks(1), Plan(strategy="dfs")),
            "complete: every schedule of up to 1 point",
        ),
    ],
)
def test_the_words_of_a_result(outcome: Callable[[], Outcome], text: str) -> None:
    assert outcome().covered == text


def test_a_failure_says_what_was_decided_before_it() -> None:
    text = "every schedule with up to 0 preemptions, of up to 4 points"
    assert explore(Counter()).covered == text
    assert explore(Counter(), Plan(strategy="dfs")).covered == "nothing else was decided"


def test_a_deadlock_that_reduction_cannot_see_is_not_denied() -> None:
    """`exhaustive` said complete after 2 executions, and missed what dfs finds in 3."""
    for strategy in ("dfs", "exhaustive"):
        failure = explore(twice_a_reader(), Plan(strategy=strategy)).failure
        assert failure is not None
        assert failure.kind is Kind.DEADLOCK
