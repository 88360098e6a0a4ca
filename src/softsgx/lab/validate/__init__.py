"""The model against published figures: target, model, ratio.

Counts must be exact. Times follow from prices, few of which are published, so they are to be within
a fifth. Where a source leaves open what the model needs (the machine, the processors, HZ), the
model gives the range of what it may have been, and the note names what is open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from softsgx.lab.prices import Profile
from softsgx.lab.validate.calls import entries, exitless, mutex
from softsgx.lab.validate.memory import building, growing, loading_less, measuring, preheating
from softsgx.lab.validate.permissions import gib4, law_counts
from softsgx.lab.validate.table import text
from softsgx.lab.validate.target import Target

__all__ = ["CHECKS", "Target", "as_json", "targets", "text"]

CHECKS: Final[tuple[Callable[[Profile], list[Target]], ...]] = (
    law_counts,
    gib4,
    building,
    measuring,
    loading_less,
    growing,
    preheating,
    entries,
    exitless,
    mutex,
)


def targets(profile: Profile) -> list[Target]:
    """All targets."""
    return [target for check in CHECKS for target in check(profile)]


def as_json(found: Mapping[str, list[Target]]) -> dict[str, Any]:
    """Plain data: the targets by the name of the prices."""
    return {
        name: [{**t._asdict(), "ratio": t.ratio, "verdict": t.verdict} for t in targets]
        for name, targets in found.items()
    }
