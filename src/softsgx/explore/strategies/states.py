"""Every step from every state, once: decides a scenario without a bound.

Two points of an execution in one state have the same future, so it is enough to take each step from
each state once. An execution goes over known steps to the nearest state that has something left to
do, and so on from there; it is cut where nothing new is near. So a step that is known is
repeated only as a way to something new.

The state that such a way ends in is compared with what it was the first time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.explore.cut import Cut
from softsgx.explore.scenario import Scenario
from softsgx.explore.states.digest import StateDigest
from softsgx.explore.states.graph import END, Graph, Label
from softsgx.explore.strategies.strategy import Trail, candidates, default_next, retried, spins
from softsgx.sim import RETRY, ScheduleMismatch

if TYPE_CHECKING:
    from softsgx.sim import Task


class States:
    """Exhaustive search of one scenario over its states."""

    def __init__(self, scenario: Scenario) -> None:
        self.depth = 0
        """The most steps of an execution."""
        self.graph = Graph()
        self._digest = StateDigest(scenario)
        self._looked = False
        self._over = False
        # Steps that are repeated for ever in the last execution, if some schedule never ends.
        self._round: list[Label] = []
        self._clear()

    def _clear(self) -> None:
        # Known steps that are to be taken, the next one last.
        self._way: list[Label] = []
        self._visited: dict[int, None] = {}
        self._steps = 0
        self._last = -1
        self._trail: Trail = []
        # The step in progress: the state before it, its label as far as it is known, how many draws
        # it has made, whether it was never taken before. -1: the execution was cut.
        self._at = 0
        self._label: Label = ()
        self._drawn = 0
        self._new = False
        # Whether the last step was a known one.
        self._repeated = False

    @property
    def states(self) -> int:
        """How many states are known."""
        return len(self.graph.states) - 1

    @property
    def exhausted(self) -> bool:
        """Whether every step was taken from every state, and all executions end."""
        return self._over and not self._round

    @property
    def schedules(self) -> int:
        """How many schedules there are; 0 while it is not known."""
        return self.graph.schedules() if self.exhausted else 0

    @property
    def fraction(self) -> float:
        """0 until the end: how many states there are is not known before."""
        return 1.0 if self.exhausted else 0.0

    def begin(self) -> bool:
        """Find a way to a step that was never taken."""
        way = self.graph.first()
        if way is None:
            # Everything is known. What can go on for ever is shown: it ends by the step bound.
            loop = self.graph.loop() if not self._over else None
            self._over = True
            if loop is None:
                return False
            way, self._round = loop
        self._digest.begin()
        self._clear()
        self._way = way[::-1]
        self._visited[0] = None
        self._next_label(0)
        return True

    def end(self, left: Sequence[Task]) -> None:
        """The step in progress was the last one, unless the execution was cut."""
        self.depth = max(self.depth, self._steps)
        if self._at >= 0 and self._new:
            self.graph.arrived(self._at, self._label, END)

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The task of the next step of the way, or of one that was never taken."""
        if not self._looked:
            self._look(enabled[0].execution.tasks)
        live = sorted(enabled[0].execution.tasks, key=_order)
        at = self._arrive(enabled, current, live)
        if self._round:
            self._way = self._way or self._round[::-1]
        elif at in self._visited or not self._goes_on(at):
            self._at = -1
            raise Cut([task for task in enabled[0].execution.tasks if task not in enabled])
        self._visited[at] = None
        if self._repeated and not self._way and self._digest_of(live) != self._state(at):
            raise ScheduleMismatch(self._steps, "these steps led to another state before")
        self._next_label(at)
        task = live[self._label[0]]
        if task not in enabled:
            raise ScheduleMismatch(self._steps, f"{task} was enabled here before and is not now")
        self._steps += 1
        self._last = task.index
        self._digest.stepped(task)
        self._trail.append((task.index, task.point))
        return task

    def draw(self, n: int, what: str) -> int:
        """What the label of the step says; after its end 0, and all else later."""
        label, place = self._label, self._drawn + 1
        self._drawn = place
        if place == len(label) and self._new:
            self.graph.more(self._at, [(*label, value) for value in range(n - 1, 0, -1)])
            self._label = (*label, 0)
            return 0
        if place >= len(label) or label[place] >= n:
            raise ScheduleMismatch(self._steps, f"{what!r} below {n} was not drawn here before")
        return label[place]

    def _look(self, tasks: Sequence[Task]) -> None:
        """Begin again until it is known which objects all executions start from."""
        self._looked = self._digest.look(tasks)
        if not self._looked:
            self.graph = Graph()
            self._at = -1
            raise Cut

    def _arrive(self, enabled: Sequence[Task], current: Task | None, live: list[Task]) -> int:
        """A step has ended: which state is this?"""
        graph = self.graph
        if not self._new:
            at = graph.states[self._at].known[self._label]
            if at == END:
                raise ScheduleMismatch(self._steps, "the execution was over here before")
            return at
        digest = self._digest_of(live)
        at = graph.number_of(digest)
        if at < 0:
            tasks = candidates(enabled, self._trail)
            first = default_next(tasks, current, self._last)
            order = [*[task for task in reversed(tasks) if task is not first], first]
            todo: list[Label] = [(live.index(task),) for task in order]
            at = graph.add(digest, todo, self._at, self._label)
        graph.arrived(self._at, self._label, at)
        return at

    def _goes_on(self, at: int) -> bool:
        """Whether there is something left to do from here on; plans the way to it."""
        if not self._way and not self.graph.states[at].todo:
            way = self.graph.near(at)
            if way is None:
                return False
            self._way = way[::-1]
        return True

    def _next_label(self, at: int) -> None:
        """Begin the next step of the way, or one that was never taken."""
        self._at = at
        self._drawn = 0
        self._new = not self._way
        self._repeated = not self._new
        self._label = self.graph.states[at].todo.pop() if self._new else self._way.pop()

    def _state(self, at: int) -> bytes:
        return self.graph.states[at].digest

    def _digest_of(self, live: list[Task]) -> bytes:
        # Which tasks would only see again what they saw is part of the state, and what decides for
        # which others a retry is in vain.
        trail = self._trail
        spinning = [t.point[0] == RETRY and spins(t, trail) for t in live]
        before = retried(trail)
        return self._digest.digest(live, spinning, [before.get(t.index, ()) for t in live])


def _order(task: Task) -> tuple[bool, int, int, str, int]:
    """The order of tasks in a state.

    Interrupts are tasks that are numbered as they come; their numbers mean nothing, so they are
    ordered by processor and sender.
    """
    cpu = -1 if task.cpu is None else task.cpu
    if task.interrupt:
        return True, cpu, 0, task.name, task.index
    return False, task.index, cpu, "", 0
