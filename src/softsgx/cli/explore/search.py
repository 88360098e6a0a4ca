"""`softsgx explore TARGET`: search the schedules of its scenarios."""

from __future__ import annotations

import argparse

from softsgx.cli.explore.reports import exit_code, expect_reports, report, story
from softsgx.cli.explore.searching import search_all
from softsgx.cli.scenarios import find


def run(args: argparse.Namespace) -> int:
    """Search and report."""
    expect_reports(args)
    finished = search_all(args, [(args.target, scenario) for scenario in find(args.target)])
    report(args, finished, "".join("" if args.json else story(done) for done in finished))
    return exit_code(finished)
