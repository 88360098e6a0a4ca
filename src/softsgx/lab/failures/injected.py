"""What all failures have in common: the two threads, and how a runtime tries to repair."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from softsgx.lab.failures.stage import PAGES, SECONDS_CPU, TARGET, Stage
from softsgx.sim import Follow, RunToCompletion, Scheduler, Steps
from softsgx.spec.epcm import PENDING, R
from softsgx.spec.status import SGX_PAGE_NOT_MODIFIABLE

_REPAIRS: Final = 3


class InjectedFailure:
    """One failure. `at_page`: the page where it happens, if the call can name a page."""

    name: ClassVar[str]
    about: ClassVar[str]
    asked: ClassVar[int] = R
    at_page: ClassVar[int | None] = TARGET
    # Whether to try a repair, because the failure leaves pages without the rights asked for.
    repairs: ClassVar[bool] = True

    def prepare(self, stage: Stage) -> None:
        """Commit the pages and set up the failure."""
        stage.commit(range(PAGES))

    def caller(self, stage: Stage) -> Steps[None]:
        """Ask, let the second thread act, accept what the call reported as done."""
        answer = yield from stage.ask()
        stage.returned.set()
        yield from stage.disturbed.wait()
        if not answer.errno:
            yield from stage.accept(list(range(PAGES)))

    def second(self, stage: Stage) -> Steps[None]:
        """Read all pages once the call has returned."""
        yield from stage.returned.wait()
        for page in range(PAGES):
            if not stage.word(page) & PENDING:
                yield from stage.read(stage.second, page)
        stage.disturbed.set()

    def scheduler(self, stage: Stage) -> Scheduler:
        """Which thread runs next."""
        return RunToCompletion()

    def disarm(self, stage: Stage) -> None:
        """End the injected failure, if it is a temporary one."""

    def afterwards(self, stage: Stage) -> None:
        """Do what must work however the call ended."""

    def run(self, stage: Stage, schedule: str | None = None) -> str:
        """Prepare and play; returns the schedule."""
        stage.remark("the pages are made ready:")
        self.prepare(stage)
        stage.remark(f"{self.about}:")
        scheduler = Follow(schedule) if schedule else self.scheduler(stage)
        tasks = {
            "caller": (self.caller(stage), 0),
            "second": (self.second(stage), SECONDS_CPU),
        }
        return stage.play(scheduler, tasks)

    def repair(self, stage: Stage) -> None:
        """Repair what a runtime can repair from what it was told, in at most three attempts."""
        self.disarm(stage)
        stage.machine.run(self._repair(stage))

    def _repair(self, stage: Stage) -> Steps[None]:
        for _ in range(_REPAIRS):
            answer = stage.facts.answers[-1]
            refused = [page for page, status in stage.facts.accepts.items() if status != 0]
            if not answer.errno and stage.facts.accepts and not refused:
                return
            first = 0
            if answer.done is not None and answer.errno:
                first = answer.done
                if answer.result == SGX_PAGE_NOT_MODIFIABLE:
                    # The only thing that a runtime can do with such a page is EACCEPT.
                    def program(t: Any, page: int = first) -> Steps[None]:
                        status = yield from t.accept_new(stage.address(page))
                        stage.facts.accepts[page] = int(status)

                    yield from stage.try_inside(stage.caller, program, first, "EACCEPT", True)
            answer = yield from stage.ask(first, PAGES - first)
            if not answer.errno:
                yield from stage.accept(list(range(PAGES)))
