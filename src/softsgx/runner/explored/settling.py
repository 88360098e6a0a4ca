"""Finding out which accesses of a scenario need points, before it is searched.

First every access has a point, in a few random executions and one without
preemption. Then only those accesses have one whose memory two tasks were seen to touch, one of them
writing; executions with these points show more such memory, until nothing new appears. All of it
depends on the scenario alone, so that every worker and every replay has the same points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from softsgx.explore.execute import execute_next
from softsgx.explore.failure import Kind
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies import Bounded, Strategy, Walk
from softsgx.runner.explored.sharing import Sharing
from softsgx.sim import Rng

# Executions of the first round, and of each later one.
_FIRST: Final = 8
_WALKS: Final = 24
_PROBES: Final = 32


class Unsettled(Exception):
    """A search has come to shared memory whose accesses have no points."""


def settle(scenario: Scenario, sharing: Sharing, more: Sequence[int]) -> None:
    """Find out what is shared, and give points to it and to the addresses `more`."""
    log, scenario.log = scenario.log, None
    try:
        sharing.everything = True
        _execute(scenario, Bounded(0), 1)
        _execute(scenario, Walk(Rng(0), _FIRST), _FIRST)
        sharing.everything = False
        sharing.mark(more)
        while True:
            _execute(scenario, Walk(Rng(0), _WALKS), _WALKS)
            _execute(scenario, Bounded(1), _PROBES)
            if not sharing.mark():
                return
    finally:
        scenario.log = log


def _execute(scenario: Scenario, strategy: Strategy, executions: int) -> None:
    """What fails here fails in the search as well, which reports it."""
    for _ in range(executions):
        if not strategy.begin():
            return
        done = execute_next(scenario, strategy)
        if done is not None and done.failure is not None and done.failure.kind is Kind.SCENARIO:
            return
