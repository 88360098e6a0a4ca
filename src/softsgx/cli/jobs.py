"""Exploring with several processes: units of `explore.split`, each worked on by one of them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from softsgx.cli.errors import UsageError
from softsgx.cli.scenarios import find
from softsgx.explore.explorer import Outcome, Plan
from softsgx.explore.scenario import Scenario
from softsgx.explore.split import Part, Round, Unit, finish, gather, rounds, work

RESTARTS_MAX: Final = 20

# In a worker: the scenario it works on, made at its first unit.
_made: dict[tuple[str, str], Scenario] = {}


def explore_with(
    jobs: int, target: str, scenario: Scenario, plan: Plan, seconds: float | None
) -> Outcome:
    """As `explore`, on so many processes. The outcome does not depend on their number.

    Only if the time runs out it does: then it says how far they came.
    """
    outcome = Outcome(scenario.name, plan.strategy)
    end = None if seconds is None else time.time() + seconds
    pool = _Pool(jobs, target, scenario.name, end)
    try:
        for turn in rounds(scenario, plan):
            parts = pool.run(turn) if turn.before.failure is None else []
            if not gather(outcome, turn, parts) or outcome.executions >= plan.executions:
                break
            if end is not None and time.time() >= end:
                outcome.stopped = True
                break
    finally:
        pool.close()
    return finish(scenario, outcome, plan)


class _Pool:
    """Worker processes. One that dies is replaced, and its unit done again by another."""

    def __init__(self, jobs: int, target: str, name: str, end: float | None) -> None:
        self._jobs = jobs
        self._call: tuple[str, str, float | None] = (target, name, end)
        self._pool = self._fresh()

    def _fresh(self) -> ProcessPoolExecutor:
        # Spawned: a forked one would inherit whatever this process is in the middle of.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._jobs, mp_context=context)

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, turn: Round) -> Sequence[Part | None]:
        """The parts of all units, in order; behind the first failure some may be missing."""
        parts: list[Part | None] = [None] * len(turn.units)
        restarts = 0
        while True:
            try:
                self._run(turn.units, parts)
                return parts
            except BrokenProcessPool:
                restarts += 1
                if restarts > RESTARTS_MAX:
                    raise UsageError(f"--jobs: workers died {restarts} times") from None
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = self._fresh()

    def _run(self, units: Sequence[Unit], parts: list[Part | None]) -> None:
        """Work on every unit that has no part yet, unless an earlier one has failed."""
        waiting: dict[Future[Part], int] = {}
        todo = [place for place in range(len(units)) if parts[place] is None]
        last = min((p for p, part in enumerate(parts) if part and part.failure), default=len(units))
        while todo or waiting:
            while todo and len(waiting) < 2 * self._jobs:
                place = todo.pop(0)
                if place < last:
                    waiting[self._pool.submit(_work, *self._call, units[place])] = place
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                place = waiting.pop(future)
                part = parts[place] = future.result()
                if part.failure is not None:
                    last = min(last, place)


def _work(target: str, name: str, end: float | None, unit: Unit) -> Part:
    """In a worker."""
    key = (target, name)
    if key not in _made:
        _made[key] = next(made for made in find(target) if made.name == name)
    return work(_made[key], unit, until(end))


def until(end: float | None) -> Callable[[], bool]:
    """A deadline for `explore`; None never comes."""
    if end is None:
        return lambda: False
    return lambda: time.time() >= end
