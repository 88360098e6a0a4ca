"""What a step touches beyond the object of its point; `explore` collects it.

A point announces one object. What else its step changes, a lock that it releases, a flag that it
sets, a task that it spawns, shows only while it runs; it is noted here. That a task comes to stand
at a point is such a change, where others are ready or not because of it. Bodies may note more by
`touch`: two steps are in conflict if one object is touched by both and the modes say so.

    READ and READ, ENABLE and ENABLE commute; all other pairs are in conflict.
    ENABLE is for a release: before the step no waiter at the object could go on, after it some may.
    It is ordered before their steps, but is not a race with them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from softsgx.sim.point import Blocker
    from softsgx.sim.task import Task

READ: Final = 0
WRITE: Final = 1
ENABLE: Final = 2
SPAWN: Final = 3
"""The object is a Task that the step has spawned."""


class Touches:
    """`noted` lists (object, mode) of the current step; None while nothing collects them.

    `taken` is called for every lock that a task takes, before it counts among those held.
    """

    __slots__ = ("noted", "taken")

    def __init__(self) -> None:
        self.noted: list[tuple[Hashable, int]] | None = None
        self.taken: Callable[[Task, Blocker], None] | None = None


TOUCHES: Final = Touches()


def touch(touched: Hashable, mode: int = WRITE) -> None:
    """Note that the step that runs touches an object."""
    noted = TOUCHES.noted
    if noted is not None:
        noted.append((touched, mode))
