"""Conflicts that the objects of points do not show.

A task that retries may read anything, so its retry conflicts with every step. A daemon stops when
the last other task has ended, so its step conflicts with that end. An interrupt handler keeps other
tasks off its processor. Most scenarios have no such task; footprints stay small until one is seen.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Final

from softsgx.explore.footprint import Footprint
from softsgx.sim import RETRY
from softsgx.sim.point import IPI
from softsgx.sim.touch import READ, WRITE

if TYPE_CHECKING:
    from softsgx.sim import Task

_RETRIED: Final = ("anything",)
_END: Final = ("end of all that are no daemons",)
# The sender of an interrupt may be its target: then it becomes a handler itself.
_WANTED: Final = frozenset({RETRY, IPI})


class ImplicitConflicts:
    """Off at first; `wanted` once `look` sees a task with such conflicts; on after `use`."""

    def __init__(self) -> None:
        self.on = False
        self.wanted = False

    def use(self) -> None:
        """Switch on the implicit conflicts."""
        self.on = True
        self.wanted = False

    def look(self, enabled: Sequence[Task]) -> None:
        """Note whether a task has conflicts that its points do not show."""
        for task in enabled:
            if task.daemon or task.interrupt or task.point[0] in _WANTED:
                self.wanted = True

    def of(self, task: Task) -> Footprint:
        """What to add to the footprint of a task's next step, if switched on."""
        retries = task.point[0] == RETRY
        found: list[tuple[Hashable, int]] = [(_RETRIED, WRITE if retries else READ)]
        if task.daemon:
            found.append((_END, READ))
        if task.cpu is not None:
            found.append((("cpu", task.cpu), WRITE if task.interrupt else READ))
        return tuple(found)

    def at_end(self, task: Task) -> Footprint:
        """What to add to the footprint of the step in which a task ends."""
        return ((_END, WRITE),) if self.on and not task.daemon else ()
