"""`softsgx explore`: find the interleaving that breaks a scenario."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from softsgx.cli import files
from softsgx.cli.crew import Crew, explore_with
from softsgx.cli.errors import EXIT_BAD_INPUT, EXIT_FINDING, EXIT_INTERRUPTED, EXIT_OK, UsageError
from softsgx.cli.jobs import Processes
from softsgx.cli.options import number
from softsgx.cli.progress import Bar
from softsgx.cli.scenarios import all_shipped, find
from softsgx.cli.stopping import Stopping
from softsgx.cli.verdicts import junit, sarif
from softsgx.explore import (
    STRATEGIES,
    Failure,
    Outcome,
    Plan,
    ReplayRefused,
    Scenario,
    choices_of,
    explore,
    record,
    replay_string,
    scenario_of,
)
from softsgx.explore.explorer import preemptions
from softsgx.explore.table import table
from softsgx.linux.version import VERSIONS
from softsgx.sim import ScheduleError
from softsgx.system.runtimes import ORDERS

SHIPPED_EXECUTIONS: Final = 500
"""Of each with --shipped, where nothing else is said."""


class Finished(NamedTuple):
    """An exploration that is over."""

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


def register(parser: argparse.ArgumentParser) -> None:
    """TARGET, what to do, how to search, and how to report."""
    add = parser.add_argument
    add("target", nargs="?", metavar="TARGET", help="a Python file, or a shipped scenario")
    add("--known-races", action="store_true", help="find each known race of the driver")
    add("--shipped", action="store_true", help="all shipped scenarios: each kernel, each order")
    add("--linux", choices=VERSIONS, help="of --shipped: this kernel only")
    add("--order", choices=ORDERS, help="of --shipped: this runtime's order only")
    add("--list", action="store_true", help="the scenarios of TARGET, or those shipped")
    add("--replay", metavar="STRING", help="execute one schedule and show it")
    add("--strategy", choices=STRATEGIES, default="deepening", help="(default: deepening)")
    add("--preemptions", type=number(16), metavar="N", help="no more than N preemptions")
    add("--executions", type=number(32), metavar="N", help="no more than N")
    add("--depth", type=number(8), default=3, metavar="D", help="of pct (default: 3)")
    add("--budget", type=_seconds, metavar="TIME", help="no longer than this, as 60s or 5m")
    add("--seed", type=number(64), default=0, metavar="N", help="of everything random")
    add("--jobs", type=number(8), metavar="N", help="search with N processes")
    add(
        "--cluster",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="search with the workers of a"
        " Dask scheduler; without ADDRESS with a cluster on this machine, of N workers",
    )
    add("--json", action="store_true", help="print one JSON object")
    add("--junit", metavar="FILE", help="write a JUnit report")
    add("--sarif", metavar="FILE", help="write a SARIF report")
    add("--progress", action="store_true", help="rate and coverage to standard error")


def run(args: argparse.Namespace) -> int:
    """Explore and report."""
    _check(args)
    if args.known_races:
        from softsgx.cli.known_races import show_known_races

        return show_known_races(args)
    if args.replay is not None:
        return _replay(args)
    if args.list:
        return _list(args.target)
    if args.shipped:
        return _shipped(args)
    if args.target is None:
        raise UsageError("TARGET: a file or a scenario is needed: see softsgx explore --list")
    finished = explore_all(args, [(args.target, scenario) for scenario in find(args.target)])
    _report(args, finished)
    return _code(finished)


def _check(args: argparse.Namespace) -> None:
    """Refuse what would be passed over in silence."""
    for name in ("executions", "jobs", "depth"):
        if getattr(args, name) == 0:
            raise UsageError(f"--{name}: at least 1")
    reports = [path for path in (args.junit, args.sarif) if path]
    files.refuse_same([args.target] if args.target else [], reports)
    for path in reports:
        files.expect_write(path)
    for name in ("linux", "order"):
        if getattr(args, name) is not None and not args.shipped:
            raise UsageError(f"--{name}: only with --shipped; of one scenario it is in its name")
    if args.preemptions is not None and args.strategy not in ("deepening", "dfs"):
        raise UsageError(f"--preemptions: not with --strategy {args.strategy}, which has no bound")


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan that the arguments ask for."""
    return Plan(
        strategy=args.strategy,
        seed=args.seed,
        executions=_executions(args),
        preemptions=args.preemptions,
        depth=args.depth,
    )


def _executions(args: argparse.Namespace) -> int:
    if args.executions is not None:
        return int(args.executions)
    return SHIPPED_EXECUTIONS if args.shipped else Plan().executions


def _code(finished: Sequence[Finished]) -> int:
    code = exit_code([done.outcome.failure for done in finished])
    interrupted = any(done.interrupted for done in finished)
    return EXIT_INTERRUPTED if code == EXIT_OK and interrupted else code


def exit_code(failures: Sequence[Failure | None]) -> int:
    """1 for a finding, 2 if a scenario could not be judged, else 0."""
    found = [failure.finding for failure in failures if failure is not None]
    if any(found):
        return EXIT_FINDING
    return EXIT_BAD_INPUT if found else EXIT_OK


def _shipped(args: argparse.Namespace) -> int:
    """Every shipped scenario, a line each as soon as it is done."""
    if args.target is not None:
        raise UsageError("--shipped: no TARGET with it")
    scenarios = all_shipped(args.linux, args.order)
    width = max(len(scenario.name) for scenario in scenarios)

    def show(done: Finished) -> None:
        if not args.json:
            files.show(line(done, width))

    finished = explore_all(args, [(each.name, each) for each in scenarios], show)
    write_reports(args, finished)
    found = sum(done.outcome.failure is not None for done in finished)
    if args.json:
        files.show(json.dumps([done.json() for done in finished], indent=2) + "\n")
    else:
        files.show(
            f"{len(finished)} of {len(scenarios)} scenarios, {found} with a finding, which "
            "softsgx explore SCENARIO shows\n"
        )
    return _code(finished)


def line(done: Finished, width: int) -> str:
    """An outcome in one line."""
    outcome, failure = done.outcome, done.outcome.failure
    if failure is None:
        return f"{outcome.scenario:<{width}}  nothing in {outcome.executions}; {outcome.covered}\n"
    found = f"{failure.kind.value} {failure.rule} after {outcome.found_after}"
    return f"{outcome.scenario:<{width}}  {found}: {failure.text}\n"


def explore_all(
    args: argparse.Namespace,
    targets: Sequence[tuple[str, Scenario]],
    show: Callable[[Finished], None] = lambda done: None,
) -> list[Finished]:
    """Explore one scenario after the other, `show` each; after Ctrl-C no more of them."""
    finished = []
    with Stopping(args.budget) as stopping, _crew(args) as crew:
        for number, (target, scenario) in enumerate(targets):
            part = stopping.share(len(targets) - number)
            finished.append(_explored(args, target, scenario, crew, part))
            show(finished[-1])
            if stopping.interrupted:
                print("softsgx: explore: interrupted", file=sys.stderr)
                break
    return finished


def _explored(
    args: argparse.Namespace, target: str, scenario: Scenario, crew: Crew | None, stopping: Stopping
) -> Finished:
    start = time.time()
    plan = plan_of(args)
    bar = Bar(plan.executions) if args.progress else None
    if crew is not None:
        outcome = explore_with(crew, target, scenario, plan, stopping, bar)
    else:
        outcome = explore(scenario, plan, deadline=stopping, progress=bar)
    if bar is not None:
        bar.close()
    return Finished(target, scenario, outcome, time.time() - start, stopping.interrupted)


@contextmanager
def _crew(args: argparse.Namespace) -> Iterator[Crew | None]:
    """The workers that the arguments ask for; none for this process alone."""
    crew: Crew
    if args.cluster is not None:
        from softsgx.cli.cluster import Cluster

        crew = Cluster(args.cluster, args.jobs)
    elif args.jobs:
        crew = Processes(args.jobs)
    else:
        yield None
        return
    try:
        yield crew
    finally:
        crew.close()


def write_reports(args: argparse.Namespace, finished: Sequence[Finished]) -> None:
    """The files that were asked for."""
    if args.junit:
        files.write(args.junit, junit(finished).encode())
    if args.sarif:
        files.write(args.sarif, sarif(finished).encode())


def _report(args: argparse.Namespace, finished: Sequence[Finished]) -> None:
    if args.json:
        files.show(json.dumps([done.json() for done in finished], indent=2) + "\n")
    else:
        for done in finished:
            files.show(story(done))
    write_reports(args, finished)


def story(done: Finished) -> str:
    """An outcome in words; a failure with its schedule as a table."""
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


def _replay(args: argparse.Namespace) -> int:
    try:
        name = scenario_of(args.replay)
        target = args.target or name
        named = [scenario for scenario in find(target) if scenario.name == name]
        if not named:
            raise ReplayRefused(f"{target} has no scenario {name}")
        scenario = named[0]
        choices = choices_of(args.replay, scenario)
    except (ReplayRefused, ScheduleError) as error:
        raise UsageError(f"--replay: {error}") from None
    failure = record(scenario, choices).failure
    if failure is None:
        files.show(f"{scenario.name}: this schedule shows nothing\n")
    else:
        files.show(f"{failure.headline}\n")
    files.show(table(scenario, choices))
    return exit_code([failure])


def _list(target: str | None) -> int:
    if target is None:
        from softsgx.system.scenarios.catalogue import SCENARIOS

        for kind in SCENARIOS:
            files.show(f"{kind.__name__:<18} {(kind.__doc__ or '').splitlines()[0]}\n")
        return EXIT_OK
    for scenario in find(target):
        files.show(f"{scenario.name}\n")
    return EXIT_OK


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    unit = units.get(text[-1:], 1)
    digits = text[:-1] if text[-1:] in units else text
    try:
        value = float(digits) * unit
    except ValueError:
        value = 0.0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text}: no time such as 60s or 5m")
    return value
