"""The live clock: an execution in which no other task runs until the current one has to wait.

While `Execution` drives tasks unrecorded, under Cooperative, the current task goes on at every
point that neither blocks nor retries. So locks and leaves, which ask `LIVE.execution`, leave out
what would change nothing: the point of a free lock or of a leaf, and the claims of that leaf. All
other code yields its points in every execution. While an execution of another kind runs,
`LIVE.execution` is None, even if a task of a live execution has started it.
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
