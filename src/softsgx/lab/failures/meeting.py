"""The failure that needs two threads at one page at the same time, and its scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from softsgx.lab.failures.injected import InjectedFailure
from softsgx.lab.failures.stage import TARGET, Stage
from softsgx.sim import LOCK, RunToCompletion, Scheduler, Steps, Task
from softsgx.spec.epcm import R
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT

# The second thread is inside and about to execute its leaf.
READY: Final = "ready"


class InUse(InjectedFailure):
    """A leaf of the second thread is on page TARGET when EMODPR comes to it.

    When the caller is about to take the enclave's mutex for the `meeting`-th time, the second
    thread runs until it is in the `attempt`-th execution of its EMODPE (the first may fault). All
    pairs of numbers are tried until EMODPR meets the leaf.
    """

    name = "in-use"
    about = "EMODPR refused at page 2: another thread's EMODPE is on it"

    def __init__(self, meeting: int = 1, attempt: int = 1) -> None:
        self.meeting = meeting
        self.attempt = attempt
        self.met = False
        self.refused = False

    def second(self, stage: Stage) -> Steps[None]:
        """EMODPE of a right that the page has: it changes nothing but uses the page."""

        def program(t: Any) -> Steps[None]:
            # Touch the SECINFO first: a fault on it would wait for the caller's mmap_lock.
            yield from t.store(t.secinfo, bytes(8))
            yield (READY, "EMODPE", False)
            yield from t.emodpe(stage.address(TARGET), R)

        yield from stage.try_inside(stage.second, program, TARGET, "EMODPE", True)
        yield from super().second(stage)

    def run(self, stage: Stage, schedule: str | None = None) -> str:
        """Run, and note whether EMODPR is refused because of the conflict."""
        stage.on_leaf("EMODPR", self._watch)
        return super().run(stage, schedule)

    def _watch(self, status: int) -> None:
        self.refused = self.refused or status == SGX_EPC_PAGE_CONFLICT

    def scheduler(self, stage: Stage) -> Scheduler:
        """The caller up to the meeting, the second thread into its leaf, then the caller again."""
        return _Meeting(self, stage)


class _Meeting:
    """Runs the second thread until it is ready, then the caller, except at the meeting.

    Interrupts run first.
    """

    def __init__(self, failure: InUse, stage: Stage) -> None:
        self._failure = failure
        self._lock = stage.encl.lock
        self._left = failure.meeting
        self._attempts = failure.attempt
        self._moved = False
        self._counted = False
        self._ready = False
        self._rest = RunToCompletion()

    def begin(self) -> bool:
        """As RunToCompletion."""
        return self._rest.begin()

    def draw(self, n: int, what: str) -> int:
        """Always 0."""
        return 0

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """As the class says."""
        by_name = {task.name: task for task in enabled}
        for task in enabled:
            if task.interrupt:
                return task
        caller, second = by_name.get("caller"), by_name.get("second")
        if caller is None:
            return enabled[0]
        if not self._ready and second is not None:
            self._ready = second.point[0] == READY
            if not self._ready:
                return second
        at_lock = caller.point[0] == LOCK and caller.point[1] is self._lock
        if at_lock and not self._counted:
            self._left -= 1
        self._counted = at_lock
        if second is not None and self._moved and second.point[0] == "EMODPE":
            self._attempts -= 1
        self._moved = False
        if self._left or second is None or not self._attempts or not at_lock:
            return caller
        self._failure.met = self._moved = True
        return second
