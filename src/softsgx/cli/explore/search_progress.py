"""How far searches are, for the line of progress: rate, coverage, and the time that is left."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final, Self

from softsgx.cli.explore.expected import Expected, expected
from softsgx.cli.progress import Estimate, Line, duration
from softsgx.cli.stopping import Stopping
from softsgx.explore import Outcome, Plan
from softsgx.explore.failure import preemptions_text
from softsgx.explore.plan import DEEPENING, DFS, EXHAUSTIVE, SAMPLED

ALMOST: Final = 0.99
"""The part that is done of a search that takes longer than expected."""


class SearchProgress:
    """Called with the outcome so far of one search after another.

    `names` are the scenarios in their order, `plan` is that of each.
    """

    def __init__(self, line: Line, names: Sequence[str], plan: Plan, stopping: Stopping) -> None:
        self._line = line
        self._plan = plan
        self._stopping = stopping
        known = [expected(name, plan) for name in names]
        # A scenario of which nothing is known is like the others.
        seconds = [each.seconds for each in known if each is not None] or [1.0]
        unknown = Expected(0, sum(seconds) / len(seconds))
        self._expected = [each or unknown for each in known]
        self._estimate = Estimate(sum(each.seconds for each in self._expected), line.clock)
        self._over = 0
        self._done = 0.0  # the expected seconds of those that are over
        self._begin()

    @classmethod
    def of(
        cls, args: argparse.Namespace, names: Sequence[str], plan: Plan, stopping: Stopping
    ) -> SearchProgress:
        """As the options of the command ask for it."""
        return cls(Line.of(args), names, plan, stopping)

    def begin(self, name: str) -> None:
        """A search begins."""
        self._begin()
        self._line.begin(f"{self._all(0.0)}{name}: begins")

    def _begin(self) -> None:
        self._start = self._line.clock()
        # The bound in progress; executions and time when it began.
        self._bound, self._executions, self._since = -1, 0, self._start

    def __call__(self, outcome: Outcome) -> None:
        now = self._line.clock()
        if outcome.bound != self._bound:
            self._bound, self._since = outcome.bound, now
            self._executions = outcome.executions
        self._line.show(
            lambda: f"{self._all(self._part(outcome))}{outcome.scenario}: {self.text(outcome, now)}"
        )

    def waiting(self, names: Sequence[str]) -> None:
        """Workers search these; what they have is known at their end."""
        self._line.show(lambda: f"{self._all(0.0)}{', '.join(names)}")

    def end(self, number: int | None = None) -> None:
        """A search is over, the next one or that of this number; the terminal is clear."""
        number = self._over if number is None else number
        self._over += 1
        self._done += self._expected[number].seconds
        self._line.clear()

    def clear(self) -> None:
        """Take the line off the terminal, before a result is printed."""
        self._line.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.clear()

    def _all(self, part: float) -> str:
        """Of several searches: how many are over, and when all will be."""
        searches = len(self._expected)
        if searches == 1:
            return ""
        done = self._done + part * self._expected[min(self._over, searches - 1)].seconds
        return (
            f"{self._over} of {searches} done, {self._estimate.text(done, self._stopping.left)}; "
        )

    def _part(self, outcome: Outcome) -> float:
        """The part of one search that is done, as far as it can be told."""
        plan = self._plan
        executions = self._expected[min(self._over, len(self._expected) - 1)].executions
        if executions:
            return min(ALMOST, outcome.executions / executions)
        if plan.strategy in SAMPLED:
            return outcome.executions / plan.executions
        if plan.strategy == DEEPENING and outcome.bound + 1 != plan.preemptions:
            return 0.0  # the last bound takes nearly all of the time
        return outcome.fraction

    def text(self, outcome: Outcome, now: float) -> str:
        """Executions, rate, and how much of the bound in progress is done."""
        limit = self._plan.executions
        rate = outcome.executions / max(1e-9, now - self._start)
        parts = [f"{outcome.executions} executions, {rate:.0f}/s"]
        if outcome.strategy in SAMPLED:
            parts.append(f"{outcome.executions / limit:.1%} of {limit}")
            left = (limit - outcome.executions) / rate if rate else 0.0
            return "; ".join([*parts, duration(left)])
        if outcome.states:
            return "; ".join([*parts, f"{outcome.states} states so far"])
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
            rest = duration(whole * (1 - outcome.fraction))
            parts.append(f"of {about} {executions:.2g} there, {rest}")
        return "; ".join(parts)
