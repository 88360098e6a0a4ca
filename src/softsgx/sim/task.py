"""Tasks: bodies that have been spawned into an execution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from softsgx.sim.point import WAIT, Blocker, Point, Steps
from softsgx.sim.schedule import letters

if TYPE_CHECKING:
    from softsgx.sim.execution import Execution


class Task:
    """A spawned body. `me = yield point` hands a body its own Task.

    index      position in the order of spawning; the letters of the schedule string
    cpu        the processor it runs on; None: it has a processor to itself
    daemon     run() does not wait for its end
    interrupt  an interrupt handler: on its processor it takes precedence over other tasks
    point      what it will do next when resumed; after the end, the last point
    result     the value returned, once done
    exception  the exception it ended by, once done
    held       the locks it holds, in the order of taking
    """

    __slots__ = (
        "execution", "index", "name", "cpu", "daemon", "interrupt",
        "point", "done", "result", "exception", "held", "body", "send", "gate",
    )  # fmt: skip

    point: Point

    def __init__(
        self,
        execution: Execution,
        index: int,
        body: Steps[Any],
        name: str,
        cpu: int | None,
        daemon: bool,
        interrupt: bool,
    ) -> None:
        self.execution = execution
        self.index = index
        self.name = name
        self.cpu = cpu
        self.daemon = daemon
        self.interrupt = interrupt
        self.done = False
        self.result: Any = None
        self.exception: BaseException | None = None
        self.held: list[Blocker] = []
        self.body = body
        # Looked up once, not once a step.
        self.send: Callable[[Task], Point] = body.send
        # The `ready` method of the object that a blocking point names; None at any other point.
        self.gate: Callable[[Task], bool] | None = None

    def __str__(self) -> str:
        return f"{letters(self.index)} {self.name!r}"

    def __repr__(self) -> str:
        return f"<Task {self}>"

    def lines(self) -> list[tuple[str, int]]:
        """Where it will be resumed: file and line of each generator, the innermost last."""
        found = []
        body: Any = self.body
        while isinstance(body, GeneratorType) and body.gi_frame is not None:
            found.append((body.gi_frame.f_code.co_filename, body.gi_frame.f_lineno))
            body = body.gi_yieldfrom
        return found

    def join(self) -> Steps[Any]:
        """Wait until this task has ended; return its result."""
        yield (WAIT, self, False)
        return self.result

    def ready(self, _waiter: Task, /) -> bool:
        """Whether a task that joins this one could go on."""
        return self.done

    def holders(self) -> Sequence[Task]:
        """The task itself, until it has ended."""
        return () if self.done else (self,)
