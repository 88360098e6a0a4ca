"""The digest of the state that an execution is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import GeneratorType
from typing import Any, TypeVar

from softsgx.explore.scenario import Scenario
from softsgx.explore.states.encoder import Encoder
from softsgx.explore.states.frames import Frames, readable
from softsgx.explore.states.globals import Globals
from softsgx.explore.states.path import path_to
from softsgx.explore.states.plan import Uncovered
from softsgx.explore.states.start import SCENARIO, Start
from softsgx.explore.states.writers import parts_of
from softsgx.sim import Point, Task, Unmodelled

T = TypeVar("T")


class StateDigest:
    """Digests of the states of one scenario.

    An execution begins with `begin`; its state before the first step is given to `look` until that
    says that the objects which all executions start from are known.
    """

    def __init__(self, scenario: Scenario) -> None:
        if not readable():
            raise Unmodelled("this Python does not show what suspended generators hold")
        self.scenario = scenario
        self._globals = Globals()
        self._first: tuple[list[Any], list[Any]] | None = None
        self._start: Start | None = None
        self._frames = Frames({})

    def begin(self) -> None:
        """Another execution."""
        self._frames = Frames(self._start.known if self._start is not None else {})

    def stepped(self, task: Task) -> None:
        """A task takes a step."""
        self._frames.stepped(task)

    def look(self, tasks: Sequence[Task]) -> bool:
        """Look at a state before the first step; False: another execution has to be begun."""
        if self._start is not None:
            return True
        objects = self._named(tasks, lambda: self._objects(tasks))
        keyed = [thing for thing in objects if hasattr(type(thing), "state_key")]
        parts = [part for thing in keyed for part in parts_of(thing)]
        if self._first is None:
            self._first = objects, parts
            return False
        known = {id(thing) for each in self._first for thing in each}
        self._start = Start(
            self.scenario,
            [thing for thing in objects if id(thing) in known],
            [part for part in parts if id(part) in known],
        )
        self._first = None
        self.begin()
        return True

    def digest(
        self,
        tasks: Sequence[Task],
        spinning: Sequence[bool],
        retried: Sequence[Sequence[Point]],
    ) -> bytes:
        """The state before a step. `tasks` has all live tasks, in their order in a state.

        Of each task: whether it spins, and where it has retried since the last other step.
        """
        return self._named(tasks, lambda: self._digest(tasks, spinning, retried))

    def _digest(
        self,
        tasks: Sequence[Task],
        spinning: Sequence[bool],
        retried: Sequence[Sequence[Point]],
    ) -> bytes:
        start = self._start
        assert start is not None
        self._frames.read(tasks)
        e = Encoder(start.known, self._frames)
        start.write(e)
        for task, spins, points in zip(tasks, spinning, retried, strict=True):
            e.value(task)
            e.out.append((spins, len(points)))
            e.values(points)
        for cpu, handler in sorted(tasks[0].execution.handlers.items()):
            e.out.append(("handler", cpu))
            e.value(handler)
        e.values(self._roots().values())
        e.contents()
        return e.digest()

    def _objects(self, tasks: Sequence[Task]) -> list[Any]:
        """All that can be reached without the tasks: from the scenario and from variables."""
        for task in tasks:
            body: Any = task.body
            while isinstance(body, GeneratorType):
                if body.gi_frame is not None:
                    self._globals.look_at_code(body.gi_code, body.gi_frame.f_globals)
                body = body.gi_yieldfrom
        self._globals.look(type(self.scenario))
        while True:
            known = len(self._globals.variables)
            e = Encoder({id(self.scenario): SCENARIO})
            e.values(self._roots().values())
            e.contents()
            for thing in e.queue:
                self._globals.look(thing)
                self._globals.look(type(thing))
            if known == len(self._globals.variables):
                return e.queue

    def _roots(self) -> dict[str, object]:
        return {**self.scenario.state_roots(), **self._globals.values()}

    def _named(self, tasks: Sequence[Task], work: Callable[[], T]) -> T:
        """Do something; what cannot be covered is named with the way to it."""
        try:
            return work()
        except Uncovered as uncovered:
            roots = {"self": self.scenario, **self._globals.values()}
            roots.update([(f"task {task.name}", task) for task in tasks])
            way = path_to(uncovered.thing, roots) or repr(uncovered.thing)
            raise Unmodelled(f"the state of {way}: {uncovered.why}") from None
