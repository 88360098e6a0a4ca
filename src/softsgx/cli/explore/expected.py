"""How much there is to search in shipped scenarios and known races, for the line of progress."""

from __future__ import annotations

from typing import NamedTuple

from softsgx.cli.explore.expected_table import BY_BOUND, BY_STATES
from softsgx.explore import Plan
from softsgx.explore.plan import DEEPENING, STATES


class Expected(NamedTuple):
    """Executions of a search, and its seconds by one process of one machine.

    The seconds only serve to weigh searches against each other.
    """

    executions: int
    seconds: float


def key(name: str) -> str:
    """The name of a scenario without the races that it does not have."""
    return ",".join(part for part in name.split(",") if not part.endswith("=0"))


def expected(name: str, plan: Plan) -> Expected | None:
    """What is known of the search of a scenario by a plan; None if that is nothing."""
    if plan.strategy == STATES:
        found = BY_STATES.get(key(name))
    elif plan.strategy == DEEPENING and plan.preemptions == 2:
        found = BY_BOUND.get(key(name))
    else:
        return None
    if found is None:
        return None
    executions, seconds = found
    if executions <= plan.executions:
        return Expected(executions, seconds)
    return Expected(plan.executions, seconds * plan.executions / executions)
