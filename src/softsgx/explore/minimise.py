"""Minimising a failing schedule: fewest preemptions, then draws, then steps, then switches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final, NamedTuple

from softsgx.explore.execute import execute_next
from softsgx.explore.failure import Failure
from softsgx.explore.record import record
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies import Bounded
from softsgx.explore.strategies.strategy import Trail, candidates, default_next
from softsgx.sim import Choice, Task

SEARCH_MAX: Final = 2_000
"""Executions of the search for fewer preemptions, over all bounds."""
TRIES_MAX: Final = 600
"""Variants of the failing schedule that are tried."""


class LenientFollow:
    """Follows a schedule where it can be followed, and continues without preemption elsewhere."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices
        self._next = 0
        self._last = -1
        self._trail: Trail = []

    def begin(self) -> bool:
        """There is always one execution."""
        return True

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The next task of the schedule that is enabled; others are skipped."""
        task = enabled[0]
        if len(enabled) > 1:
            task = self._scheduled(enabled) or default_next(
                candidates(enabled, self._trail), current, self._last
            )
        self._last = task.index
        self._trail.append((task.index, task.point[0]))
        return task

    def draw(self, n: int, what: str) -> int:
        """The next choice of the schedule if it is a draw below `n`, else 0."""
        if self._next < len(self._choices) and -n <= self._choices[self._next] < 0:
            self._next += 1
            return ~self._choices[self._next - 1]
        return 0

    def _scheduled(self, enabled: Sequence[Task]) -> Task | None:
        while self._next < len(self._choices) and self._choices[self._next] >= 0:
            index = self._choices[self._next]
            self._next += 1
            for task in enabled:
                if task.index == index:
                    return task
        return None


class _Size(NamedTuple):
    """What is minimised, in this order. Draws of 0 are not counted."""

    preemptions: int
    draws: int
    steps: int
    switches: int


def with_preemptions(scenario: Scenario, failure: Failure) -> Failure:
    """The failure with its preemptions counted."""
    return replace(failure, preemptions=record(scenario, failure.choices).recorder.preemptions)


def minimise(scenario: Scenario, failure: Failure, *, least: int = 0) -> Failure:
    """The same failure under a smaller schedule.

    `least` preemptions are known to be needed; fewer are not tried.
    """
    best, size = with_preemptions(scenario, failure), _size(scenario, failure.choices)
    left = SEARCH_MAX
    for bound in range(least, best.preemptions):
        found, left = _search(scenario, failure, bound, left)
        if found is not None:
            best, size = with_preemptions(scenario, found), _size(scenario, found.choices)
            break
    tries, better = 0, True
    while better and tries < TRIES_MAX:
        better = False
        for choices in _smaller(best.choices):
            tries += 1
            recording = record(scenario, LenientFollow(choices))
            found = recording.executed.failure
            if found is not None and failure.same_as(found):
                smaller = _size(scenario, found.choices)
                if smaller < size:
                    best, size, better = with_preemptions(scenario, found), smaller, True
                    break
            if tries == TRIES_MAX:
                break
    return best


def _search(
    scenario: Scenario, failure: Failure, bound: int, left: int
) -> tuple[Failure | None, int]:
    """The same failure with at most `bound` preemptions, or None; and the executions left."""
    strategy = Bounded(bound)
    while left and strategy.begin():
        left -= 1
        found = execute_next(scenario, strategy)
        if found is not None and failure.same_as(found.failure):
            return found.failure, left
    return None, left


def _size(scenario: Scenario, choices: Sequence[Choice]) -> _Size:
    recorder = record(scenario, choices).recorder
    switches = sum(1 for _ in groupby(step.task for step in recorder.steps))
    draws = sum(1 for choice in choices if choice < ~0)
    return _Size(recorder.preemptions, draws, len(recorder.steps), switches)


def _smaller(choices: Sequence[Choice]) -> Iterator[list[Choice]]:
    """Variants that may be smaller: each lacks one thing."""
    runs = [list(run) for _, run in groupby(choices)]
    flat = [run[0] for run in runs]
    for cut in range(len(runs)):
        yield _joined(runs[:cut])
    for place in range(len(runs)):
        if flat[place] < 0:
            yield _joined([*runs[:place], [~0] * len(runs[place]), *runs[place + 1 :]])
            continue
        # Move the task's next run up to this one; the runs between follow after it.
        for later in range(place + 2, len(runs)):
            if flat[later] == flat[place]:
                between = runs[place + 1 : later]
                yield _joined([*runs[: place + 1], runs[later], *between, *runs[later + 1 :]])
                break
        yield _joined([*runs[:place], *runs[place + 1 :]])
        if len(runs[place]) > 1:
            yield _joined([*runs[:place], runs[place][1:], *runs[place + 1 :]])


def _joined(runs: Sequence[Sequence[Choice]]) -> list[Choice]:
    return [choice for run in runs for choice in run]
