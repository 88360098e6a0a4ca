"""Systematic concurrency testing: find the interleaving that breaks a scenario.

Nothing here knows of SGX: a scenario is a set of `sim` tasks that start from the same state in
every execution, and checks of what must be true.
"""

from softsgx.explore.explorer import explore
from softsgx.explore.failure import FINDINGS, Failure, Kind
from softsgx.explore.outcome import Outcome
from softsgx.explore.plan import STRATEGIES, Plan
from softsgx.explore.record import record
from softsgx.explore.replay import ReplayRefused, replay_string, replayed, scenario_of
from softsgx.explore.scenario import Scenario, Violation

__all__ = [
    "FINDINGS",
    "STRATEGIES",
    "Failure",
    "Kind",
    "Outcome",
    "Plan",
    "ReplayRefused",
    "Scenario",
    "Violation",
    "explore",
    "record",
    "replay_string",
    "replayed",
    "scenario_of",
]
