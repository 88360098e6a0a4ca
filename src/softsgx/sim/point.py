"""Points: the places where another processor may get in between.

A task yields a point *before* the action it announces: whatever the task does from the resumption
to its next point is one step, and steps are what a scheduler orders. Points are plain tuples,
built once where possible, because a fresh dataclass would cost more than the step.

A point says what its step touches: two steps of different tasks are in conflict if their objects
are equal and at least one of them writes. A step may also release a lock or wake a sleeper;
that is not declared beforehand but noted while it happens (`sim.touch`).
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from softsgx.sim.task import Task

T = TypeVar("T")

Point: TypeAlias = tuple[str, Hashable, bool]
"""(kind, object, write)."""

Steps: TypeAlias = Generator[Point, "Task", T]
"""The body of a task, or a part of one: yields points, is sent its own Task, returns a T."""

LOCK: Final = "lock"
WAIT: Final = "wait"
IRQ: Final = "irq"
RETRY: Final = "retry"
"""The kind of a point at which a task spins for something that only another task can bring about.

Not blocking. The step that comes to it has looked, in vain, and so will the next one unless another
task has done something: explore leaves that out. What may go on by itself has another kind. The
object says what is waited for: two loops, one after the other, have different objects.
"""

BLOCKING: Final = frozenset({LOCK, WAIT, IRQ})
"""The kinds at which a task is resumed only while `object.ready(task)`.

A closed set of kinds rather than a fourth element: the test is one lookup, every point has
one shape, and the reader of a trace sees from the kind alone whether a task could be blocked.
"""

TRYLOCK: Final = "trylock"
SRCU: Final = "srcu"
IPI: Final = "ipi"


class Blocker(Protocol):
    """The interface of the object of a blocking point.

    If changes of other objects make it ready, it lists those in an attribute `depends`.
    """

    @property
    def name(self) -> str:
        """What a deadlock report calls it."""

    def ready(self, task: Task, /) -> bool:
        """Whether `task`, whose point names this object, could go on now.

        Must not change anything: it is called before every step.
        """

    def holders(self) -> Sequence[Task]:
        """The tasks that must act before a blocked one can go on, if they are known."""
