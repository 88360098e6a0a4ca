"""The failures. Each is injected in the same way into every design."""

from __future__ import annotations

from typing import Any, Final

from softsgx.cpu.fault import Status
from softsgx.cpu.lp import LogicalProcessor
from softsgx.lab.failures.injected import InjectedFailure
from softsgx.lab.failures.meeting import InUse
from softsgx.lab.failures.stage import OTHERS_CPU, PAGES, TARGET, Stage
from softsgx.lab.measured import MeasuredHost
from softsgx.linux import syscalls
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.sim import Follow, Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PENDING, R, W
from softsgx.spec.status import SGX_PREV_TRK_INCMPL
from softsgx.system.loaded_enclave import EnclaveFault


class Pending(InjectedFailure):
    """Page TARGET was added by a fault and is not accepted yet, so EMODPR fails on it."""

    name = "pending"
    about = "EMODPR refused at page 2: it is PENDING"

    def prepare(self, stage: Stage) -> None:
        """Commit all pages but TARGET; touch TARGET once."""
        stage.commit([page for page in range(PAGES) if page != TARGET])

        def touch(t: Any) -> Steps[None]:
            yield from t.load(stage.address(TARGET), 8)

        try:
            stage.machine.run(stage.inside(stage.second, touch))
        except EnclaveFault:
            return
        raise AssertionError("a page that is PENDING could be read")

    def afterwards(self, stage: Stage) -> None:
        """The enclave accepts the page that it touched."""
        if not stage.word(TARGET) & PENDING:
            return

        def accept(t: Any) -> Steps[None]:
            yield from t.accept_new(stage.address(TARGET))

        steps = stage.try_inside(stage.caller, accept, TARGET, "EACCEPT of the new page", True)
        stage.machine.run(steps)


class TrackingFails(InjectedFailure):
    """ETRACK fails twice after the EMODPR of page TARGET: the retry fails, too."""

    name = "etrack"
    about = "ETRACK and its retry fail after EMODPR of page 2"

    def prepare(self, stage: Stage) -> None:
        """Have ETRACK fail from the EMODPR of the page on."""
        super().prepare(stage)
        processor = stage.machine.processor
        entry = stage.encl.page(stage.address(TARGET))
        assert entry is not None
        assert entry.epc_page is not None
        target = entry.epc_page.address
        name_of, emodpr = processor.encls_leaves[leaves.EMODPR]
        _, etrack = processor.encls_leaves[leaves.ETRACK]
        self._original = processor.encls_leaves
        left = [0]

        def watched(lp: LogicalProcessor, rbx: int, rcx: int, rdx: int) -> Status | None:
            if rcx == target:
                left[0] = 2
            return emodpr(lp, rbx, rcx, rdx)

        def failing(lp: LogicalProcessor, rbx: int, rcx: int, rdx: int) -> Status | None:
            if left[0]:
                left[0] -= 1
                return Status(SGX_PREV_TRK_INCMPL, "injected")
            return etrack(lp, rbx, rcx, rdx)

        processor.encls_leaves = {
            **processor.encls_leaves,
            leaves.EMODPR: (name_of, watched),
            leaves.ETRACK: ("ETRACK", failing),
        }

    def disarm(self, stage: Stage) -> None:
        """ETRACK works again."""
        stage.machine.processor.encls_leaves = self._original


class SplitFails(InjectedFailure):
    """The second split of the VMA fails for lack of memory; the first one stays."""

    name = "vma-split"
    about = "the second split of the VMA fails"
    at_page = None

    def prepare(self, stage: Stage) -> None:
        """Fail at the second split."""
        super().prepare(stage)
        splits = [0]

        def inject(site: str) -> bool:
            splits[0] += site == "split_vma"
            return site == "split_vma" and splits[0] == 2

        stage.kernel.inject = inject

    def disarm(self, stage: Stage) -> None:
        """Memory is available again."""
        stage.kernel.inject = None


class ExtendedBetween(InjectedFailure):
    """After the call has returned, another thread extends page TARGET to RW, which is permitted."""

    name = "emodpe-between"
    about = "a second thread extends page 2 by EMODPE between the call and the first touch"
    at_page = None
    repairs = False

    def second(self, stage: Stage) -> Steps[None]:
        """EMODPE(RW) of TARGET, then reads of all."""
        yield from stage.returned.wait()
        yield from stage.extend(stage.second, TARGET, R | W)
        for page in range(PAGES):
            yield from stage.read(stage.second, page)
        stage.disturbed.set()


class Reclaimed(InjectedFailure):
    """Restricted, accepted, extended to RW again; then the page is swapped out and touched."""

    name = "reclaimed"
    about = "page 2 is RW again, is reclaimed and faulted in"
    at_page = None
    repairs = False

    def caller(self, stage: Stage) -> Steps[None]:
        """The whole change to R and, for TARGET, back to RW; then it is reclaimed."""
        answer = yield from stage.ask()
        if not answer.errno:
            yield from stage.accept(list(range(PAGES)))
        yield from stage.mprotect(stage.caller, TARGET, 1, R | W)
        if stage.resets_to_read:
            yield from stage.accept([TARGET], R)
        yield from stage.extend(stage.caller, TARGET, R | W)
        entry = stage.encl.page(stage.address(TARGET))
        assert entry is not None
        for _ in range(64):
            if entry.epc_page is None:
                break
            yield from sgx_reclaim_pages(stage.caller.thread)
        assert entry.epc_page is None, "the page was not reclaimed"
        stage.returned.set()
        yield from stage.disturbed.wait()

    def second(self, stage: Stage) -> Steps[None]:
        """A read brings the page back; a write uses the right that EMODPE added."""
        yield from stage.returned.wait()
        yield from stage.read(stage.second, TARGET)
        yield from stage.write(stage.second, TARGET)
        stage.disturbed.set()


class TwoProcesses(InjectedFailure):
    """One of two processes that share the enclave calls mprotect(R); the other one writes."""

    name = "two-processes"
    about = "mprotect(R) in one of two processes that share the enclave; the other writes page 2"
    at_page = None
    repairs = False

    def prepare(self, stage: Stage) -> None:
        """Fork; the child has its own VMAs, RW, and touches the page."""
        super().prepare(stage)
        stage.machine.run(self._fork(stage))

    def _fork(self, stage: Stage) -> Steps[None]:
        thread = yield from syscalls.sys_fork(stage.caller.thread, "other process", OTHERS_CPU)
        other = MeasuredHost.__new__(MeasuredHost)
        other.kernel, other.thread = stage.kernel, thread
        thread.switch_in()
        yield from other.prepare()
        self.other = other
        yield from stage.write(other, TARGET)

    def caller(self, stage: Stage) -> Steps[None]:
        """mprotect() alone, which concerns this address space only; then a read of each page."""
        yield from stage.mprotect(stage.caller, 0, PAGES, R)
        stage.facts.entitled.update(dict.fromkeys(range(PAGES), R | W))
        for page in range(PAGES):
            yield from stage.read(stage.caller, page)
        stage.returned.set()
        yield from stage.disturbed.wait()

    def second(self, stage: Stage) -> Steps[None]:
        """The other process writes."""
        yield from stage.returned.wait()
        yield from stage.write(self.other, TARGET)
        stage.disturbed.set()

    def run(self, stage: Stage, schedule: str | None = None) -> str:
        """The second task is the other process."""
        self.prepare(stage)
        scheduler = Follow(schedule) if schedule else self.scheduler(stage)
        tasks = {"caller": (self.caller(stage), 0), "other": (self.second(stage), OTHERS_CPU)}
        return stage.play(scheduler, tasks)


class Unmapped(InjectedFailure):
    """The range has no VMA when it is to be restricted."""

    name = "unmapped"
    about = "the range is not mapped when it is to be restricted"
    at_page = None
    repairs = False

    def prepare(self, stage: Stage) -> None:
        """Unmap the four pages."""
        super().prepare(stage)
        stage.machine.run(stage.caller.munmap(stage.address(0), PAGES * PAGE_SIZE))

    def caller(self, stage: Stage) -> Steps[None]:
        """The restricting call alone: there is no VMA that mprotect() could change."""
        yield from stage.ask_only(0, PAGES, stage.asked)

    def second(self, stage: Stage) -> Steps[None]:
        """Nothing: the pages are not mapped."""
        return
        yield


class Nothing(InjectedFailure):
    """Rights NONE are asked for: no thread may read the pages, which EACCEPT verifies."""

    name = "rights-none"
    about = "rights NONE are asked for"
    asked = 0
    at_page = None

    def caller(self, stage: Stage) -> Steps[None]:
        """Ask and accept; if the call leaves the VMA alone, mprotect() closes it after EACCEPT."""
        answer = yield from stage.ask()
        if not answer.errno:
            yield from stage.accept(list(range(PAGES)))
        if not stage.by_mprotect:
            yield from stage.mprotect(stage.caller, 0, PAGES, 0)
        stage.returned.set()
        yield from stage.disturbed.wait()

    def second(self, stage: Stage) -> Steps[None]:
        """No access: nothing may be read."""
        yield from stage.returned.wait()
        stage.disturbed.set()


FAILURES: Final[dict[str, type[InjectedFailure]]] = {
    failure.name: failure
    for failure in (
        Pending,
        InUse,
        TrackingFails,
        SplitFails,
        ExtendedBetween,
        Reclaimed,
        TwoProcesses,
        Unmapped,
        Nothing,
    )
}
