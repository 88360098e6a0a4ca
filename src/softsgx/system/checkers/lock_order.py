"""Locks are taken in the order of the kernel's documentation: mmap_lock before encl->lock.

Verified: in this execution no task takes a lock of an outer class while it holds one of an inner
class, and none takes two of one class, whether or not there is a deadlock. fork is exempt: it takes
the lock of the new address space while it holds the parent's, as in the kernel (dup_mmap,
SINGLE_DEPTH_NESTING): recognised as a mmap_lock that is taken for the first time.
Not verified: locks that a scenario or a runtime makes itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.sim.touch import TOUCHES
from softsgx.system.checkers.checker import Checker

if TYPE_CHECKING:
    from softsgx.sim import Blocker, Task
    from softsgx.system.scene import Scene

# From the outside in, by the part of the name before the parenthesis.
RANKS: Final = {"mmap_lock": 0, "encl->lock": 1}


class LockOrder(Checker):
    """The order of mmap_lock and encl->lock."""

    rule = "lock order"
    _known: list[object]

    def start(self, scene: Scene) -> None:
        """Watch every lock that is taken."""
        TOUCHES.taken = self._taken
        mms = [thread.process.mm for thread in scene.threads.values()]
        self._known = [mm.mmap_lock for mm in mms]

    def check(self, scene: Scene) -> None:
        """Nothing to do: a violation is raised at once, in the task that commits it."""

    def _taken(self, task: Task, lock: Blocker) -> None:
        rank = RANKS.get(lock.name.split("(")[0])
        if rank is None:
            return
        if rank == 0 and not any(lock is known for known in self._known):
            self._known.append(lock)
            return
        for held in task.held:
            if held is not lock and RANKS.get(held.name.split("(")[0], -1) >= rank:
                raise self.violated(f"{task.name} takes {lock.name} while it holds {held.name}")
