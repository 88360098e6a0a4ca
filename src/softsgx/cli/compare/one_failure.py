"""`softsgx compare --failure DESIGN/FAILURE`: one failure in one design, event by event."""

from __future__ import annotations

import argparse
import json

from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_FINDING, EXIT_OK, UsageError
from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.outcome import play, story
from softsgx.lab.failures.table import matrix_text
from softsgx.lab.report import outcome_json
from softsgx.sim import ScheduleError, ScheduleMismatch


def run(args: argparse.Namespace) -> int:
    """Print the verdicts, the schedule, and every event."""
    design, failure = args.failure
    try:
        outcome, events = story(design, failure, args.schedule)
    except (ScheduleError, ScheduleMismatch) as error:
        raise UsageError(f"--schedule: {error}") from None
    everything = [outcome if name == failure else play(design, name) for name in FAILURES]
    if args.json:
        found = {**outcome_json(outcome, everything), "bad": outcome.bad, "events": events}
        print_stdout(json.dumps(found, indent=1) + "\n")
    else:
        print_stdout(matrix_text([outcome], everything))
        print_stdout("\n" + "\n".join(events) + "\n")
    return EXIT_FINDING if outcome.bad else EXIT_OK
