"""The result of a search, and which part of the schedules it covered."""

from __future__ import annotations

from dataclasses import dataclass, field

from softsgx.explore.failure import Failure, preemptions_text
from softsgx.explore.plan import BOUNDED, EXHAUSTIVE


@dataclass(slots=True)
class Outcome:
    """The result of an exploration.

    complete     every schedule, or one of each equivalence class, was executed
    bound        all schedules with at most this many preemptions were executed; -1: none yet
    redundant    executions that partial-order reduction cut as equivalent to others
    found_after  executions until the failure, without minimising
    schedules    estimated number of all schedules, or 0; the random walks that estimate it do not
                 count as executions
    fraction     share of the tree of the last bound that was covered
    """

    scenario: str
    strategy: str
    executions: int = 0
    points: int = 0
    redundant: int = 0
    complete: bool = False
    bound: int = -1
    fraction: float = 0.0
    schedules: float = 0.0
    found_after: int = 0
    failure: Failure | None = None
    stopped: bool = field(default=False, repr=False)

    @property
    def covered(self) -> str:
        """What was covered and what was not, as text."""
        return coverage(self)


def coverage(outcome: Outcome) -> str:
    """What was covered and what was not."""
    if outcome.complete and outcome.strategy == EXHAUSTIVE:
        return "complete: one schedule of each equivalence class was executed"
    if outcome.complete:
        return "complete: every schedule was executed"
    parts = [
        f"complete up to {preemptions_text(outcome.bound)}"
        if outcome.bound >= 0
        else "not complete"
    ]
    if outcome.stopped and outcome.fraction and outcome.strategy in BOUNDED:
        share = f"{outcome.fraction:.1%}" if outcome.fraction >= 0.001 else "less than 0.1%"
        parts.append(f"{share} of the tree of {preemptions_text(outcome.bound + 1)}")
    if outcome.schedules > outcome.executions:
        parts.append(f"of roughly {outcome.schedules:.1g} schedules in all")
    return ", ".join(parts)
