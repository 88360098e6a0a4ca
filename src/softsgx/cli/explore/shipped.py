"""`softsgx explore --shipped`: search every shipped scenario."""

from __future__ import annotations

import argparse

from softsgx.cli.driver_object import ACCESSES, driver_manifest, expect_told, write_coverage
from softsgx.cli.ends import print_stderr, print_stdout
from softsgx.cli.errors import ReaderGone
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.reports import exit_code, expect_reports, report
from softsgx.cli.explore.searching import look_for_races, search_all
from softsgx.cli.scenarios import on_driver
from softsgx.explore import Scenario
from softsgx.system.scenarios.names import all_shipped


def run(args: argparse.Namespace) -> int:
    """Print a line for each scenario as soon as it is done, then how many have a finding."""
    expect_reports(args)
    expect_told(args)
    scenarios = _scenarios(args)
    if args.data_races:
        look_for_races(scenarios)
    width = max(len(scenario.name) for scenario in scenarios)

    gone: list[ReaderGone] = []

    def show(done: Finished) -> None:
        if args.json or gone:
            return
        try:
            print_stdout(line(done, width))
        except ReaderGone as error:
            if (args.junit, args.sarif, args.html) == (None, None, None):
                raise
            gone.append(error)  # the report files must still be written

    finished = search_all(args, [(each.name, each) for each in scenarios], show)
    found = sum(done.outcome.failure is not None or bool(done.data_races) for done in finished)
    report(
        args,
        finished,
        f"{len(finished)} of {len(scenarios)} scenarios, {found} with a finding, which "
        "softsgx explore SCENARIO shows\n",
    )
    write_coverage(args.driver, args.coverage)
    if gone:
        raise gone[0]
    return exit_code(finished)


def _scenarios(args: argparse.Namespace) -> list[Scenario]:
    """Every shipped scenario that is asked for, but those that cannot run on a driver object."""
    if args.driver is None:
        return [*all_shipped(args.linux, args.order)]
    kernel = driver_manifest(args.driver).kernel
    found: list[Scenario] = []
    for scenario in all_shipped(kernel, args.order):
        if scenario.needs_python:
            print_stderr(f"softsgx: explore: {scenario.name} is left out: {scenario.needs_python}")
        else:
            found.append(on_driver(scenario, args.driver, accesses=args.points == ACCESSES))
    return found


def line(done: Finished, width: int) -> str:
    """An outcome in one line."""
    outcome, failure = done.outcome, done.outcome.failure
    if failure is None:
        found = f"nothing in {outcome.executions}; {outcome.covered}"
    else:
        found = f"{failure.kind.value} {failure.rule} after {outcome.found_in}: {failure.text}"
    races = "".join(f"  data race: {race}\n" for race in done.data_races)
    return f"{outcome.scenario:<{width}}  {found}\n{races}"
