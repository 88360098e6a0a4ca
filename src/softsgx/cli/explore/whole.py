"""Searches that are not divided: each scenario is searched by one worker, several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Final

from softsgx.cli.errors import UsageError
from softsgx.cli.explore.finished import Finished
from softsgx.cli.explore.search_progress import SearchProgress
from softsgx.cli.stopping import Stopping
from softsgx.cli.workers import POLL_S, RENEWALS_MAX, Workers, spec_of
from softsgx.explore import Plan, Scenario
from softsgx.explore.split import Search
from softsgx.explore.unit import UnitResult

FOREVER_S: Final = 1e9
"""What a worker is given without a budget, in seconds."""


class _Whole:
    """The search of one scenario."""

    def __init__(self, target: str, scenario: Scenario, plan: Plan) -> None:
        self.target = target
        self.scenario = scenario
        self.search = Search(scenario, plan)
        taken = self.search.take()
        assert taken is not None
        self.ticket: Any
        self.ticket, self.unit = taken
        self.begun = time.time()
        self.done: Finished | None = None

    def submit(self, workers: Workers, seconds: float) -> Future[list[UnitResult]]:
        self.begun = time.time()
        spec = spec_of(self.target, self.scenario)
        return workers.submit(spec, [self.unit], seconds)

    def finish(self, result: UnitResult) -> None:
        """Take the result; a failure is confirmed and minimised here."""
        self.search.give(self.ticket, result)
        outcome = self.search.finish()
        self.done = Finished(self.target, self.scenario, outcome, time.time() - self.begun)

    def interrupted(self) -> Finished:
        """What is known without the worker."""
        self.search.stop()
        seconds = time.time() - self.begun
        return Finished(self.target, self.scenario, self.search.outcome, seconds, True)


def search_whole(
    targets: Sequence[tuple[str, Scenario]],
    plan: Plan,
    workers: Workers,
    stopping: Stopping,
    finished: list[Finished],
    show: Callable[[Finished], None],
    progress: SearchProgress,
) -> None:
    """Search scenarios and `show` them in their order; after Ctrl-C up to the first not done."""
    wholes = [_Whole(target, scenario, plan) for target, scenario in targets]
    left = wholes[:]
    waiting: dict[Future[list[UnitResult]], _Whole] = {}
    renewals = 0
    while (left or waiting) and not stopping.interrupted:
        try:
            while left and len(waiting) <= workers.size:
                seconds = _share(stopping, len(left) + len(waiting), workers.size)
                future = left[0].submit(workers, seconds)
                waiting[future] = left.pop(0)
            for future in wait(waiting, POLL_S, FIRST_COMPLETED)[0]:
                (result,) = future.result()
                whole = waiting.pop(future)
                whole.finish(result)
                progress.end(wholes.index(whole))
        except workers.lost as lost:
            renewals += 1
            if renewals > RENEWALS_MAX:
                raise UsageError(f"workers died {renewals} times: {lost}") from None
            workers.renew()
            left = [*waiting.values(), *left]
            waiting.clear()
        while len(finished) < len(wholes) and (done := wholes[len(finished)].done) is not None:
            finished.append(done)
            show(done)
        if waiting:
            progress.waiting([whole.scenario.name for whole in waiting.values()])
    progress.clear()
    if stopping.interrupted and len(finished) < len(wholes):
        finished.append(wholes[len(finished)].interrupted())
        show(finished[-1])


def _share(stopping: Stopping, searches: int, workers: int) -> float:
    """How long one of so many searches may take, in seconds."""
    if stopping.end is None:
        return FOREVER_S
    return max(0.0, stopping.end - time.time()) * min(workers, searches) / searches
