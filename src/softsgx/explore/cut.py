"""How a strategy ends an execution early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softsgx.sim import Task


class Cut(Exception):
    """Raised by a strategy: the rest of this execution would be redundant.

    `blocked` are the tasks that could not continue at that moment.
    """

    def __init__(self, blocked: Sequence[Task] = ()) -> None:
        super().__init__("cut")
        self.blocked = tuple(blocked)
