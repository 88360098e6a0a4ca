"""A search that is over: in words, as JSON, in reports, as an exit code."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from softsgx.cli import files
from softsgx.cli.errors import EXIT_BAD_INPUT, EXIT_FINDING, EXIT_INTERRUPTED, EXIT_OK
from softsgx.cli.explore.verdicts import junit, sarif
from softsgx.explore import Failure, Outcome, Scenario, replay_string
from softsgx.explore.outcome import preemptions
from softsgx.explore.table import table


class Finished(NamedTuple):
    """A search, or the replay of one schedule, that is over."""

    target: str
    scenario: Scenario
    outcome: Outcome
    seconds: float
    interrupted: bool = False

    def json(self) -> dict[str, Any]:
        """For --json: plain data."""
        outcome, failure = self.outcome, self.outcome.failure
        found: dict[str, Any] = {
            "scenario": outcome.scenario,
            "strategy": outcome.strategy,
            "executions": outcome.executions,
            "points": outcome.points,
            "seconds": round(self.seconds, 3),
            "complete": outcome.complete,
            "preemptions_complete": outcome.bound,
            "schedules_estimated": outcome.schedules,
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
                "replay": self.command(failure),
            }
        return found

    def command(self, failure: Failure) -> str:
        """The command that executes the failing schedule again."""
        replay = shlex.quote(replay_string(self.scenario, failure.choices))
        place = f" {shlex.quote(self.target)}" if self.target.endswith(".py") else ""
        return f"softsgx explore{place} --replay {replay}"


def story(done: Finished) -> str:
    """An outcome in words; a finding with its schedule as a table."""
    outcome, failure = done.outcome, done.outcome.failure
    counted = f"{outcome.executions} executions, {done.seconds:.1f} s; {outcome.covered}"
    if failure is None:
        return f"{outcome.scenario}: nothing found in {counted}\n"
    lines = [
        failure.headline,
        f"  in {outcome.scenario}, {failure.where}",
        f"  found after {outcome.found_after} executions, {done.seconds:.1f} s; "
        f"{preemptions(failure.preemptions)}, {failure.steps} steps; {outcome.covered}",
        f"  replay: {done.command(failure)}",
    ]
    if failure.finding:
        lines.append(table(done.scenario, failure.choices).rstrip("\n"))
    return "\n".join(lines) + "\n"


def exit_code(finished: Sequence[Finished]) -> int:
    """1 for a finding, 2 if a scenario could not be judged, 130 if it was stopped, else 0."""
    failures = [done.outcome.failure for done in finished]
    found = [failure.finding for failure in failures if failure is not None]
    if found:
        return EXIT_FINDING if any(found) else EXIT_BAD_INPUT
    return EXIT_INTERRUPTED if any(done.interrupted for done in finished) else EXIT_OK


def expect_reports(args: argparse.Namespace) -> None:
    """Refuse files of reports that cannot be written, before the work."""
    reports = [path for path in (args.junit, args.sarif) if path is not None]
    files.refuse_same([args.target] if args.target is not None else [], reports)
    for path in reports:
        files.expect_write(path)


def report(args: argparse.Namespace, finished: Sequence[Finished], words: str) -> None:
    """Write the files that were asked for, and print JSON, or these words.

    In this order: files are written though nobody reads what is printed.
    """
    if args.junit is not None:
        files.write(args.junit, junit(finished).encode())
    if args.sarif is not None:
        files.write(args.sarif, sarif(finished).encode())
    if args.json:
        files.show(json.dumps([done.json() for done in finished], indent=2) + "\n")
    else:
        files.show(words)
