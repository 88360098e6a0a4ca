"""Exploring with several processes: they work on the units that `explore.split.Search` hands out.

A worker gives back what is left of a unit after `SECONDS`, so that others can take it. Which units
there are depends on that; the executions do not, nor does the outcome.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, NamedTuple

from softsgx.cli.errors import UsageError
from softsgx.cli.scenarios import find
from softsgx.explore.explorer import Outcome, Plan, Progress
from softsgx.explore.scenario import Scenario
from softsgx.explore.split import Search
from softsgx.explore.unit import Part, Unit, work

SECONDS: Final = 0.5
RESTARTS_MAX: Final = 20

# In a worker: the scenario it works on, made at its first unit.
_made: dict[tuple[str, str], Scenario] = {}


class Task(NamedTuple):
    """What is the same for all units: the target, the scenario's name, when the time is over."""

    target: str
    name: str
    end: float | None


def explore_with(
    jobs: int,
    target: str,
    scenario: Scenario,
    plan: Plan,
    seconds: float | None,
    progress: Progress | None = None,
) -> Outcome:
    """As `explore`, on so many processes. The outcome does not depend on their number.

    Only if the time runs out it does: then it says how far they came.
    """
    end = None if seconds is None else time.time() + seconds
    search = Search(scenario, plan)
    workers = _Workers(jobs, Task(target, scenario.name, end))
    try:
        workers.work(search, progress)
    finally:
        workers.close()
    return search.finish()


class _Workers:
    """Worker processes. One that dies is replaced, and all units in progress done again."""

    def __init__(self, jobs: int, task: Task) -> None:
        self._jobs = jobs
        self._task = task
        self._pool = self._fresh()

    def _fresh(self) -> ProcessPoolExecutor:
        # Spawned: a forked one would inherit whatever this process is in the middle of. Footprints
        # may hold hashes of strings, which have to be the same in all of them.
        os.environ.setdefault("PYTHONHASHSEED", "0")
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._jobs, context, initializer=_deaf)

    def close(self) -> None:
        """End the workers, in the middle of a unit if need be."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def work(self, search: Search, progress: Progress | None) -> None:
        """Until the search is over."""
        waiting: dict[Future[Part], tuple[Any, Unit]] = {}
        restarts = 0
        while not search.over:
            try:
                self._fill(search, waiting)
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    part = future.result()
                    search.give(waiting.pop(future)[0], part)
                if progress is not None:
                    progress(search.outcome)
            except BrokenProcessPool:
                restarts += 1
                if restarts > RESTARTS_MAX:
                    raise UsageError(f"--jobs: workers died {restarts} times") from None
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = self._fresh()
                again = list(waiting.values())
                waiting.clear()
                for ticket, unit in again:
                    waiting[self._submit(unit)] = ticket, unit

    def _fill(self, search: Search, waiting: dict[Future[Part], tuple[Any, Unit]]) -> None:
        """Each worker has a unit, and one more waits."""
        while len(waiting) <= self._jobs:
            taken = search.take()
            if taken is None:
                return
            waiting[self._submit(taken[1])] = taken

    def _submit(self, unit: Unit) -> Future[Part]:
        return self._pool.submit(work_on, self._task, unit)


def _deaf() -> None:
    """Workers leave the interrupt to the parent, which ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def work_on(task: Task, unit: Unit) -> Part:
    """In a worker: one unit, as far as it comes in `SECONDS`."""
    key = task.target, task.name
    if key not in _made:
        _made[key] = next(made for made in find(task.target) if made.name == task.name)
    return work(_made[key], unit, until(task.end), until(time.time() + SECONDS))


def until(end: float | None) -> Callable[[], bool]:
    """A deadline for `explore`; None never comes."""
    if end is None:
        return lambda: False
    return lambda: time.time() >= end
