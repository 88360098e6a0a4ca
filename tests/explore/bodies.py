"""Scenarios of plain generator functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from softsgx.explore import Scenario
from softsgx.sim import Execution, Steps


class Bodies(Scenario):
    """A scenario of generator functions.

    `bodies` are called with one state, made by `fresh()`; in the end `verify(state)` may raise.
    """

    def __init__(
        self,
        fresh: Callable[[], Any],
        *bodies: Callable[[Any], Steps[Any]],
        verify: Callable[[Any], None] | None = None,
        name: str = "bodies",
    ) -> None:
        self.fresh = fresh
        self.bodies = bodies
        self._verify = verify
        self.name = name
        self.shared: Any = None

    def start(self, execution: Execution) -> None:
        """A fresh state, and a task for each body: A, B, C..."""
        self.shared = self.fresh()
        for number, body in enumerate(self.bodies):
            execution.spawn(body(self.shared), chr(ord("A") + number))

    def check(self, execution: Execution) -> None:
        """Verify the state that is left."""
        if self._verify is not None:
            self._verify(self.shared)
