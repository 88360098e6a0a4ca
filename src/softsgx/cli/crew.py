"""Exploring with several workers: what they do, and who sends them the units of a `Search`.

A worker gives back what is left of a unit after a while, so that others can take it. Which units
there are depends on that; the executions do not, nor does the outcome.
"""

from __future__ import annotations

import platform
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from tempfile import mkdtemp
from threading import Lock
from typing import Any, Final, NamedTuple, Protocol

from softsgx import __version__
from softsgx.cli.errors import UsageError
from softsgx.cli.scenarios import find
from softsgx.cli.stopping import Stopping
from softsgx.explore.explorer import Progress
from softsgx.explore.outcome import Outcome
from softsgx.explore.plan import Plan
from softsgx.explore.scenario import Scenario
from softsgx.explore.split import Search
from softsgx.explore.unit import Unit, UnitResult, work

HUNGRY: Final = 0.05
"""Seconds for a unit while there is too little to do for all workers."""

SATED: Final = 0.15
"""Seconds for a batch of units while there is enough."""

BATCH: Final = 16

PATIENCE: Final = 0.1

GRACE: Final = 5.0
"""Seconds that workers have to come back when it is to stop; one may hang in its scenario."""

RENEWALS_MAX: Final = 20


class Task(NamedTuple):
    """What is the same for all units.

    target, name  as for `find`, and the scenario of it
    text          of the file, if the target is one: a worker elsewhere may not have it
    like          what `likeness` of the worker must be, if that is to be looked at
    """

    target: str
    name: str
    text: bytes | None
    like: tuple[str, str, int] | None = None


_Taken = tuple[Any, Unit]
"""A unit and its ticket."""


class Crew(Protocol):
    """Workers.

    size  how many work at the same time
    lost  what a future or `submit` raises when some have died, with the units they had
    """

    @property
    def size(self) -> int: ...

    @property
    def lost(self) -> tuple[type[BaseException], ...]: ...

    def submit(self, task: Task, units: list[Unit], seconds: float) -> Future[list[UnitResult]]:
        """Have one of them do `work_on`."""

    def renew(self) -> None:
        """Replace those that have died; what was submitted before is forgotten."""

    def close(self) -> None:
        """Leave nothing running, in the middle of a unit if need be."""


def explore_with(
    crew: Crew,
    target: str,
    scenario: Scenario,
    plan: Plan,
    stopping: Stopping,
    progress: Progress | None = None,
) -> Outcome:
    """As `explore`, with such workers. The outcome does not depend on them.

    Only if it is stopped it does: then it says how far they came.
    """
    search = Search(scenario, plan)
    text = Path(target).read_bytes() if target.endswith(".py") else None
    foreman = _Foreman(crew, search, Task(target, scenario.name, text), stopping)
    foreman.work(progress)
    # What hangs in a worker would hang here, too.
    return search.outcome if foreman.hung else search.finish()


class _Foreman:
    """Keeps a crew busy with the units of one search."""

    def __init__(self, crew: Crew, search: Search, task: Task, stopping: Stopping) -> None:
        self._crew = crew
        self._search = search
        self._task = task
        self._stopping = stopping
        self._waiting: dict[Future[list[UnitResult]], list[_Taken]] = {}
        self._stopped = 0.0
        self.hung = False
        # Taken, and nobody has them.
        self._left: list[_Taken] = []

    def work(self, progress: Progress | None) -> None:
        """Until the search is over, or is to stop."""
        renewals = 0
        while not self._search.over:
            try:
                self._fill()
                self.hung = self._too_late()
                if not self._waiting or self.hung:
                    self._search.stop()
                    return
                self._collect()
            except self._crew.lost as lost:
                renewals += 1
                if renewals > RENEWALS_MAX:
                    raise UsageError(f"workers died {renewals} times: {lost}") from None
                self._crew.renew()
                self._left = [taken for batch in self._waiting.values() for taken in batch]
                self._waiting.clear()
            if progress is not None:
                progress(self._search.outcome)

    def _fill(self) -> None:
        """Each worker has something, and one batch more waits; none is added when it is to stop."""
        while len(self._waiting) <= self._crew.size and not self._stopping():
            hungry = len(self._waiting) < self._crew.size
            batch = self._batch(1 if hungry else BATCH)
            if not batch:
                return
            seconds = HUNGRY if hungry else SATED
            if self._stopping.end is not None:
                seconds = max(0.0, min(seconds, self._stopping.end - time.time()))
            units = [unit for _ticket, unit in batch]
            self._waiting[self._crew.submit(self._task, units, seconds)] = batch

    def _too_late(self) -> bool:
        if not self._stopping():
            return False
        self._stopped = self._stopped or time.time()
        return time.time() > self._stopped + GRACE

    def _batch(self, most: int) -> list[_Taken]:
        """So many units; of fewer than twice as many, half."""
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
        # Now and then it looks whether it is to stop.
        done, _ = wait(self._waiting, PATIENCE, FIRST_COMPLETED)
        for future in done:
            results = future.result()
            batch = self._waiting.pop(future)
            for (ticket, _unit), result in zip(batch, results, strict=False):
                self._search.give(ticket, result)
            self._left += batch[len(results) :]


# In a worker: the scenario it works on, made at its first unit, and the executions so far. It has
# one state, and so has what it is made of: threads of one worker take turns.
_made: dict[Task, Scenario] = {}
_done: dict[Task, int] = {}
_turn = Lock()


def work_on(task: Task, units: list[Unit], seconds: float) -> list[UnitResult]:
    """In a worker: some units, as far as it comes in so many seconds; those not begun are left."""
    with _turn:
        scenario = _made.get(task)
        if scenario is None:
            if task.like is not None and likeness() != task.like:
                raise UsageError(f"a worker is not like the others: {likeness()}, {task.like}")
            found = find(_placed(task))
            scenario = _made[task] = next(made for made in found if made.name == task.name)
        pause = Stopping(seconds)
        results: list[UnitResult] = []
        for unit in units:
            if results and pause():
                break
            result = work(scenario, unit, pause, _done.get(task, 0))
            _done[task] = _done.get(task, 0) + result.executions
            results.append(result)
        return results


def _placed(task: Task) -> str:
    """The target; a file of another text, or none, in its place is passed by."""
    if task.text is None:
        return task.target
    path = Path(task.target)
    if path.is_file() and path.read_bytes() == task.text:
        return task.target
    copy = Path(mkdtemp(prefix="softsgx-")) / path.name
    copy.write_bytes(task.text)
    return str(copy)


def likeness() -> tuple[str, str, int]:
    """What must be the same for all workers: versions, and hashes of strings.

    Footprints hold hashes, and a set is gone through in their order.
    """
    return __version__, platform.python_version(), hash("softsgx")
