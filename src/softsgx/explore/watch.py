"""What happens in each step of one execution: for tables and pages that show a schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from softsgx.explore.scenario import Scenario, State
from softsgx.sim import Event, LockReleased, LockTaken, Log


class Moment(NamedTuple):
    """The end of a step, or the start.

    state     as text, and in parts
    held      the locks that each task holds then, by its name
    outcomes  what the step led to, for a table
    events    everything that was told in the step
    """

    text: str
    state: State
    held: Mapping[str, tuple[str, ...]]
    outcomes: tuple[str, ...]
    events: tuple[str, ...]


class Watch:
    """Collects the moments of an execution of a scenario, from `begin` to `end`.

    `moments` has the one before the first step, and that after each step.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.moments: list[Moment] = []
        self._scenario = scenario
        # Of each task that holds a lock: its name, and the locks in order.
        self._held: dict[Any, list[str]] = {}
        self._outcomes: list[str] = []
        self._events: list[str] = []
        self._unsubscribe: list[Callable[[], None]] = []
        self._own_log: Log | None = None

    def begin(self) -> None:
        """Listen to the log of the scenario's parts, and to that of the execution to come."""
        scenario = self._scenario
        self._own_log = scenario.log
        if scenario.log is None:
            scenario.log = Log()
        locks: dict[type, Callable[[Any], None]] = {
            LockTaken: self._taken,
            LockReleased: self._released,
        }
        self._unsubscribe = [scenario.log.subscribe_to(locks)]
        told = scenario.told_by()
        if told is not None:
            self._unsubscribe.append(told.subscribe(self._told))

    def end(self) -> None:
        """The last step is over, and nothing is listened to any more."""
        self.step()
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        self._scenario.log = self._own_log

    def step(self) -> None:
        """A step is over, or the first is about to begin."""
        held = {task.name: tuple(locks) for task, locks in self._held.items() if locks}
        text, state = self._scenario.state(), self._scenario.states()
        outcomes = tuple(self._outcomes)
        self.moments.append(Moment(text, state, held, outcomes, tuple(self._events)))
        self._outcomes, self._events = [], []

    def _told(self, event: Event) -> None:
        outcome, text = self._scenario.event_texts(event)
        if outcome:
            self._outcomes.append(outcome)
        if text:
            self._events.append(text)

    def _taken(self, event: LockTaken) -> None:
        self._held.setdefault(event.task, []).append(_named(event))

    def _released(self, event: LockReleased) -> None:
        # A task that is unwound because another one failed still held its locks at that moment.
        task = event.task
        if task.done or task in task.execution.tasks:
            locks = self._held.get(task, [])
            if _named(event) in locks:
                locks.remove(_named(event))


def _named(event: LockTaken | LockReleased) -> str:
    name = str(getattr(event.lock, "name", event.lock)).split("(")[0]
    if not hasattr(event.lock, "readers"):
        return name
    return f"{name} (write)" if event.write else f"{name} (read)"
