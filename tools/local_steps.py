"""What partial-order reduction could add to `states`: python -m tools.local_steps SCENARIO...

A scenario is decided by its states, and then its whole graph is known. A step at some place of some
task is local if, wherever in the graph it can be taken, it and each step of another task lead to
the same state in either order. A search that knew that beforehand would have to take only a local
step where there is one, unless it leads to a state that is known. How many states are left then is
the most that persistent sets of one step can save, however well they know what a step touches.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from softsgx.explore import Outcome, Scenario
from softsgx.explore.explorer import drive
from softsgx.explore.limits import no_deadline
from softsgx.explore.plan import STATES
from softsgx.explore.states.graph import END
from softsgx.explore.strategies import States
from softsgx.sim import RETRY, Task
from softsgx.system.scenarios.names import scenario_named

Place = tuple[str, str, str, int]
"""Of a step: the name of its task, its point as text, file and line."""


class Left(NamedTuple):
    """States and steps in all, and those that are left with local steps taken alone."""

    states: int
    steps: int
    states_left: int
    steps_left: int


class Placed(States):
    """`States`, which notes before which place each task was in a state."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.places: dict[int, list[Place]] = {}
        self._scenario = scenario

    def _arrive(self, enabled: Sequence[Task], current: Task | None, live: list[Task]) -> int:
        at = super()._arrive(enabled, current, live)
        if at not in self.places:
            self.places[at] = [self._place(task) for task in live]
        return at

    def _place(self, task: Task) -> Place:
        point = task.point
        text = RETRY if point[0] == RETRY else self._scenario.point_text(point)
        return task.name, text, *task.lines()[-1]


Steps = dict[str, tuple[Place, dict[tuple[int, ...], int]]]
"""The steps from a state by the name of their task: where, and by what is drawn to which state."""


def steps_of(search: Placed) -> list[Steps]:
    """The steps from each state."""
    found: list[Steps] = []
    for number, state in enumerate(search.graph.states):
        steps: Steps = {}
        for label, to in state.known.items() if number else ():
            place = search.places[number][label[0]]
            steps.setdefault(place[0], (place, {}))[1][label[1:]] = to
        found.append(steps)
    return found


def commute(all_steps: list[Steps], at: int, one: str, other: str) -> bool:
    """Whether two tasks lead from a state to the same states in either order, whatever is drawn."""
    _, ones = all_steps[at][one]
    _, others = all_steps[at][other]
    for drawn, first in ones.items():
        for drawn_by_other, second in others.items():
            if END in (first, second):
                return False
            end = all_steps[first].get(other, (None, {}))[1].get(drawn_by_other)
            if end is None or end != all_steps[second].get(one, (None, {}))[1].get(drawn):
                return False
    return True


def local_places(all_steps: list[Steps]) -> set[Place]:
    """Where steps commute with all that other tasks can do, in the whole graph."""
    met: set[Place] = set()
    refuted: set[Place] = set()
    for at, steps in enumerate(all_steps):
        for name, (place, _) in steps.items():
            met.add(place)
            others = [other for other in steps if other != name]
            if place[1] == RETRY or not all(commute(all_steps, at, name, x) for x in others):
                refuted.add(place)
    return met - refuted


def left(scenario: Scenario) -> Left:
    """Decide a scenario, and reduce its graph."""
    search = Placed(scenario)
    outcome = Outcome(scenario.name, STATES)
    drive(scenario, search, outcome, sys.maxsize, no_deadline, None)
    assert search.exhausted, f"{scenario.name} is not decided"
    graph, all_steps = search.graph, steps_of(search)
    local = local_places(all_steps)
    visited, pending, taken = {0}, [0], 0
    while pending:
        at = pending.pop()
        following = list(graph.states[at].known.values())
        for place, by_draws in all_steps[at].values():
            if place in local and visited.isdisjoint(by_draws.values()):
                following = list(by_draws.values())
                break
        taken += len(following)
        for to in following:
            if to != END and to not in visited:
                visited.add(to)
                pending.append(to)
    return Left(search.states, graph.steps, len(visited) - 1, taken)


def main() -> int:
    """A line for each scenario."""
    for name in sys.argv[1:]:
        found = left(scenario_named(name))
        print(
            f"{name}: {found.states_left:,} of {found.states:,} states left, "
            f"{found.steps_left:,} of {found.steps:,} steps",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
