"""`softsgx explore TARGET`: search the schedules of its scenarios."""

from __future__ import annotations

import argparse

from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.reports import exit_code, expect_reports, report, story
from softsgx.cli.explore.searching import search_all
from softsgx.cli.scenarios import find


def run(args: argparse.Namespace) -> int:
    """Search and report."""
    expect_reports(args)
    stories: list[str] = []

    def show(done: Finished) -> None:
        # At once, while there is time to execute the failure.
        stories.append("" if args.json else story(done))

    targets = [(args.target, scenario) for scenario in find(args.target, args.driver)]
    finished = search_all(args, targets, show)
    report(args, finished, "".join(stories))
    return exit_code(finished)
