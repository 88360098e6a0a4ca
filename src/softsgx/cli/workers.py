"""Exploring with several workers: what a worker does, and how the units of a `Search` reach it.

After a short time a worker returns what is left of its unit, so that others can take it. How the
search is cut into units depends on timing; the executions and the outcome do not.
"""

from __future__ import annotations

import platform
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Final, NamedTuple, Protocol

from softsgx import __version__
from softsgx.cli.errors import UsageError
from softsgx.cli.scenarios import driver_of, find
from softsgx.cli.stopping import Stopping
from softsgx.explore.explorer import Progress, abandon
from softsgx.explore.limits import Deadline, no_deadline
from softsgx.explore.outcome import Outcome
from softsgx.explore.plan import Plan
from softsgx.explore.scenario import Scenario
from softsgx.explore.split import Search
from softsgx.explore.unit import Unit, UnitResult, work

UNIT_S: Final = 0.05
"""How long a worker keeps a unit while others are idle, in seconds."""

BATCH_S: Final = 0.15
"""How long it keeps a batch of units while all are busy, in seconds."""

BATCH_UNITS: Final = 16

POLL_S: Final = 0.1
"""How often the dispatcher checks whether to stop, in seconds."""

STOP_S_MAX: Final = 5.0
"""How long to wait for workers after a stop, in seconds: one may hang in its scenario."""

RENEWALS_MAX: Final = 20


class SearchSpec(NamedTuple):
    """What all units of a search have in common.

    target, name  the target as given to `find`, and the name of the scenario in it
    text          the file, if the target is one: a worker on another machine may not have it
    identity      what the worker's `worker_identity` must be; None: not checked
    driver        the driver object on which it runs, which the worker's machine must have
    accesses      whether its accesses are points
    """

    target: str
    name: str
    text: bytes | None
    identity: tuple[str, str, int] | None = None
    driver: str | None = None
    accesses: bool = False


_Taken = tuple[Any, Unit]
"""A unit and its ticket."""


class Workers(Protocol):
    """Processes that execute units.

    size  how many work at the same time
    lost  what `submit` or a future raises when a worker has died; its units are lost
    """

    @property
    def size(self) -> int: ...

    @property
    def lost(self) -> tuple[type[BaseException], ...]: ...

    def submit(
        self, spec: SearchSpec, units: list[Unit], seconds: float, left: float | None = None
    ) -> Future[list[UnitResult]]:
        """Have a worker do `work_on`, with a deadline `left` seconds from now."""

    def renew(self) -> None:
        """Replace workers that have died; units submitted before are lost."""

    def close(self) -> None:
        """End all workers, if necessary in the middle of a unit."""


def explore_with(
    workers: Workers,
    target: str,
    scenario: Scenario,
    plan: Plan,
    stopping: Stopping,
    progress: Progress | None = None,
) -> Outcome:
    """As `explore`, with these workers.

    The outcome does not depend on the workers, except how far a stopped search has come.
    """
    search = Search(scenario, plan)
    spec = spec_of(target, scenario)
    dispatcher = _Dispatcher(workers, search, spec, stopping)
    dispatcher.work(progress)
    # finish() executes the scenario here: if it hung in a worker, it would hang here, too.
    if dispatcher.hung:
        return abandon(search.outcome, plan)
    return search.finish(stopping.finishing())


def spec_of(target: str, scenario: Scenario) -> SearchSpec:
    """What workers need of a search."""
    accesses = bool(getattr(scenario, "point_at_accesses", False))
    driver = driver_of(scenario)
    return SearchSpec(target, scenario.name, text_of(target), driver=driver, accesses=accesses)


def text_of(target: str) -> bytes | None:
    """The text of the file that a target is; None if it is no file."""
    return Path(target).read_bytes() if target.endswith(".py") else None


class _Dispatcher:
    """Keeps the workers busy with the units of one search."""

    def __init__(
        self, workers: Workers, search: Search, spec: SearchSpec, stopping: Stopping
    ) -> None:
        self._workers = workers
        self._search = search
        self._spec = spec
        self._stopping = stopping
        self._waiting: dict[Future[list[UnitResult]], list[_Taken]] = {}
        self._stopped = 0.0
        self.hung = False
        # Units taken from the search that no worker has.
        self._left: list[_Taken] = []

    def work(self, progress: Progress | None) -> None:
        """Work until the search is over or must stop."""
        renewals = 0
        while not self._search.over:
            try:
                self._fill()
                self.hung = self._too_late()
                if not self._waiting or self.hung:
                    self._search.stop()
                    return
                self._collect()
            except self._workers.lost as lost:
                renewals += 1
                if renewals > RENEWALS_MAX:
                    raise UsageError(f"workers died {renewals} times: {lost}") from None
                self._workers.renew()
                self._left = [taken for batch in self._waiting.values() for taken in batch]
                self._waiting.clear()
            if progress is not None:
                progress(self._search.outcome)

    def _fill(self) -> None:
        """Give every worker units, and keep one more batch submitted; nothing after a stop."""
        while len(self._waiting) <= self._workers.size and not self._stopping():
            idle = len(self._waiting) < self._workers.size
            batch = self._batch(1 if idle else BATCH_UNITS)
            if not batch:
                return
            seconds = UNIT_S if idle else BATCH_S
            left = None
            if self._stopping.end is not None:
                left = max(0.0, self._stopping.end - time.time())
                seconds = min(seconds, left)
            units = [unit for _ticket, unit in batch]
            self._waiting[self._workers.submit(self._spec, units, seconds, left)] = batch

    def _too_late(self) -> bool:
        if not self._stopping():
            return False
        self._stopped = self._stopped or time.time()
        return time.time() > self._stopped + STOP_S_MAX

    def _batch(self, most: int) -> list[_Taken]:
        """At most `most` units; half of the remaining ones if these are less than two batches."""
        left = self._left
        while len(left) < 2 * most:
            taken = self._search.take()
            if taken is None:
                break
            left.append(taken)
        number = min(most, (len(left) + 1) // 2)
        batch, self._left = left[:number], left[number:]
        return batch

    def _collect(self) -> None:
        done, _ = wait(self._waiting, POLL_S, FIRST_COMPLETED)
        for future in done:
            results = future.result()
            batch = self._waiting.pop(future)
            for (ticket, _unit), result in zip(batch, results, strict=False):
                self._search.give(ticket, result)
            self._left += batch[len(results) :]


# In a worker: its scenario, made at the first unit, and the executions so far. A scenario has one
# state, so threads of one worker take turns.
_copies: list[TemporaryDirectory[str]] = []  # removed at the end of the worker
_made: dict[SearchSpec, Scenario] = {}
_done: dict[SearchSpec, int] = {}
_turn = Lock()


def work_on(
    spec: SearchSpec,
    units: list[Unit],
    seconds: float,
    left: float | None = None,
    end: float | None = None,
) -> list[UnitResult]:
    """In a worker: execute units for up to `seconds`; only units that were begun have a result.

    `seconds` counts between executions. An execution in progress is cut after `left` seconds, or at
    the time `end` by the clock of this machine.
    """
    with _turn:
        deadline: Deadline = no_deadline if left is None and end is None else Stopping(left)
        if isinstance(deadline, Stopping) and end is not None:
            deadline.end = end
        scenario = _made.get(spec)
        if scenario is None:
            if spec.identity is not None and worker_identity() != spec.identity:
                raise UsageError(
                    f"a worker differs from the others: {worker_identity()}, {spec.identity}"
                )
            found = find(_local_target(spec), spec.driver, accesses=spec.accesses)
            named = [made for made in found if made.name == spec.name]
            if not named:
                has = ", ".join(made.name for made in found)
                raise UsageError(f"a worker has {has}, not {spec.name}")
            scenario = _made[spec] = named[0]
        pause = Stopping(seconds)
        results: list[UnitResult] = []
        for unit in units:
            if results and pause():
                break
            result = work(scenario, unit, pause, _done.get(spec, 0), deadline)
            _done[spec] = _done.get(spec, 0) + result.executions
            results.append(result)
        return results


def _local_target(spec: SearchSpec) -> str:
    """The target; or a copy of the file, if this machine has no such file at that path."""
    if spec.text is None:
        return spec.target
    path = Path(spec.target)
    if path.is_file() and path.read_bytes() == spec.text:
        return spec.target
    copies = TemporaryDirectory(prefix="softsgx-")
    _copies.append(copies)
    copy = Path(copies.name) / path.name
    copy.write_bytes(spec.text)
    return str(copy)


def worker_identity() -> tuple[str, str, int]:
    """What all workers must have in common: versions, and how strings are hashed.

    Footprints hold hashes, and the order of a set depends on them.
    """
    return __version__, platform.python_version(), hash("softsgx")
