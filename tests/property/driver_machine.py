"""The driver under random hosts: concurrent tasks, everything checked between steps.

Moves are generators: system calls, accesses, whole stays in an enclave. A rule starts one on a
logical processor and lets it go on for some steps; a task in flight then waits at that point until
its next turn. After every single step the invariants of driver_invariants.py, those of the
processor (invariants.py), and the contents of all pages are checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest.mock import patch

from hypothesis.stateful import RuleBasedStateMachine

from softsgx.linux.process import Thread
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
from softsgx.linux.sgx.encls import encls as real_encls
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.sgx.page_ioctl import sgx2_arguments
from softsgx.linux.syscalls import SGX_ENCLAVE
from softsgx.linux.vfs import File
from softsgx.sim import Steps, Task
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_MASK, TCS, TRIM
from softsgx.spec.leaves import EMODPR, EMODT
from softsgx.system import HostThread, Machine, SignalRaised
from tests.property import driver_invariants, invariants
from tests.property.driver_turns import CLOCK, Turns, tick
from tests.property.driver_watch import Watch
from tests.property.driver_world import (
    CPUS,
    ENCLAVES,
    PRIVATE_PAGES,
    Enclave,
    Slot,
    Suspended,
    image,
)
from tests.property.world import pick

# How often each thing happened, over all examples.
COUNTS: dict[str, int] = {}
# The processor's invariants that a driver could break, or that show a driver's bug early.
PROCESSOR_CHECKS = {
    name: check for name, check in invariants.CHECKS.items() if name not in ("I1", "I11", "I22")
}
FIXED = {"eaug_double_fault": False, "remove_vs_fault": False, "modify_vs_fault": False}
_STEPS_MAX = 100_000  # enough for everything in flight to finish, unless it is stuck


class DriverMachine(RuleBasedStateMachine):
    """One machine, its processes and enclaves, and the expected contents of their pages."""

    races: ClassVar[dict[str, bool]] = FIXED

    def __init__(self) -> None:
        super().__init__()
        PLAYED[:] = [self]
        self.slots = [Slot(cpu) for cpu in range(CPUS)]
        self.enclaves: list[Enclave] = []  # whose file is open, or mapped, or leaked
        self.suspended: dict[int, list[Suspended]] = {}  # by TCS address
        self.aliased: set[tuple[object, int]] = set()  # (mm, page) that mremap has moved PTEs to
        self.orphans: set[object] = set()  # address spaces with an area whose registration failed
        self.armed: dict[str, int] = {}  # site -> successes until it fails
        self.blamed: dict[Task, list[str]] = {}  # task -> sites that were made to fail in it
        self.watches: dict[Thread, Watch] = {}  # of the ioctls that change pages
        self.reached: set[str] = set()
        self.names = 0
        self.checked: tuple[object, ...] = ()  # last state that passed the processor's invariants

    def begin(self, epc: int, low: int) -> None:
        """Power on: the first process, with an enclave."""
        self.machine = self.powered(epc * PAGE_SIZE)
        self.kernel, self.processor = self.machine.kernel, self.machine.processor
        self.kernel.low_watermark, self.kernel.high_watermark = low, 2 * low
        self.kernel.inject = self.fails
        self.turns = Turns(self.look)
        self.execution = self.machine.execution(self.turns, max_steps=10_000_000)
        self.slots[0].host = self.machine.thread(cpu=0, name="first")

    # Turns

    def powered(self, epc: int) -> Machine:
        """The machine under test."""
        return Machine(cpus=CPUS, epc=epc, races=self.races)

    def start(self, slot: Slot, body: Steps[None], name: str) -> None:
        """Begin a move on a logical processor."""
        self.names += 1
        assert slot.task is None
        task = self.execution.spawn(
            self.guarded(slot, body), f"{name} {self.names}", slot.cpu, daemon=True
        )
        slot.task = None if task.done else task

    def guarded(self, slot: Slot, body: Steps[None]) -> Steps[None]:
        """A move; a synchronous signal ends it, and a handler takes what is pending."""
        yield ("begin", slot.cpu, False)
        try:
            yield from body
        except SignalRaised as raised:
            self.count(f"signal {raised.signal.number}")
        if slot.host is not None:
            slot.host.thread.pending_signals = 0
        task = self.execution.current
        assert task is not None
        self.blamed.pop(task, None)
        slot.task = None

    def go_on(self, task: Task | None, steps: int, other: int = 0) -> None:
        """One turn: up to `steps` steps for the task, or for tasks that it waits for."""
        self.turns.turn(task, steps, other)
        self.execution.spawn(tick(), CLOCK)
        self.execution.run()

    def finish(self) -> None:
        """Let everything in flight finish, including the pass of the reclaim daemon."""
        for number in range(_STEPS_MAX // 100):
            if self.quiet():
                return
            flying = [slot.task for slot in self.slots if slot.task is not None]
            self.go_on(pick(flying, number) if flying else None, 100, number)
        stuck = [f"{task} at {task.point}, holds {task.held}" for task in self.execution.tasks]
        raise AssertionError("livelock or deadlock: " + "; ".join(stuck))

    def quiet(self) -> bool:
        """No call is in flight, and the reclaim daemon sleeps."""
        return not any(slot.task for slot in self.slots) and not self.kernel.ksgxd_running

    def fails(self, site: str) -> bool:
        """`Kernel.inject`: the site fails once, when its countdown is over."""
        if site not in self.armed:
            return False
        self.armed[site] -= 1
        if self.armed[site] >= 0:
            return False
        del self.armed[site]
        task = self.execution.current
        assert task is not None
        self.blamed.setdefault(task, []).append(site)
        self.count(f"failed: {site}")
        return True

    def count(self, what: str) -> None:
        COUNTS[what] = COUNTS.get(what, 0) + 1
        self.reached.add(what)

    # What is checked

    def look(self) -> None:
        """Check everything; called between any two steps."""
        found: list[str] = []
        state = self.processor_state()
        if state != self.checked:
            self.checked = state
            for name, check in PROCESSOR_CHECKS.items():
                found += [f"{name}: {finding}" for finding in check(self.processor)]
        checks = [driver_invariants.CHECKS]
        if self.quiet():
            self.forget()
            checks.append(driver_invariants.QUIET_CHECKS)
        for name, rule in [pair for table in checks for pair in table.items()]:
            found += [f"{name}: {finding}" for finding in rule(self)]
        found += [*self.contents()]
        assert not found, "; ".join([*found, *self.kernel.warnings])

    def processor_state(self) -> tuple[object, ...]:
        """What the processor's invariants depend on and what can change without a leaf."""
        lps = self.processor.lps
        return (
            self.processor.epcm.digest_bytes(),
            [(lp.secs_page, lp.tcs_page, lp.epoch, lp.ssa_frame) for lp in lps],
            [dict(lp.tlb.entries) for lp in lps],
        )

    def contents(self) -> Iterator[str]:
        """D17: every resident page holds what its enclave wrote last."""
        memory, epcm = self.processor.memory, self.processor.epcm
        for enclave in self.enclaves:
            for entry in enclave.encl.page_array.values():
                if entry.epc_page is None or entry.address - enclave.base in PRIVATE_PAGES:
                    continue
                number = entry.epc_page.number
                held = memory.page_view(self.processor.epc.pfn(number))
                pt = epcm.state[number] & PT_MASK
                if pt == TCS or (pt == TRIM and entry.address in enclave.tcs):
                    # The processor writes there, too, even if the page has been trimmed since.
                    self.expected(enclave, entry)[:] = held
                elif held != self.expected(enclave, entry):
                    yield f"D17: {enclave.encl.name}, page {entry.address:#x}: other contents"

    def expected(self, enclave: Enclave, entry: SgxEnclPage) -> bytearray:
        """What a page must hold: zeroes (EAUG) or the image, then what the enclave wrote."""
        written = enclave.written.get(entry)
        if written is None:
            written = enclave.written[entry] = bytearray(PAGE_SIZE)
            if not enclave.encl.flags & e.SGX_ENCL_INITIALIZED:
                offset = entry.address - enclave.base
                for segment in image().segments:
                    if segment.offset <= offset < segment.end:
                        data = segment.data()[offset - segment.offset :][:PAGE_SIZE]
                        written[: len(data)] = data
        return written

    def page_written(self, enclave: Enclave, address: int, data: bytes) -> None:
        """Note a store that has just succeeded."""
        entry = enclave.encl.page(address)
        assert entry is not None, f"a store to {address:#x}, where the kernel has no page"
        offset = address % PAGE_SIZE
        self.expected(enclave, entry)[offset : offset + len(data)] = data

    # What the hosts know about enclaves and processes

    def hosts(self) -> list[HostThread]:
        return [slot.host for slot in self.slots if slot.host is not None]

    def mates(self, host: HostThread) -> list[Slot]:
        """The slots whose threads belong to the same process."""
        return [s for s in self.slots if s.host is not None and s.host.process is host.process]

    def fds(self, host: HostThread, file: File) -> list[int]:
        return [fd for fd, other in host.process.files.items() if other is file]

    def enclave_of(self, encl: SgxEncl) -> Enclave | None:
        return next((enclave for enclave in self.enclaves if enclave.encl is encl), None)

    def known(self, host: HostThread, number: int, *, ready: bool = True) -> Enclave | None:
        """An enclave that the process has open; mostly one that is initialised."""
        mine = [x for x in self.enclaves if self.fds(host, x.file)]
        good = [x for x in mine if x.encl.flags & e.SGX_ENCL_INITIALIZED]
        chosen = good if ready and good else mine
        return pick(chosen, number) if chosen else None

    def adopt(self, host: HostThread, fd: int) -> None:
        """Note an enclave that was just opened."""
        file = host.process.files[fd]
        if file.path == SGX_ENCLAVE:
            taken = [x.number for x in self.enclaves]
            number = next(n for n in range(ENCLAVES) if n not in taken)
            assert isinstance(file.encl, SgxEncl)
            self.enclaves.append(Enclave(number, file, file.encl))

    def forget(self) -> None:
        """Drop the enclaves that have been destroyed."""
        for enclave in list(self.enclaves):
            encl = enclave.encl
            if not encl.refcount and not encl.page_array and not encl.va_pages:
                if encl.secs.epc_page is None:
                    self.enclaves.remove(enclave)
                    for tcs in [t for t in self.suspended if t - t % (1 << 36) == enclave.base]:
                        del self.suspended[tcs]
                    for entry in enclave.entries.values():
                        for address in list(entry.stacks):
                            entry.abandon(address)

    # The end

    def end(self) -> None:
        """Read everything back, close everything: nothing may be lost, nothing leaked."""
        self.armed.clear()
        self.finish()
        slot = next((s for s in self.slots if s.host is not None), None)
        if slot is not None:
            self.start(slot, self.read_back(slot), "read back")
            self.finish()
        for slot in self.slots:
            if slot.host is not None:
                for mate in self.mates(slot.host):
                    if mate is not slot:
                        self.vacate(mate)
                self.start(slot, self.exits(slot), "exit")
                self.finish()
        self.look()
        found = [*driver_invariants.nothing_is_left(self)]
        assert not found, "; ".join(found)

    def vacate(self, slot: Slot) -> None:
        """Free a slot whose thread is gone: its process was killed or has called execve."""
        assert slot.host is not None
        assert slot.task is None
        slot.host.thread.switch_out()
        slot.host = None

    def exits(self, slot: Slot) -> Steps[None]:
        host = slot.host
        assert host is not None
        yield from host.exit()
        slot.host = None
        self.forget()

    def read_back(self, slot: Slot) -> Steps[None]:
        """Load every swapped-out page back once, and compare its contents."""
        assert slot.host is not None
        current = slot.host.thread
        for enclave in self.enclaves:
            if not enclave.encl.refcount:
                continue
            for entry in list(enclave.encl.page_array.values()):
                while entry.epc_page is None:
                    with (yield from enclave.encl.lock.acquire()):
                        ret = yield from e.sgx_encl_load_page(current, enclave.encl, entry.address)
                    if isinstance(ret, int):
                        yield from sgx_reclaim_pages(current)


# The machine under test, for the wrappers below.
PLAYED: list[DriverMachine] = []


@contextmanager
def watched() -> Iterator[None]:
    """Wrap functions of the driver: record results of leaves in ioctls, check each SIGBUS."""
    encls, copy, fault, eldu = real_encls, sgx2_arguments, e.sgx_vma_fault, e.sgx_encl_eldu

    def watched_eldu(current: Thread, page: SgxEnclPage, *arguments: Any) -> Steps[Any]:
        ret = yield from eldu(current, page, *arguments)
        if not isinstance(ret, int):
            PLAYED[0].count("a page came back" if page.address else "a SECS came back")
        return ret

    def watched_arguments(current: Thread, *arguments: Any) -> Steps[Any]:
        if current in PLAYED[0].watches:
            PLAYED[0].watches[current].begin()
        return (yield from copy(current, *arguments))

    def watched_encls(current: Thread, leaf: int, *operands: int) -> Steps[int]:
        ret = yield from encls(current, leaf, *operands)
        if leaf in (EMODPR, EMODT) and current in PLAYED[0].watches:
            PLAYED[0].watches[current].leaves.append(ret)
        return ret

    def watched_fault(current: Thread, vma: Any, address: int) -> Steps[str]:
        ret = yield from fault(current, vma, address)
        if ret == e.VM_FAULT_SIGBUS:
            found = [*driver_invariants.sigbus_has_a_reason(PLAYED[0], vma, address)]
            assert not found, "; ".join(found)
        return ret

    with (
        patch("softsgx.linux.sgx.edmm.encls", watched_encls),
        patch("softsgx.linux.sgx.edmm.sgx2_arguments", watched_arguments),
        patch.object(e, "sgx_vma_fault", watched_fault),
        patch.object(e, "sgx_encl_eldu", watched_eldu),
    ):
        yield
