"""`softsgx explore --replay STRING`: execute one schedule, and show it step by step."""

from __future__ import annotations

import argparse
import time

from softsgx.cli.errors import UsageError
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.reports import exit_code, expect_reports, report
from softsgx.cli.scenarios import find, split
from softsgx.explore import Outcome, ReplayRefused, Scenario, replayed, scenario_of
from softsgx.explore.table import table
from softsgx.sim import ScheduleError
from softsgx.system.scenarios.names import is_shipped
from softsgx.system.scenarios.scenario import AT_ACCESSES, DRIVER


def run(args: argparse.Namespace) -> int:
    """Execute and report."""
    kind = ""
    if args.target is not None:
        args.target, kind = split(args.target)
    expect_reports(args)
    try:
        target, scenario = _scenario(args.target, args.driver, scenario_of(args.replay), kind)
        start = time.time()
        found = replayed(args.replay, scenario)
    except (ReplayRefused, ScheduleError) as error:
        raise UsageError(f"--replay: {error}") from None
    outcome = Outcome(
        scenario.name,
        "replay",
        executions=1,
        points=len(found.recorder.steps),
        found_after=1 if found.failure is not None else 0,
        failure=found.failure,
    )
    choices = found.executed.execution.choices
    done = Finished(target, scenario, outcome, time.time() - start, choices=choices)
    said = f"{scenario.name}: no failure under this schedule"
    if found.failure is not None:
        said = found.failure.headline
    report(
        args,
        [done],
        "" if args.json else f"{said}\n{table(scenario, choices)}",
    )
    return exit_code([done])


def _scenario(target: str | None, driver: str | None, name: str, kind: str) -> tuple[str, Scenario]:
    """The target that contains the scenario of a replay string, and the scenario."""
    if target is None:
        if not is_shipped(name):
            raise ReplayRefused(
                f"the string is for scenario {name}, which is not a shipped one: "
                "give the file that has it as TARGET"
            )
        target = name
    if driver is None and f",{DRIVER}=" in name:
        raise ReplayRefused(f"the string is for {name}: give that driver object with --driver")
    scenarios = find(target, driver, accesses=AT_ACCESSES in name.split(","), kind=kind)
    for scenario in scenarios:
        if scenario.name == name:
            return target, scenario
    has = ", ".join(scenario.name for scenario in scenarios)
    has = f"has {has}" if target.endswith(".py") else f"is {has}"
    raise ReplayRefused(f"the string is for scenario {name}; TARGET {target} {has}")
