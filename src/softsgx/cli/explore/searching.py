"""Running searches: the plan, the time and the workers that the options ask for."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from softsgx.cli.ends import print_stderr
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.whole import search_whole
from softsgx.cli.jobs import Processes
from softsgx.cli.progress import ProgressLine
from softsgx.cli.stopping import Stopping
from softsgx.cli.workers import Workers, explore_with
from softsgx.explore import Plan, Scenario, explore
from softsgx.explore.plan import WHOLE


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan that the options ask for."""
    return Plan(
        strategy=args.strategy,
        seed=args.seed,
        executions=args.executions,
        preemptions=args.preemptions,
        depth=args.depth,
    )


def look_for_races(scenarios: Sequence[Scenario]) -> None:
    """Collect the data races of the driver object on which scenarios run."""
    from softsgx.cdriver.data_races import DataRaces
    from softsgx.system.scenarios.scenario import MachineScenario

    for scenario in scenarios:
        if isinstance(scenario, MachineScenario):
            scenario.data_races = DataRaces()


def search_all(
    args: argparse.Namespace,
    targets: Sequence[tuple[str, Scenario]],
    show: Callable[[Finished], None] = lambda done: None,
) -> list[Finished]:
    """Search one scenario after another and `show` each; stop after Ctrl-C."""
    finished: list[Finished] = []
    with Stopping(args.budget) as stopping, workers_of(args) as workers:
        if workers is not None and args.strategy in WHOLE:
            search_whole(targets, plan_of(args), workers, stopping, finished, show)
            if stopping.interrupted:
                say_interrupted()
            return finished
        for number, (target, scenario) in enumerate(targets):
            part = stopping.share(len(targets) - number)
            done = search_one(args, target, scenario, plan_of(args), workers, part)
            finished.append(done)
            show(done)
            if stopping.interrupted:
                say_interrupted()
                break
    return finished


def search_one(
    args: argparse.Namespace,
    target: str,
    scenario: Scenario,
    plan: Plan,
    workers: Workers | None,
    stopping: Stopping,
) -> Finished:
    """Search one scenario; workers load it from `target`."""
    start = time.time()
    bar = ProgressLine(plan.executions) if args.progress else None
    if workers is not None:
        outcome = explore_with(workers, target, scenario, plan, stopping, bar)
    else:
        outcome = explore(
            scenario, plan, deadline=stopping, late=stopping.finishing(), progress=bar
        )
    if bar is not None:
        bar.close()
    return Finished(
        target, scenario, outcome, time.time() - start, stopping.interrupted, stopping.showing()
    )


def say_interrupted() -> None:
    """Tell the user why the output ends here."""
    print_stderr("softsgx: explore: interrupted")


@contextmanager
def workers_of(args: argparse.Namespace) -> Iterator[Workers | None]:
    """The workers that the options ask for; None: this process alone."""
    workers: Workers
    if args.cluster is not None:
        from softsgx.cli.cluster import Cluster

        workers = Cluster("" if args.cluster is True else args.cluster, args.jobs)
    elif args.jobs is not None:
        workers = Processes(args.jobs)
    else:
        yield None
        return
    try:
        yield workers
    finally:
        workers.close()
