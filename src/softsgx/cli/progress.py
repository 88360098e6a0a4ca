"""`--progress`: a line on standard error while a search runs."""

from __future__ import annotations

import time
from typing import Final

from softsgx.cli.ends import on_terminal, print_stderr
from softsgx.explore import Outcome
from softsgx.explore.failure import preemptions_text
from softsgx.explore.plan import DEEPENING, DFS, EXHAUSTIVE, SAMPLED

EVERY_S: Final = 1.0
EVERY_LINE_S: Final = 5.0
"""The interval if standard error is not a terminal: each text is then a line of its own."""


class ProgressLine:
    """Called with the outcome so far; prints rate, coverage and an estimate at intervals."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._start = self._shown = time.time()
        self._terminal = on_terminal()
        # The bound in progress; executions and time when it began.
        self._bound, self._executions, self._since = -1, 0, self._start

    def __call__(self, outcome: Outcome) -> None:
        now = time.time()
        if outcome.bound != self._bound:
            self._bound, self._since = outcome.bound, now
            self._executions = outcome.executions
        if now - self._shown >= (EVERY_S if self._terminal else EVERY_LINE_S):
            self._shown = now
            text = f"{outcome.scenario}: {self.text(outcome, now)}"
            end = "" if self._terminal else "\n"
            start = "\r" if self._terminal else ""
            print_stderr(f"{start}{text:<78}", end)

    def text(self, outcome: Outcome, now: float) -> str:
        """Executions, rate, and how much of the bound in progress is done."""
        rate = outcome.executions / max(1e-9, now - self._start)
        parts = [f"{outcome.executions} executions, {rate:.0f}/s"]
        if outcome.strategy in SAMPLED:
            parts.append(f"{outcome.executions / self._limit:.1%} of {self._limit}")
            left = (self._limit - outcome.executions) / rate if rate else 0.0
            return "; ".join([*parts, _duration(left)])
        if outcome.strategy == DEEPENING:
            tree = f"the schedules with up to {preemptions_text(outcome.bound + 1)}"
            if outcome.bound >= 0:
                parts.append(f"all with up to {outcome.bound}")
        else:
            tree = "the tree" if outcome.strategy == DFS else "the tree as far as it is known"
        parts.append(f"{outcome.fraction:.1%} of {tree}")
        if outcome.fraction > 0.001:
            whole = (now - self._since) / outcome.fraction
            executions = (outcome.executions - self._executions) / outcome.fraction
            about = "at least" if outcome.strategy == EXHAUSTIVE else "roughly"
            rest = _duration(whole * (1 - outcome.fraction))
            parts.append(f"of {about} {executions:.2g} there, {rest}")
        return "; ".join(parts)

    def close(self) -> None:
        """Clear the line."""
        if self._terminal:
            print_stderr(f"\r{'':<120}\r", "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s left"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.3g} h left"
