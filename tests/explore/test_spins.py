"""Tasks that retry: who is left out while it spins, and who is not.

A retry that succeeded counted as one in vain: what it had done was seen by other tasks that retry
only after a step of a third one, and schedules were missing in what was called complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from softsgx.explore.execute import execute_next
from softsgx.explore.strategies import Bounded, Dpor, Strategy
from softsgx.sim import RETRY, Steps
from softsgx.sim.touch import READ, touch
from tests.explore.bodies import Bodies


class State:
    """Flags by name, and what the watcher saw."""

    def __init__(self) -> None:
        self.flags: set[str] = set()
        self.seen: Any = None

    def until(self, flag: str, where: str | None = None) -> Steps[None]:
        """Spin until the flag is set."""
        touch(flag, READ)
        while flag not in self.flags:
            yield (RETRY, where or flag, False)

    def set(self, flag: str) -> None:
        """Set the flag in the step that runs."""
        touch(flag)
        self.flags.add(flag)


def others(state: State) -> Steps[None]:
    """What the two that retry wait for; `late` is set in between."""
    for flag in ("first", "late", "last"):
        yield ("set", flag, True)
        state.set(flag)


def watcher(state: State) -> Steps[None]:
    """Sees whether it came after "first", had to wait for "go", and went on after "late"."""
    yield ("read", "first", False)
    after = "first" in state.flags
    waits = "go" not in state.flags
    yield from state.until("go")
    touch("late", READ)
    state.seen = after, waits, "late" in state.flags


def ends(state: State) -> Steps[None]:
    yield from state.until("first")
    state.set("go")


def goes_on(state: State) -> Steps[None]:
    yield from state.until("first")
    state.set("go")
    yield ("pause", "own", False)


def retries_elsewhere(state: State) -> Steps[None]:
    yield from state.until("first")
    state.set("go")
    yield from state.until("last")


def comes_back(state: State) -> Steps[None]:
    """Its second loop ends at the point of its first, where it was before another task's step."""
    yield (RETRY, "one", False)
    yield from state.until("first", "two")
    state.set("go")
    yield from state.until("last", "one")


def seen(body: Callable[[State], Steps[None]], strategy: Callable[[Bodies], Strategy]) -> set[Any]:
    scenario = Bodies(State, body, watcher, others)
    chosen = strategy(scenario)
    return {scenario.shared.seen for _ in executions(scenario, chosen)}


def executions(scenario: Bodies, strategy: Strategy) -> Iterator[None]:
    """Each execution that was not cut; none may fail."""
    while strategy.begin():
        done = execute_next(scenario, strategy)
        if done is not None:
            assert done.failure is None, done.failure
            yield


@pytest.mark.parametrize("body", [ends, goes_on, retries_elsewhere, comes_back])
def test_a_retry_that_succeeds_wakes_others_that_retry(
    body: Callable[[State], Steps[None]],
) -> None:
    every = seen(body, lambda _: Bounded(None))
    assert (True, True, False) in every
    assert seen(body, Dpor) == every


def test_loops_of_two_points_wait_for_others() -> None:
    """Each of two tasks spins at two points in turn: they do not wake each other for ever."""

    def unrolled(state: State) -> Steps[None]:
        while "last" not in state.flags:
            yield (RETRY, "one", False)
            yield (RETRY, "two", False)

    scenario = Bodies(State, unrolled, unrolled, others)
    scenario.max_steps = 100
    found = [
        each for each, _ in zip(executions(scenario, Bounded(None)), range(1_000), strict=False)
    ]
    assert 1 < len(found) < 1_000
