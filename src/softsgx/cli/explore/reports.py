"""The results of finished searches: text, JSON, report files, the exit code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from softsgx.cli import files
from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_BAD_INPUT, EXIT_FINDING, EXIT_INTERRUPTED, EXIT_OK
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.junit import junit
from softsgx.cli.explore.sarif import sarif
from softsgx.explore.html import Story, page
from softsgx.explore.limits import LimitReached
from softsgx.explore.record import record
from softsgx.explore.table import table


def story(done: Finished) -> str:
    """An outcome as text; with the schedule as a table if it is a finding and there is time."""
    outcome, failure = done.outcome, done.outcome.failure
    counted = f"{outcome.executions} executions, {done.seconds:.1f} s; {outcome.covered}"
    races = "".join(f"  data race: {race}\n" for race in done.data_races)
    if failure is None:
        found = "no failure" if races else "nothing"
        return f"{outcome.scenario}: {found} found in {counted}\n{races}"
    lines = [
        failure.headline,
        f"  in {outcome.scenario}, {failure.where}",
        f"  found after {outcome.found_in}, {done.seconds:.1f} s; "
        f"{failure.size}; {outcome.covered}",
        f"  replay: {done.command(failure)}",
    ]
    if not outcome.confirmed:
        lines.insert(3, "  not executed a second time, and not minimised: the time was up")
    elif not outcome.minimised:
        lines.insert(3, "  perhaps not minimal: the limit was reached")
    if failure.finding and outcome.confirmed:
        try:
            shown = table(done.scenario, failure.choices, done.showing)
        except LimitReached:
            shown = "  the time was up; the replay shows the schedule"
        lines.append(shown.rstrip("\n"))
    return "\n".join(lines) + f"\n{races}"


def _page(finished: Sequence[Finished]) -> str:
    """The schedules of findings, or of a replay, as a page in HTML; of others what was found."""
    stories, others = [], []
    for done in finished:
        told = _story(done)
        if told is None:
            others.append(story(done))
        else:
            stories.append(told)
    return page(stories, "".join(others))


def _story(done: Finished) -> Story | None:
    """None if there is no schedule to show, or no time."""
    outcome, failure = done.outcome, done.outcome.failure
    choices, lines = done.choices, []
    if failure is not None:
        lines = [f"{failure.where}; {failure.size}", done.command(failure)]
        if failure.finding and outcome.confirmed:
            choices = failure.choices
    if choices is None:
        return None
    try:
        seen = record(done.scenario, choices, watched=True, deadline=done.showing)
    except LimitReached:
        return None
    return Story(outcome.scenario, seen, lines)


def exit_code(finished: Sequence[Finished]) -> int:
    """1 for a finding, 2 if a scenario is broken, 130 if it was interrupted, else 0."""
    failures = [done.outcome.failure for done in finished]
    found = [failure.finding for failure in failures if failure is not None]
    found += [True for done in finished if done.data_races]
    if found:
        return EXIT_FINDING if any(found) else EXIT_BAD_INPUT
    return EXIT_INTERRUPTED if any(done.interrupted for done in finished) else EXIT_OK


def expect_reports(args: argparse.Namespace) -> None:
    """Refuse report files that cannot be written, before the work."""
    reports = [path for path in (args.junit, args.sarif, args.html) if path is not None]
    files.refuse_same([args.target] if args.target is not None else [], reports)
    for path in reports:
        files.expect_write(path)


def report(args: argparse.Namespace, finished: Sequence[Finished], text: str) -> None:
    """Write the report files that were asked for, then print JSON or the text.

    In this order, so that the files are written even if standard output cannot be.
    """
    if args.junit is not None:
        files.write(args.junit, junit(finished).encode())
    if args.sarif is not None:
        files.write(args.sarif, sarif(finished).encode())
    if args.html is not None:
        files.write(args.html, _page(finished).encode())
    if args.json:
        print_stdout(json.dumps([done.json() for done in finished], indent=2) + "\n")
    else:
        print_stdout(text)
