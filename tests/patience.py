"""Waiting in tests: for facts, with a limit that only a test that hangs reaches.

A test's outcome never depends on the speed of the machine. So no other file of the tests sleeps or
has a limit of time (tests/test_tidy.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LIMIT_S: Final = 900
"""After so long something hangs. Twenty times what the slowest takes on a quiet machine."""


def until(fact: Callable[[], object], what: str = "what was waited for") -> None:
    """Wait until a fact is true; a failure of the test if it never is."""
    end = time.monotonic() + LIMIT_S
    while not fact():
        assert time.monotonic() < end, f"{what} did not happen in {LIMIT_S} s"
        time.sleep(0.02)


def settle(seconds: float = 0.4) -> None:
    """Let others get somewhere, mostly far; the outcome must not depend on how far."""
    time.sleep(seconds)
