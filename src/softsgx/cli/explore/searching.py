"""Running searches: the plan, the time and the workers that the options ask for."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from softsgx.cli.ends import print_stderr
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.search_progress import SearchProgress
from softsgx.cli.explore.whole import search_whole
from softsgx.cli.jobs import Processes
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
    plan = plan_of(args)
    names = [scenario.name for _target, scenario in targets]
    with (
        Stopping(args.budget) as stopping,
        SearchProgress.of(args, names, plan, stopping) as progress,
        workers_of(args) as workers,
    ):
        if workers is not None and args.strategy in WHOLE:
            search_whole(targets, plan, workers, stopping, finished, show, progress)
            if stopping.interrupted:
                say_interrupted()
            return finished
        for number, (target, scenario) in enumerate(targets):
            part = stopping.share(len(targets) - number)
            done = search_one(target, scenario, plan, workers, part, progress)
            finished.append(done)
            show(done)
            if stopping.interrupted:
                say_interrupted()
                break
    return finished


def search_one(
    target: str,
    scenario: Scenario,
    plan: Plan,
    workers: Workers | None,
    stopping: Stopping,
    progress: SearchProgress,
) -> Finished:
    """Search one scenario, the next one of `progress`; workers load it from `target`."""
    start = time.time()
    progress.begin(scenario.name)
    if workers is not None:
        outcome = explore_with(workers, target, scenario, plan, stopping, progress)
    else:
        late = stopping.finishing()
        outcome = explore(scenario, plan, deadline=stopping, late=late, progress=progress)
    progress.end()
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
