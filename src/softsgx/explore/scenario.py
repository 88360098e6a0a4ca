"""Scenarios, which are explored: a start state, tasks, and checks."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from softsgx.explore.footprint import Footprint, of_point
from softsgx.sim import BLOCKING, Event, Execution, Log, Point, Task

MAX_STEPS: Final = 20_000

State = Mapping[str, Mapping[str, str]]
"""For each thing that is watched, its parts and their values, as text."""


class Violation(Exception):
    """A rule was violated. `rule` is its short name, the same however it was violated."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


class Granularity(NamedTuple):
    """Where a scenario has its points, in words for the result of a search.

    kinds    what its points stand before; "": only the scenario knows
    binary   it executes a binary; then `kinds` says where that has points
    whole    other tasks can get in only there: between two points there is no further place
    """

    kinds: str = ""
    binary: bool = False
    whole: bool = True

    def text(self, points: str) -> str:
        """So many points, with their kinds."""
        if self.binary:
            return f"up to {points} for this binary, at {self.kinds}"
        return f"up to {points}" + (f" ({self.kinds})" if self.kinds else "")


class Scenario:
    """Tasks that may be interleaved, from the same state each time.

    A user's scenario overrides `start`, and `check` or the bodies of its tasks raise `Violation`:

        class Counter(Scenario):
            def start(self, execution):
                self.value = 0
                execution.spawn(self.add(), "A")
                execution.spawn(self.add(), "B")

            def add(self):
                yield ("read", "value", False)
                value = self.value
                yield ("write", "value", True)
                self.value = value + 1

            def check(self, execution):
                if self.value != 2:
                    raise Violation("lost update", f"value {self.value} after two additions")

    `start` is called before every execution; what need be built only once is there restored from a
    snapshot. Everything by which tasks affect each other must be announced by the objects of their
    points or noted by `sim.touch`: partial-order reduction relies on it.
    """

    name: str = ""
    """Its name on the command line; the name of the class by default."""
    max_steps: int = MAX_STEPS
    log: Log | None = None
    granularity: Granularity = Granularity()
    """Where it has its points."""
    violations: ClassVar[tuple[type[BaseException], ...]] = ()
    """Exceptions of a task that are findings, besides Violation."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def start(self, execution: Execution) -> None:
        """Restore the start state and spawn the tasks."""
        raise NotImplementedError(f"{type(self).__name__}.start")

    def check(self, execution: Execution) -> None:
        """Check the final state, when every task has ended; raise Violation."""

    def objects(self, task: Task, point: Point) -> Footprint:
        """What the step after a point touches: pairs of a stable key and a mode of `sim.touch`.

        Override it if the object of a point does not cover everything.
        """
        return of_point(point)

    def state(self) -> str:
        """The present state, for the last column of a table."""
        return ""

    def states(self) -> State:
        """The present state in parts, for a page: thing -> name of a part -> its value."""
        return {}

    def told_by(self) -> Log | None:
        """The log to which what the tasks work on tells its events; None if there is none."""
        return None

    def event_texts(self, event: Event) -> tuple[str, str]:
        """An event as text: what it means for the step, for a table, and all of it, for a page.

        Either may be "".
        """
        return "", str(event)

    def point_text(self, point: Point) -> str:
        """A point as text for the reader of a table."""
        kind, touched, _write = point
        name = getattr(touched, "name", touched)
        if isinstance(name, tuple):
            name = " ".join(f"{part:#x}" if isinstance(part, int) else str(part) for part in name)
        return f"{kind} {name}" if kind not in BLOCKING or name else kind

    def place_text(self, task: Task) -> str:
        """Where in the code of its own a task is before a step, for the reader of a table."""
        return ""

    def draw_text(self, what: str, value: int) -> str:
        """A draw as text for the reader of a table; 0 is not shown."""
        return what if value == 1 else f"{what}: {value}"

    def state_roots(self) -> Mapping[str, object]:
        """What its state is reached from, besides its tasks: by default all its attributes."""
        return vars(self)

    def fingerprint(self) -> Hashable:
        """What must be equal after two executions of one schedule, besides their steps."""
        return None

    def refusal(self) -> str:
        """Why it cannot be explored as it asks, "" if it can. Asked before a search."""
        if type(self.max_steps) is not int or self.max_steps < 1:
            return f"max_steps = {self.max_steps!r}: not a number of steps from 1 up"
        points = getattr(self, "points", None)
        if isinstance(points, str) and not self.granularity.binary:
            return (
                f"points = {points!r}: a scenario in Python yields its points itself; only "
                "scenarios of binaries have kinds of points"
            )
        return ""

    @property
    def file(self) -> str:
        """The file it is defined in; "" if there is none."""
        try:
            return inspect.getsourcefile(type(self)) or ""
        except (OSError, TypeError):
            return ""

    def identity(self) -> str:
        """Eight hexadecimal digits that change with the text of its file."""
        try:
            text = Path(self.file).read_bytes()
        except OSError:
            text = b""
        return blake2b(text + self.name.encode(), digest_size=4).hexdigest()
