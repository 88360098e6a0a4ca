"""The live clock: an execution in which nobody gets in between unless a task waits.

While `Execution` drives tasks unrecorded, under Cooperative, the task that runs goes on at every
point anyway. Hot code asks `LIVE.execution` and leaves out what would change nothing: points that
are neither blocking nor RETRY, the point of a free lock or of a leaf, and the claims of that leaf.
In every other execution it is None, also in one that a task of a live execution runs: whatever its
tasks take is theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softsgx.sim.execution import Execution


class Live:
    """`execution` is the one that runs live now, None if none does."""

    __slots__ = ("execution",)

    def __init__(self) -> None:
        self.execution: Execution | None = None


LIVE = Live()
