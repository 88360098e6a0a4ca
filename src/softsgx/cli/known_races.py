"""`softsgx explore --known-races`: each known race found, and not found with its fix."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Final

from softsgx.cli import files
from softsgx.cli.errors import EXIT_FINDING, EXIT_OK
from softsgx.cli.stopping import Stopping
from softsgx.explore import Plan, explore
from softsgx.explore.explorer import preemptions
from softsgx.system.scenarios.catalogue import KNOWN_RACES, KnownRace

PREEMPTIONS: Final = 2
BUDGET_S: Final = 60.0

_HEAD: Final = (
    "race", "scenario", "rule broken", "executions", "seconds", "preemptions", "steps",
    "with the fix", "6.12",
)  # fmt: skip


def show_known_races(args: argparse.Namespace) -> int:
    """Print the table. 1 if a race was not found, or if anything was found with the fix on."""
    rows = [row(race, args.seed, args.budget or BUDGET_S) for race in KNOWN_RACES]
    if args.json:
        files.show(json.dumps(rows, indent=2) + "\n")
    else:
        files.show(markdown(rows))
    wrong = [row for row in rows if row["rule"] is None or row["fixed_rule"] is not None]
    return EXIT_FINDING if wrong else EXIT_OK


def row(race: KnownRace, seed: int, budget: float) -> dict[str, Any]:
    """What exploring with the race and without it came to."""
    plan = Plan(preemptions=PREEMPTIONS, seed=seed)
    present = race.alone(True)
    start = time.time()
    found = explore(present, plan, deadline=Stopping(budget))
    seconds = time.time() - start
    fixed = explore(race.alone(False), plan, deadline=Stopping(budget))
    failure = found.failure
    return {
        "race": race.number,
        "field": race.race,
        "scenario": type(present).__name__,
        "rule": failure.rule if failure is not None else None,
        "text": failure.text if failure is not None else None,
        "executions": found.found_after,
        "seconds": round(seconds, 2),
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
    lines = ["| " + " | ".join(_HEAD) + " |", "| " + " | ".join("---" for _ in _HEAD) + " |"]
    for found in rows:
        fixed = found["fixed_rule"] or f"nothing in {found['fixed_executions']}"
        if not found["fixed_rule"] and found["fixed_bound"] >= 0:
            fixed += f", complete up to {preemptions(found['fixed_bound'])}"
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
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"
