"""The stage of a failure: one enclave, a caller that restricts four of its pages, a second thread.

By the design's call, the caller asks the kernel to restrict pages 0 to 3 from RW to the rights
`asked`; the pages before and after them stay RW. TARGET is the page at which something goes wrong.
What the threads meet and are told is recorded in `facts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from softsgx.events.cpu import AccessFaulted, LeafDone, LeafFaulted, Left
from softsgx.lab.designs import DESIGNS
from softsgx.lab.designs.base import BY_V2, TO_READ, MprotectDesign
from softsgx.lab.designs.ioctl_v2 import IoctlV2
from softsgx.lab.enclaves import with_hole
from softsgx.lab.measured import MeasuredHost, MeasuredThread, Seat
from softsgx.linux.errno import errno_text
from softsgx.linux.mm import Mm
from softsgx.linux.sgx.driver import encl_of
from softsgx.linux.version import NO_RACES
from softsgx.mem.tlb import CLEAN, FETCH, READ, WRITE
from softsgx.sim import Event, Execution, Follow, Scheduler, Steps, Unmodelled, WaitFlag
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X, word_text
from softsgx.spec.faults import PF
from softsgx.spec.status import status_name
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.loader import load
from softsgx.system.machine import Machine

PAGES: Final = 4
TARGET: Final = 2
# Number of other pages before the four pages in one VMA, and after them.
_MARGIN: Final = 2
SECONDS_CPU: Final = 1
OTHERS_CPU: Final = 2
# A thread that ended by an exception keeps its TCS busy: the next entry takes another TCS.
_TCS_PAGES: Final = 40


class Answer(NamedTuple):
    """The answer of a call: errno; status and pages done if the call has such fields."""

    call: str
    errno: int
    result: int | None = None
    done: int | None = None

    def text(self) -> str:
        """The answer as text."""
        parts = [f"{self.call}: {errno_text(self.errno) if self.errno else 'success'}"]
        if self.done is not None:
            parts.append(f"result {status_name(self.result or 0)}, {self.done} pages done")
        return ", ".join(parts)


class MetFault(NamedTuple):
    """A fault: the thread, the page, what it was doing, and the error code."""

    who: str
    page: int
    doing: str
    code: int


@dataclass
class Facts:
    """What happened, in order. `accepts`: page -> the status of its EACCEPT, or None at a fault."""

    answers: list[Answer] = field(default_factory=list)
    accepts: dict[int, int | None] = field(default_factory=dict)
    undeserved: list[MetFault] = field(default_factory=list)
    other_faults: list[MetFault] = field(default_factory=list)
    unmodelled: str = ""
    # Rights that a page must have at the end, if not those asked for.
    entitled: dict[int, int] = field(default_factory=dict)


class Stage:
    """A machine with one design, an enclave with its pages committed RW, and the facts."""

    def __init__(self, design: str, asked: int = R) -> None:
        self.design = DESIGNS[design]()
        self.asked = asked
        # L4 is not a race between threads: it is how the merged ioctl counts, part of the design.
        races = {name: False for name in NO_RACES if name != "etrack_failure_uncounted"}
        self.machine = Machine(cpus=3, epc="2M", linux=self.design.linux, races=races)
        self.kernel = self.machine.kernel
        self.kernel.design = self.design
        self.facts = Facts()
        process = self.machine.process("runtime")
        self.caller = MeasuredHost(self.kernel, process, "caller", 0)
        self.second = MeasuredHost(self.kernel, process, "second", SECONDS_CPU)
        self.enclave = self.machine.run(
            load(self.caller, with_hole(_TCS_PAGES, PAGES + 2 * _MARGIN))
        )
        self.enclave.thread_type = MeasuredThread
        self.encl = encl_of(process.files[self.enclave.fd])
        self.returned = WaitFlag("the call returned")
        self.disturbed = WaitFlag("the second thread is done")
        self.mm: Mm = process.mm
        self._lines: list[str] | None = None
        self._tcs = iter(range(_TCS_PAGES))
        self.machine.run(self._prepare())
        self.areas_before = len(self.mm.vmas)

    def address(self, page: int) -> int:
        """The linear address of a page of the four."""
        return self.enclave.heap + (_MARGIN + page) * PAGE_SIZE

    def _prepare(self) -> Steps[None]:
        for host in (self.caller, self.second):
            yield from host.prepare()
        length = (PAGES + 2 * _MARGIN) * PAGE_SIZE
        yield from self.caller.mprotect(self.enclave.heap, length, R | W)

    def commit(self, pages: range | list[int]) -> None:
        """EACCEPT fresh pages."""

        def program(t: Any) -> Steps[None]:
            for page in pages:
                status = yield from t.accept_new(self.address(page))
                assert status == 0

        self.machine.run(self.inside(self.caller, program))

    def on_leaf(self, leaf: str, note: Callable[[int], None]) -> None:
        """Call `note` with the status of every such leaf."""

        def listen(event: Event) -> None:
            if isinstance(event, LeafDone) and event.leaf == leaf:
                note(event.status)

        self.machine.processor.log.subscribe(listen)

    def tell(self, lines: list[str]) -> None:
        """Write every call, leaf and refused access to `lines`, equal adjacent ones as one."""

        def listen(event: Event) -> None:
            if isinstance(event, LeafDone):
                status = "" if event.status < 0 else f" -> {status_name(event.status)}"
                self._line(f"cpu {event.lp}  {event.leaf}{self._where(event.rcx)}{status}")
            elif isinstance(event, LeafFaulted):
                self._line(f"cpu {event.lp}  {event.leaf} faults, {event.rule}")
            elif isinstance(event, AccessFaulted):
                where = self._where(event.linear)
                self._line(f"cpu {event.lp}  access{where} refused, {event.rule}")
            elif isinstance(event, Left) and event.vector >= 0:
                self._line(f"cpu {event.lp}  AEX, vector {event.vector:#x}")

        self._lines = lines
        self.machine.processor.log.subscribe(listen)

    def remark(self, text: str) -> None:
        """Write a headline; it replaces a preceding headline that has no lines."""
        if self._lines and self._lines[-1].endswith(":"):
            self._lines.pop()
        if text:
            self._line(text)

    def _line(self, text: str) -> None:
        lines = self._lines
        if lines is None:
            return
        last, times, number = lines[-1].rpartition("  x ") if lines else ("", "", "")
        if times and last == text:
            lines[-1] = f"{text}  x {int(number) + 1}"
        elif lines and lines[-1] == text:
            lines[-1] = f"{text}  x 2"
        else:
            lines.append(text)

    def answered(self, host: MeasuredHost, answer: Answer) -> Answer:
        """Record the answer of a call."""
        self.facts.answers.append(answer)
        self._line(f"cpu {host.thread.cpu}  {host.thread.name}: {answer.text()}")
        return answer

    def _where(self, address: int) -> str:
        """The page of the four at an operand, given by linear or EPC address, as text."""
        for page in range(PAGES):
            entry = self.encl.page(self.address(page))
            epc = -1 if entry is None or entry.epc_page is None else entry.epc_page.address
            if address & ~PAGE_MASK == self.address(page) or address == epc:
                return f" page {page}"
        return ""

    def inside(self, host: MeasuredHost, program: Callable[[Any], Steps[Any]]) -> Steps[Any]:
        """Run enclave code on the host's processor, on a fresh TCS."""
        thread = next(self._tcs)
        seat = Seat(thread, host, self.enclave.tcs[thread])
        return (yield from self.enclave.call(host, program, thread=thread, args=seat))

    # What threads do

    def ask(self, first: int = 0, count: int = PAGES, rights: int | None = None) -> Steps[Answer]:
        """The design's call on some of the pages; if it is an ioctl, mprotect() follows."""
        rights = self.asked if rights is None else rights
        answer = yield from self.ask_only(first, count, rights)
        if not self.by_mprotect and not answer.errno and rights:
            answer = yield from self.mprotect(self.caller, first, count, rights)
        return answer

    def ask_only(self, first: int, count: int, rights: int) -> Steps[Answer]:
        """The design's call alone."""
        start, length = self.address(first), count * PAGE_SIZE
        errno, block = yield from self.design.restrict(
            self.caller, self.enclave, start, length, rights
        )
        if block is None:
            answer = Answer("mprotect", errno)
        else:
            answer = Answer("ioctl", errno, block.result, first + block.count // PAGE_SIZE)
        return self.answered(self.caller, answer)

    def mprotect(self, host: MeasuredHost, first: int, count: int, rights: int) -> Steps[Answer]:
        """mprotect(2) alone."""
        ret = yield from host.mprotect(self.address(first), count * PAGE_SIZE, rights)
        return self.answered(host, Answer("mprotect", ret))

    def accept(self, pages: list[int], rights: int | None = None) -> Steps[None]:
        """EACCEPT of restricted pages by the caller, each in an entry of its own."""
        rights = self.asked if rights is None else rights
        for page in pages:
            self.facts.accepts[page] = None

            def program(t: Any, page: int = page) -> Steps[None]:
                status = yield from t.accept_restricted(self.address(page), rights)
                self.facts.accepts[page] = int(status)

            yield from self.try_inside(self.caller, program, page, "EACCEPT", False)

    def read(self, host: MeasuredHost, page: int) -> Steps[None]:
        """A read that old and new rights permit: a fault is undeserved."""

        def program(t: Any) -> Steps[None]:
            yield from t.load(self.address(page), 8)

        yield from self.try_inside(host, program, page, "a read", True)

    def write(self, host: MeasuredHost, page: int) -> Steps[None]:
        """A write that the thread's rights permit."""

        def program(t: Any) -> Steps[None]:
            yield from t.store(self.address(page), bytes(8))

        yield from self.try_inside(host, program, page, "a write", True)

    def extend(self, host: MeasuredHost, page: int, rights: int) -> Steps[None]:
        """EMODPE, and RELAX if the design needs it; from now on the page must have these rights."""

        def program(t: Any) -> Steps[None]:
            yield from t.emodpe(self.address(page), rights)

        yield from self.try_inside(host, program, page, "EMODPE", True)
        self.facts.entitled[page] = rights
        if self.design.asks == BY_V2:
            assert isinstance(self.design, IoctlV2)
            address = self.address(page)
            yield from self.design.relax(host, self.enclave, address, PAGE_SIZE, rights)

    def try_inside(
        self,
        host: MeasuredHost,
        program: Callable[[Any], Steps[Any]],
        page: int,
        doing: str,
        permitted: bool,
    ) -> Steps[None]:
        """Run enclave code and record the fault that ends it; if `permitted`, it is undeserved."""
        try:
            yield from self.inside(host, program)
        except EnclaveFault as fault:
            if fault.run.exception_vector != PF:
                raise
            met = MetFault(host.thread.name, page, doing, fault.run.exception_error_code)
            (self.facts.undeserved if permitted else self.facts.other_faults).append(met)
        except Unmodelled as unmodelled:
            self.facts.unmodelled = f"{doing} of page {page}: {unmodelled}"

    # What a checker sees

    def word(self, page: int) -> int:
        """The EPCM word of a page; 0 if it does not exist or is swapped out."""
        entry = self.encl.page(self.address(page))
        if entry is None or entry.epc_page is None:
            return 0
        return self.machine.processor.epcm.state[entry.epc_page.number]

    def cached(self, page: int) -> int:
        """R, W, X that any processor inside the enclave has in its TLB."""
        held = 0
        for lp in self.machine.processor.lps:
            if lp.enclave_mode:
                entry = lp.tlb.holds(self.address(page))
                held |= R if entry & READ else 0
                held |= W if entry & (WRITE | CLEAN) else 0
                held |= X if entry & FETCH else 0
        return held

    def state_text(self) -> str:
        """EPCM words of the four pages, rights of their VMAs, and how many VMAs were added."""
        words = ", ".join(
            word_text(word).replace(" REG", "") if word else "swapped out"
            for word in (self.word(page) for page in range(PAGES))
        )
        vmas = [self.mm.vma_lookup(self.address(page)) for page in range(PAGES)]
        areas = " ".join(
            "none"
            if v is None
            else "".join("rwx"[b] if v.flags & 1 << b else "-" for b in range(3))
            for v in vmas
        )
        more = len(self.mm.vmas) - self.areas_before
        return f"EPCM {words}; areas {areas}, {more:+d}"

    # Running

    def play(self, scheduler: Scheduler, tasks: dict[str, tuple[Steps[None], int]]) -> str:
        """Run the tasks to their end; returns the schedule."""
        execution: Execution = self.machine.execution(scheduler)
        for name, (body, cpu) in tasks.items():
            execution.spawn(body, name, cpu)
        execution.run()
        execution.close()
        if isinstance(scheduler, Follow):
            scheduler.expect_end()
        return execution.schedule

    @property
    def resets_to_read(self) -> bool:
        """Whether the call restricts to R, whatever is asked for."""
        return self.design.asks == TO_READ

    @property
    def by_mprotect(self) -> bool:
        """Whether the call is mprotect()."""
        return isinstance(self.design, MprotectDesign)


def rights_beyond(word: int, asked: int) -> int:
    """R, W, X of an EPCM word beyond those asked for."""
    return word & RWX & ~asked
