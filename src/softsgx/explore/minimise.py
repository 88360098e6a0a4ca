"""Minimising a failing schedule: fewest preemptions, then draws, then steps, then switches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from softsgx.explore.execute import execute_next
from softsgx.explore.failure import Failure
from softsgx.explore.limits import Allowance, LimitReached
from softsgx.explore.record import Recording, record
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
        self._trail.append((task.index, task.point))
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


def minimise(
    scenario: Scenario, failing: Recording, allowance: Allowance, *, least: int = 0
) -> tuple[Failure, bool]:
    """The failure of an execution under a smaller schedule; whether all was tried.

    `least` preemptions are known to be needed; fewer are not tried.
    """
    search = _Minimiser(scenario, failing, allowance)
    try:
        search.fewer_preemptions(least)
        search.smaller()
    except LimitReached:
        return search.best, False
    return search.best, True


class _Minimiser:
    """The smallest failing execution so far. LimitReached when the allowance is used up."""

    def __init__(self, scenario: Scenario, failing: Recording, allowance: Allowance) -> None:
        assert failing.failure is not None, "an execution without a failure"
        self.scenario = scenario
        self.allowance = allowance
        self.wanted = failing.failure
        self.best, self.size = failing.failure, _size(failing)

    def fewer_preemptions(self, least: int) -> None:
        """Search for the same failure with fewer preemptions, within SEARCH_MAX executions."""
        left = SEARCH_MAX
        for bound in range(least, self.best.preemptions):
            strategy = Bounded(bound)
            while left and strategy.begin():
                left -= 1
                found = execute_next(self.scenario, strategy, self.allowance.spend())
                if found is not None and self.wanted.same_as(found.failure):
                    choices = found.execution.choices
                    self._take(record(self.scenario, choices, deadline=self.allowance.spend()))
                    return

    def smaller(self) -> None:
        """Leave out what can be left out, within TRIES_MAX executions."""
        tries, better = 0, True
        while better and tries < TRIES_MAX:
            better = False
            for choices in _smaller(self.best.choices):
                tries += 1
                recording = record(
                    self.scenario, LenientFollow(choices), deadline=self.allowance.spend()
                )
                if self.wanted.same_as(recording.failure) and _size(recording) < self.size:
                    self._take(recording)
                    better = True
                    break
                if tries == TRIES_MAX:
                    break

    def _take(self, recording: Recording) -> None:
        if recording.failure is not None:
            self.best, self.size = recording.failure, _size(recording)


def _size(recording: Recording) -> _Size:
    recorder = recording.recorder
    switches = sum(1 for _ in groupby(step.task for step in recorder.steps))
    draws = sum(1 for choice in recording.executed.execution.choices if choice < ~0)
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
