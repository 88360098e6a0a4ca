"""One machine with one of the drivers, and the threads and enclaves that a stream works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from softsgx import Machine
from softsgx.cdriver.driver import CDriver
from softsgx.cpu.part import DEFAULT_PART, SGX1_PART
from softsgx.linux.bug import KernelBug
from softsgx.sim import TaskExit, Unmodelled
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import HostThread, SignalRaised
from softsgx.system.host import EnclaveEntry
from tests.differential import calls, debugging, inside, mappings, processes
from tests.differential.armed import Armed
from tests.differential.deliberate import BACKING
from tests.differential.leaves import Leaves, Seen
from tests.differential.operations import CPUS, ENCLAVES, Failure, Op, Setting
from tests.differential.turns import Turns
from tests.differential.world import base_of

if TYPE_CHECKING:
    from pathlib import Path

    from softsgx.linux.vfs import File
    from softsgx.sim import Steps, Task

NO_FD: Final = 77
NOTHING: Final = "nothing to act on"
_ROUNDS_MAX: Final = 200


@dataclass(eq=False)
class Slot:
    """A logical processor: its thread, what that does now, and what its last call returned."""

    cpu: int
    host: HostThread | None = None
    task: Task | None = None
    result: Any = None
    reserved: bool = False


@dataclass(eq=False)
class Place:
    """An enclave: its open file, how much of the image was added, the programs on its TCS."""

    number: int
    big: bool = False
    file: File | None = None
    added: int = 0
    entries: dict[int, EnclaveEntry] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)

    @property
    def base(self) -> int:
        """Its ELRANGE."""
        return base_of(self.number)


class Stage:
    """A machine, and the execution of operations on it, one at a time."""

    def __init__(self, driver: Path | None, linux: str, setting: Setting) -> None:
        self.setting = setting
        part = DEFAULT_PART if setting.sgx2 else SGX1_PART
        self.machine = Machine(
            cpus=CPUS, epc=setting.epc * PAGE_SIZE, linux=linux, driver=driver, part=part
        )
        self.kernel, self.processor = self.machine.kernel, self.machine.processor
        self.in_c = isinstance(self.kernel.driver, CDriver)
        self.leaves = Leaves(self.processor)
        self.interrupts: list[Seen] = []
        self._take = self.kernel.take_interrupt
        self.kernel.take_interrupt = self._interrupt
        self.slots = [Slot(cpu) for cpu in range(CPUS)]
        self.places = [Place(n, big=setting.big and n > 0) for n in range(ENCLAVES)]
        self.files: list[File] = []  # of enclaves, ever
        self.mms: list[Any] = []
        self._blocks = self._live_blocks()
        self.armed = Armed()
        # Always set: a call that is in flight would not notice a change.
        self.kernel.inject = self._inject
        self.broken = ""  # a bug of the kernel, or what the model does not have: the end
        self.wrong = ""  # what must not be: an error of a driver in Python, or of a test
        self.names = 0
        self.turns = Turns()
        self.execution = self.machine.execution(self.turns, max_steps=1 << 60)
        (self.ksgxd,) = self.execution.tasks

    def close(self) -> None:
        """Unwind what is left."""
        self.execution.close()

    # One operation

    def do(self, op: Op) -> Any:
        """Carry it out as far as it goes; what it returned, or where it stands."""
        self.leaves.seen.clear()
        self.interrupts.clear()
        self._arm(op.fail)
        if op.name == "ksgxd":
            return self._turn(self.ksgxd, op.pause)
        slot = self._slot(op)
        if slot.task is None:
            if op.name == "go" or (slot.host is None and op.name != "process"):
                return NOTHING
            self.names += 1
            body = OPERATIONS[op.name](self, slot, *op.args)
            slot.task = self.execution.spawn(
                self._guarded(slot, body), f"{op.name} {self.names}", slot.cpu, daemon=True
            )
        return self._go_on(slot, op.pause)

    def _slot(self, op: Op) -> Slot:
        """The logical processor that is named, or the next one that has a thread."""
        slot = self.slots[op.cpu]
        if op.name == "process" or slot.task is not None or slot.host is not None:
            return slot
        following = (*self.slots[op.cpu :], *self.slots[: op.cpu])
        return next((other for other in following if other.host is not None), slot)

    def _go_on(self, slot: Slot, pause: int) -> Any:
        task = slot.task
        assert task is not None
        where = self._turn(task, pause)
        if not task.done:
            return where
        slot.task = None
        if task.exception is not None:  # it was killed
            return type(task.exception).__name__
        return slot.result

    def _turn(self, task: Task, pause: int) -> Any:
        try:
            self.turns.give(self.execution, task, pause)
        except Exception as raised:  # of the daemon: that of a thread is caught by `_guarded`
            return self._end(raised)
        if self.turns.looped:
            self.wrong = self.broken = "a loop"
        return ("stands at", task.point[0])

    def _end(self, raised: Exception) -> str:
        """The stream ends here, as both machines must; what is no bug of the kernel is wrong."""
        self.broken = f"{type(raised).__name__}: {raised}"
        if isinstance(raised, KernelBug | Unmodelled):
            return type(raised).__name__
        self.wrong = self.broken
        return self.broken

    def _guarded(self, slot: Slot, body: Any) -> Steps[None]:
        yield ("begin", slot.cpu, False)
        try:
            slot.result = (yield from body) if isinstance(body, GeneratorType) else body
        except SignalRaised as raised:
            slot.result = ("signal", *raised.signal)
        except TaskExit:
            raise
        except Exception as raised:
            slot.result = self._end(raised)

    # Failures

    def _arm(self, failure: Failure | None) -> None:
        at_leaf = failure is not None and failure.how != ""
        self.leaves.armed.arm(failure if at_leaf else None)
        if failure is not None and self.in_c:
            failure = BACKING.even(failure)
        self.armed.arm(None if at_leaf else failure)

    def _inject(self, site: str) -> bool:
        return self.armed.due(site) is not None

    def _interrupt(self, lp: Any, vector: int) -> object:
        self.interrupts.append((lp.id, vector))
        return self._take(lp, vector)

    # What there is

    def hosts(self) -> list[HostThread]:
        """The threads."""
        return [slot.host for slot in self.slots if slot.host is not None]

    def mates(self, host: HostThread) -> list[Slot]:
        """The slots of the other threads of a process."""
        return [
            slot
            for slot in self.slots
            if slot.host is not None and slot.host is not host and slot.host.process is host.process
        ]

    def appear(self, slot: Slot, host: HostThread) -> None:
        """A thread begins on a logical processor."""
        slot.host = host
        mm, driver = host.thread.mm, self.kernel.driver
        if mm not in self.mms:
            self.mms.append(mm)
            if isinstance(driver, CDriver):
                driver.mm_address(mm)

    def fd(self, host: HostThread, place: Place) -> int:
        """A descriptor of the enclave in a process, or one that nobody has."""
        for fd, file in host.process.files.items():
            if file is place.file:
                return fd
        return NO_FD

    def known(self, host: HostThread, e: int) -> Place:
        """The enclave with a number, or the other one if the process has only that open."""
        place, other = self.places[e], self.places[1 - e]
        return other if self.fd(host, place) == NO_FD != self.fd(host, other) else place

    # The end

    def _live_blocks(self) -> int:
        driver = self.kernel.driver
        if not isinstance(driver, CDriver):
            return 0
        raw = driver.arena.read(driver.arena.symbol("k_live_blocks"), 8)
        return int.from_bytes(raw, "little") - len(self.mms)

    def kept(self) -> int:
        """Blocks of memory that the C code still has, but for address spaces: 0 in Python."""
        return self._live_blocks() - self._blocks

    def empty(self) -> bool:
        """Whether no thread is left, and no enclave."""
        encls: list[Any] = [file.encl for file in self.files]
        threads = any(slot.host is not None or slot.task is not None for slot in self.slots)
        return not threads and not any(encl.refcount for encl in encls)

    def finish(self) -> list[Any]:
        """Let everything end, and every process exit: what that returned."""
        self.leaves.seen.clear()
        self.interrupts.clear()
        self._arm(None)
        found: list[Any] = [self._drain()]
        for slot in self.slots:
            if slot.host is not None and not self.broken and found[0] == "all ended":
                found.append(self.do(Op("exit", slot.cpu)))
        return found

    def _drain(self) -> str:
        for _ in range(_ROUNDS_MAX):
            self._turn(self.ksgxd, 0)
            busy = [slot for slot in self.slots if slot.task is not None]
            if not busy or self.broken:
                return "all ended"
            for slot in busy:
                self._go_on(slot, 0)
        return "stuck"


OPERATIONS: Final[dict[str, Any]] = {
    **calls.OPERATIONS,
    **mappings.OPERATIONS,
    **processes.OPERATIONS,
    **inside.OPERATIONS,
    **debugging.OPERATIONS,
}
