"""What orders steps beside the objects of their points.

A task that retries looks at anything, so its retry is in conflict with every step. A daemon stops
when the last other task has ended: whether its step comes before that end is a choice as well. An
interrupt handler keeps other tasks off its processor. Most scenarios have none of these, and their
steps are kept free of it until one is seen.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Final

from softsgx.explore.footprint import Footprint
from softsgx.sim import RETRY
from softsgx.sim.touch import READ, WRITE

if TYPE_CHECKING:
    from softsgx.sim import Task

_RETRIED: Final = ("anything",)
_END: Final = ("end of all that are no daemons",)


class ImplicitConflicts:
    """Off until `look` has seen what needs it; then `wanted`, until `use`."""

    def __init__(self) -> None:
        self.on = False
        self.wanted = False

    def use(self) -> None:
        """From now on."""
        self.on = True
        self.wanted = False

    def look(self, enabled: Sequence[Task]) -> None:
        """Note whether a task that could take a step, or could have, orders more than it says."""
        for task in enabled:
            if task.daemon or task.interrupt or task.point[0] == RETRY:
                self.wanted = True

    def of(self, task: Task) -> Footprint:
        """What is added to the footprint of a step before it runs, when it is on."""
        retries = task.point[0] == RETRY
        found: list[tuple[Hashable, int]] = [(_RETRIED, WRITE if retries else READ)]
        if task.daemon:
            found.append((_END, READ))
        if task.cpu is not None:
            found.append((("cpu", task.cpu), WRITE if task.interrupt else READ))
        return tuple(found)

    def at_end(self, task: Task) -> Footprint:
        """What is added to the footprint of the step in which a task ends."""
        return ((_END, WRITE),) if self.on and not task.daemon else ()
