"""A search that is over: its outcome, as plain data, and the command that replays its failure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from softsgx.cli.scenarios import driver_of
from softsgx.explore import Failure, Outcome, Scenario, replay_string
from softsgx.explore.limits import Deadline, no_deadline
from softsgx.sim import Choice


class Finished(NamedTuple):
    """A search, or the replay of one schedule (`choices`), that is over."""

    target: str
    scenario: Scenario
    outcome: Outcome
    seconds: float
    interrupted: bool = False
    showing: Deadline = no_deadline
    """Until when the failure may be executed to show it."""
    choices: Sequence[Choice] | None = None

    @property
    def data_races(self) -> list[str]:
        """The data races that were found, if they were looked for, as text."""
        found = getattr(self.scenario, "data_races", None)
        return [] if found is None else [str(race) for race in found.found]

    def json(self) -> dict[str, Any]:
        """The search as plain data, for --json."""
        outcome, failure = self.outcome, self.outcome.failure
        found: dict[str, Any] = {
            "scenario": outcome.scenario,
            "strategy": outcome.strategy,
            "executions": outcome.executions,
            "points": outcome.points,
            "depth": outcome.depth,
            "seconds": round(self.seconds, 3),
            "complete": outcome.complete,
            "decided": outcome.covered,
            "left_out": [reason.name.lower() for reason in outcome.reasons],
            "points_max": outcome.longest,
            "preemptions_decided": outcome.bound,
            "states": outcome.states,
            "schedules_estimated": outcome.schedules,
            "pairs": outcome.orders.pairs if outcome.orders is not None else 0,
            "pairs_in_both_orders": outcome.orders.both if outcome.orders is not None else 0,
            "data_races": self.data_races,
            "failure": None,
        }
        if failure is not None:
            found["failure"] = {
                "kind": failure.kind.value,
                "finding": failure.finding,
                "rule": failure.rule,
                "text": failure.text,
                "where": failure.where,
                "task": failure.task,
                "found_after": outcome.found_after,
                "preemptions": failure.preemptions,
                "steps": failure.steps,
                "confirmed": outcome.confirmed,
                "minimised": outcome.minimised,
                "replay": self.command(failure),
            }
        return found

    def command(self, failure: Failure) -> str:
        """The command that replays the failing schedule."""
        replay = shlex.quote(replay_string(self.scenario, failure.choices))
        place = f" {shlex.quote(self.target)}" if self.target.endswith(".py") else ""
        driver = driver_of(self.scenario)
        on = f" --driver {shlex.quote(driver)}" if driver is not None else ""
        return f"softsgx explore{place}{on} --replay {replay}"
