"""`softsgx explore TARGET`: search the schedules of its scenarios."""

from __future__ import annotations

import argparse

from softsgx.cli.driver_object import ACCESSES, expect_told, write_coverage
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.reports import exit_code, expect_reports, report, story
from softsgx.cli.explore.searching import look_for_races, search_all
from softsgx.cli.scenarios import find, split


def run(args: argparse.Namespace) -> int:
    """Search and report."""
    args.target, kind = split(args.target)
    expect_reports(args)
    expect_told(args)
    stories: list[str] = []

    def show(done: Finished) -> None:
        # At once, while there is time to execute the failure.
        stories.append("" if args.json else story(done))

    scenarios = find(args.target, args.driver, accesses=args.points == ACCESSES, kind=kind)
    if args.data_races:
        look_for_races(scenarios)
    finished = search_all(args, [(args.target, scenario) for scenario in scenarios], show)
    report(args, finished, "".join(stories))
    write_coverage(args.driver, args.coverage)
    return exit_code(finished)
