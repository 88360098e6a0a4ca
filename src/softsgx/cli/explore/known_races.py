"""`softsgx explore --known-races`: each known race is found, and not found with its fix."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any, Final

from softsgx.cli.driver_object import driver_manifest
from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_FINDING, EXIT_INTERRUPTED, EXIT_OK
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.search_progress import SearchProgress
from softsgx.cli.explore.searching import say_interrupted, search_one, workers_of
from softsgx.cli.stopping import Stopping
from softsgx.explore import Plan
from softsgx.explore.failure import preemptions_text
from softsgx.explore.record import record
from softsgx.linux.version import VERSION_DEFAULT
from softsgx.system.scenarios.catalogue import KNOWN_RACES, KnownRace

PREEMPTIONS: Final = 2

_HEAD: Final = (
    "race", "scenario", "rule broken", "executions", "seconds", "preemptions", "steps",
    "with the fix", VERSION_DEFAULT,
)  # fmt: skip


_DRIVER_HEAD: Final = (
    "race", "scenario", "rule broken", "executions", "seconds", "preemptions", "steps",
    "others get in at",
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the table, without races whose search was interrupted."""
    if args.driver is not None:
        return _on_driver(args)
    rows = []
    plan = Plan(preemptions=PREEMPTIONS, seed=args.seed)
    pairs = [(race.alone(True), race.alone(False)) for race in KNOWN_RACES]
    names = [scenario.name for pair in pairs for scenario in pair]
    with (
        Stopping() as stopping,
        SearchProgress.of(args, names, plan, stopping) as progress,
        workers_of(args) as workers,
    ):
        for race, pair in zip(KNOWN_RACES, pairs, strict=True):
            searched = []
            for scenario in pair:
                within = stopping.within(args.budget)
                searched.append(
                    search_one(scenario.name, scenario, plan, workers, within, progress)
                )
            found = row(race, *searched)
            if stopping.interrupted:
                say_interrupted()
                break
            rows.append(found)
    print_stdout(json.dumps(rows, indent=2) + "\n" if args.json else markdown(rows))
    if any(row["rule"] is None or row["fixed_rule"] is not None for row in rows):
        return EXIT_FINDING
    return EXIT_INTERRUPTED if stopping.interrupted else EXIT_OK


def _on_driver(args: argparse.Namespace) -> int:
    """The races of mainline, in a driver object; nothing is switched."""
    rows = []
    driver_manifest(args.driver)
    plan = Plan(preemptions=PREEMPTIONS, seed=args.seed)
    races = [race for race in KNOWN_RACES if race.rule]
    scenarios = [race.on(args.driver) for race in races]
    names = [scenario.name for scenario in scenarios]
    with (
        Stopping() as stopping,
        SearchProgress.of(args, names, plan, stopping) as progress,
        workers_of(args) as workers,
    ):
        for race, scenario in zip(races, scenarios, strict=True):
            within = stopping.within(args.budget)
            done = search_one(scenario.name, scenario, plan, workers, within, progress)
            if stopping.interrupted:
                say_interrupted()
                break
            rows.append(driver_row(race, done))
    print_stdout(json.dumps(rows, indent=2) + "\n" if args.json else driver_markdown(rows))
    if any(row["rule"] is None for row in rows):
        return EXIT_FINDING
    return EXIT_INTERRUPTED if stopping.interrupted else EXIT_OK


def driver_row(race: KnownRace, done: Finished) -> dict[str, Any]:
    """The result of a search on a driver object, with the places in C where others get in."""
    outcome, failure = done.outcome, done.outcome.failure
    windows: list[str] = []
    if failure is not None:
        seen = record(done.scenario, failure.choices, watched=True)
        windows = [*dict.fromkeys(step.left_at for step in seen.recorder.steps if step.left_at)]
    return {
        "race": race.number,
        "scenario": type(done.scenario).__name__,
        "rule": failure.rule if failure is not None else None,
        "text": failure.text if failure is not None else None,
        "executions": outcome.found_after if failure is not None else outcome.executions,
        "seconds": round(done.seconds, 2),
        "preemptions": failure.preemptions if failure is not None else None,
        "steps": failure.steps if failure is not None else None,
        "windows": windows,
        "covered": outcome.covered,
        "replay": done.command(failure) if failure is not None else None,
    }


def driver_markdown(rows: list[dict[str, Any]]) -> str:
    """The table of docs/driver.md."""
    lines = [_line(_DRIVER_HEAD), _line("---" for _ in _DRIVER_HEAD)]
    for found in rows:
        numbers = (found["executions"], found["seconds"])
        if found["rule"] is None:
            cells = ("not found", *numbers, "", "", found["covered"])
        else:
            where = ", ".join(found["windows"])
            cells = (found["rule"], *numbers, found["preemptions"], found["steps"], where)
        lines.append(_line((found["race"], found["scenario"], *cells)))
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def row(race: KnownRace, present: Finished, absent: Finished) -> dict[str, Any]:
    """The results of the searches with the race and without it."""
    found, fixed = present.outcome, absent.outcome
    failure = found.failure
    return {
        "race": race.number,
        "field": race.race,
        "scenario": type(present.scenario).__name__,
        "rule": failure.rule if failure is not None else None,
        "text": failure.text if failure is not None else None,
        "executions": found.found_after,
        "seconds": round(present.seconds, 2),
        "preemptions": failure.preemptions if failure is not None else None,
        "steps": failure.steps if failure is not None else None,
        "fixed_rule": fixed.failure.rule if fixed.failure is not None else None,
        "fixed_executions": fixed.executions,
        "fixed_bound": fixed.bound,
        "fixed_covered": fixed.covered,
        "mainline_6_12": race.mainline,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of docs/kernel-races.md."""
    lines = [_line(_HEAD), _line("---" for _ in _HEAD)]
    for found in rows:
        bound = found["fixed_bound"]
        fixed = found["fixed_rule"] or "nothing"
        if not found["fixed_rule"]:
            # If a time limit ended the search, the number depends on the machine.
            fixed += f" in {found['fixed_executions']}" if bound == PREEMPTIONS else ""
            fixed += f", every schedule up to {preemptions_text(bound)}" if bound >= 0 else ""
        cells = [
            found["race"],
            found["scenario"],
            found["rule"] or "not found",
            found["executions"],
            found["seconds"],
            found["preemptions"],
            found["steps"],
            fixed,
            found["mainline_6_12"],
        ]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"
