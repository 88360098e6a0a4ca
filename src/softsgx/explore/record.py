"""Recording an execution: its steps, its preemptions, the state after each step."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from softsgx.explore.execute import Executed, execute
from softsgx.explore.failure import Failure, innermost_line
from softsgx.explore.footprint import Unstable, key_of
from softsgx.explore.limits import Deadline, no_deadline
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies.strategy import preempts
from softsgx.explore.watch import Watch
from softsgx.sim import Choice, Follow, Point, Scheduler, Task

INTERRUPT: Final = "an interrupt"


class Step(NamedTuple):
    """One step: the task, its point, also as text, and what it preempted.

    `preempted` is the name of the task that could have gone on, INTERRUPT if an interrupt was
    delayed, or "". `drawn` are the draws in the step that were not 0, as text; `where` is the line
    of the scenario at which the task was before the step. `place` is its `Scenario.place_text`,
    and `left_at` that of the task which took the step before, if it has not ended.
    """

    task: int
    name: str
    kind: str
    text: str
    preempted: str
    drawn: list[str]
    where: str
    place: str = ""
    left_at: str = ""


class Recorder:
    """A scheduler that delegates to another one and records what happens.

    `watch`, if there is one, collects what each step leads to.
    """

    def __init__(self, inner: Scheduler, scenario: Scenario, *, watch: Watch | None = None) -> None:
        self.inner = inner
        self.scenario = scenario
        self.steps: list[Step] = []
        self.watch = watch
        self.keys: list[Hashable] = []
        self._last: Task | None = None
        self.drawn: list[str] = []
        """Draws before the first step."""

    def begin(self) -> bool:
        """As the inner one."""
        return self.inner.begin()

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """As the inner one."""
        if self.watch is not None:
            self.watch.step()
        task = self.inner.choose(enabled, current)
        point: Point = task.point
        text = place = left_at = ""
        if self.watch is not None:
            text, place = self.scenario.point_text(point), self.scenario.place_text(task)
        where = innermost_line(self.scenario, task.lines())
        preempted = ""
        if len(enabled) > 1 and preempts(task, enabled, current):
            preempted = current.name if current is not None and current in enabled else INTERRUPT
        if self.watch is not None:
            last, self._last = self._last, task
            if last is not None and last is not task and not last.done:
                left_at = self.scenario.place_text(last)
        self.steps.append(
            Step(task.index, task.name, point[0], text, preempted, [], where, place, left_at)
        )
        try:
            self.keys.append(key_of(point[1]))
        except Unstable:
            self.keys.append(type(point[1]).__name__)
        return task

    def draw(self, n: int, what: str) -> int:
        """As the inner one."""
        value = self.inner.draw(n, what)
        if value and self.watch is not None:
            drawn = self.steps[-1].drawn if self.steps else self.drawn
            drawn.append(self.scenario.draw_text(what, value))
        return value

    @property
    def preemptions(self) -> int:
        """How many steps preempted another task."""
        return sum(bool(step.preempted) for step in self.steps)


class Recording(NamedTuple):
    """An execution and its record."""

    executed: Executed
    recorder: Recorder

    @property
    def failure(self) -> Failure | None:
        """The failure, with its preemptions counted."""
        failure = self.executed.failure
        if failure is None:
            return None
        return replace(failure, preemptions=self.recorder.preemptions)

    @property
    def trace(self) -> Hashable:
        """What two executions of one schedule must have in common."""
        failure = self.executed.failure
        steps = tuple([(step.task, step.kind) for step in self.recorder.steps])
        found = (failure.kind, failure.rule, plain_text(failure)) if failure is not None else None
        return steps, tuple(self.recorder.keys), found, tuple(self.executed.execution.choices)


_OBJECT: Final = re.compile(r" object at 0x[0-9a-f]+")


def plain_text(failure: Failure) -> str:
    """The text of a failure without the addresses in Python's repr, which differ each time."""
    return _OBJECT.sub(" object", failure.text)


def record(
    scenario: Scenario,
    scheduler: Scheduler | Sequence[Choice],
    *,
    watched: bool = False,
    deadline: Deadline = no_deadline,
) -> Recording:
    """Execute once and record it; `scheduler` may be a list of choices, which is followed.

    LimitReached at the deadline.
    """
    inner = Follow(scheduler) if isinstance(scheduler, Sequence) else scheduler
    watch = Watch(scenario) if watched else None
    recorder = Recorder(inner, scenario, watch=watch)
    if watch is None:
        recorder.begin()
        return Recording(execute(scenario, recorder, deadline), recorder)
    watch.begin()
    try:
        recorder.begin()
        done = execute(scenario, recorder, deadline)
    finally:
        watch.end()
    return Recording(done, recorder)


def replay_difference(
    scenario: Scenario,
    choices: Sequence[Choice],
    deadline: Deadline = no_deadline,
    first: Recording | None = None,
) -> tuple[str, str]:
    """Execute a schedule twice: how the executions differ, and the line if there is one.

    Both texts are empty if the executions agree. `first` is the first one, if it was the last
    execution of the scenario.
    """
    if first is None:
        first = record(scenario, choices, deadline=deadline)
    mark = scenario.fingerprint()
    second = record(scenario, choices, deadline=deadline)
    again = scenario.fingerprint()
    pairs = zip(first.recorder.steps, second.recorder.steps, strict=False)
    for number, (one, two) in enumerate(pairs, 1):
        if (one.task, one.kind) != (two.task, two.kind):
            why = f"step {number} is {one.kind} of {one.name}, then {two.kind} of {two.name}"
            return why, two.where
    if first.trace != second.trace:
        longer = max(first.recorder.steps, second.recorder.steps, key=len)
        rest = longer[min(len(first.recorder.steps), len(second.recorder.steps)) :]
        return _difference(first, second), rest[0].where if rest else ""
    if mark != again:
        return "the final states of two runs differ", ""
    return "", ""


def _difference(first: Recording, second: Recording) -> str:
    one, two = first.executed.failure, second.executed.failure
    texts = [plain_text(found) if found is not None else "no failure" for found in (one, two)]
    if texts[0] != texts[1]:
        return f"the first run ends with: {texts[0]}; the second with: {texts[1]}"
    lengths = [len(run.recorder.steps) for run in (first, second)]
    return f"two runs of one schedule differ: {lengths[0]} and {lengths[1]} steps"
