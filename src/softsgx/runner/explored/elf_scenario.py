"""Scenarios whose enclave is an ELF file: they explore a runtime's own binary.

    class Race(ElfScenario):
        elf = "enclave.elf"
        points = "access"

        def tasks(self, scene):
            for cpu in (1, 2):
                yield f"thread {cpu}", cpu, self.call(scene, cpu, rdi=scene.enclave.heap)

The file is laid out as by `softsgx measure` (`image.layout.ThreadLayout`), followed by a page for
the checkers and a hole of `hole` pages, filled by EAUG. There is one TCS per processor; the last
one is for the checkers. The file must run at any base: a static-pie that needs no relocation or
relocates itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import GeneratorType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from softsgx.explore.footprint import Footprint
from softsgx.explore.scenario import Granularity
from softsgx.image.errors import ImageError
from softsgx.image.image import EnclaveImage, Segment
from softsgx.image.layout import ThreadLayout
from softsgx.linux.version import VERSION_DEFAULT
from softsgx.runner.explored.code_thread import CodeEntry, Registers
from softsgx.runner.explored.footprints import footprint
from softsgx.runner.explored.model_host import ModelHost
from softsgx.runner.explored.points import Points, granularity_text, points_named, stepped_range
from softsgx.runner.explored.settling import Unsettled, settle
from softsgx.runner.explored.sharing import Sharing
from softsgx.runner.explored.snapshot_arena import SnapshotArena
from softsgx.runner.explored.stepped_emulator import SteppedEmulator
from softsgx.runner.explored.symbols import Symbols
from softsgx.sim import Execution, Point, Steps, Task, Unmodelled
from softsgx.sim.touch import touch
from softsgx.spec import leaves
from softsgx.spec.attributes import ATTR_DEBUG, MISC_EXINFO
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import REG, R, W
from softsgx.system.enclave import EnclaveThread
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.loader import load
from softsgx.system.machine import Machine
from softsgx.system.scenarios.scenario import MACHINE, MachineScenario
from softsgx.system.scene import Scene

if TYPE_CHECKING:
    from softsgx.linux.sgx.encl import SgxEncl

Answer = Registers | Steps[Registers | None] | None
"""What the host does at the AEP: steps of its own, then an entry with these registers."""


class ElfScenario(MachineScenario):
    """`elf` is the file, relative to that of the scenario. ImageError if it is not an enclave.

    points   "misses": there is a point before each ENCLU and each access that misses the TLB, and
             after each PAUSE; "access": also before each load and store of memory that other tasks
             can reach; "instruction": also before each instruction of `within`, with an AEX after
             it, and an ERESUME
    within   a function of the file, or its first linked address and the one behind it
    shared   further addresses (names of objects, or linked addresses) whose accesses have points
    """

    elf: ClassVar[str] = ""
    hole: ClassVar[int] = 16
    layout: ClassVar[dict[str, int]] = {"nssa": 2, "stack_pages": 2, "heap_pages": 0}
    points: str = Points.MISSES
    within: str | tuple[int, int] = ""
    shared: ClassVar[tuple[str | int, ...]] = ()

    _emulator: SteppedEmulator | None = None

    def __init__(
        self,
        linux: str = VERSION_DEFAULT,
        races: dict[str, bool] | None = None,
        *,
        points: str | None = None,
        within: str | tuple[int, int] | None = None,
    ) -> None:
        super().__init__(linux, races)
        self.points = points_named(self.points if points is None else points)
        self.within = self.within if within is None else within
        if self.within and self.points is not Points.INSTRUCTION:
            raise ValueError(f"within: only for points {Points.INSTRUCTION.value!r}")
        self._sharing = Sharing() if self.points is Points.ACCESS else None
        self._settled = self._sharing is None
        self._symbols: Symbols | None = None
        # By processor: the entry of the present call, and whether its thread has got a signal.
        self._entries: dict[int, CodeEntry] = {}
        self._signals: dict[int, bool] = {}
        where = granularity_text(Points(self.points), self.within)
        self.granularity = Granularity(where, binary=True, whole=self.points is Points.ACCESS)
        if self.points is Points.INSTRUCTION:
            self._stepped = stepped_range(self.within, self.symbols)
        self._also = [address for name in self.shared for address in self._granules_of(name)]

    @property
    def path(self) -> Path:
        """The ELF file."""
        if not self.elf:
            raise ImageError(f"{type(self).__name__}.elf", "the name of an ELF file is needed")
        return Path(self.file).parent / self.elf

    def _content(self) -> bytes:
        path = self.path
        try:
            return path.read_bytes()
        except OSError as error:
            raise ImageError(str(path), error.strerror or str(error)) from None

    @property
    def symbols(self) -> Symbols:
        """The names in the file."""
        if self._symbols is None:
            self._symbols = Symbols(self._content())
        return self._symbols

    def _granules_of(self, where: str | int) -> range:
        """Linked addresses of the granules of an object, or of the one at an address."""
        begin, end = self.symbols.object(where) if isinstance(where, str) else (where, where + 1)
        return range(begin & ~7, end, 8)

    def image(self) -> EnclaveImage:
        """The pages of the enclave."""
        path, content = self.path, self._content()
        try:
            layout: dict[str, Any] = {"threads": self.cpus, **self.layout}
            image = ThreadLayout(**layout).image(content)
        except ImageError as error:
            raise ImageError(str(path), str(error)) from None
        if image.baseaddr is not None:
            raise Unmodelled(f"{path}: ET_EXEC in a scenario; link it with -static-pie")
        end = max(segment.end for segment in image.segments)
        scratch = Segment(end, PAGE_SIZE, REG | R | W, label="scratch")
        size = image.size
        while size < scratch.end + self.hole * PAGE_SIZE:
            size *= 2
        return replace(
            image,
            size=size,
            segments=(*image.segments, scratch),
            attributes=image.attributes | ATTR_DEBUG,
            miscselect=MISC_EXINFO,
        )

    def machine(self) -> Machine:
        """As MachineScenario.machine; the EPC is memory that the emulator can use in place."""
        machine = super().machine()
        processor = machine.processor
        epc = processor.epc
        memory = SnapshotArena(processor.memory, epc.first, epc.pages)
        processor.memory = memory
        host = ModelHost(memory)
        self._emulator = SteppedEmulator(memory, host, processor.part, self._sharing)
        return machine

    def built(self, machine: Machine) -> Scene:
        """The process and its enclave."""
        host = machine.thread()
        enclave = machine.run(load(host, self.image()))
        scene = Scene(machine, host, enclave, cast("SgxEncl", host.process.files[enclave.fd].encl))
        for cpu in range(1, self.cpus):
            machine.run(enclave.call(scene.thread(cpu), self._touch, thread=cpu - 1), cpu)
        if self.points is Points.INSTRUCTION:
            assert self._emulator is not None
            begin, end = self._stepped
            self._emulator.stop_in(enclave.base + begin, enclave.base + end)
        return scene

    def _touch(self, t: EnclaveThread) -> Steps[None]:
        """Load from every page, so that each has its PTE as in an enclave that has run before."""
        for segment in self.image().segments:
            if not segment.is_tcs:
                start = t.lp.elrange_base + segment.offset
                for page in range(start, start + segment.size, PAGE_SIZE):
                    yield from t.load(page)

    # What the explorer calls

    def start(self, execution: Execution) -> None:
        """As MachineScenario.start; the first time, find out which accesses need points."""
        if not self._settled:
            self._settled = True
            assert self._sharing is not None
            base = self.scene.enclave.base
            settle(self, self._sharing, [base + address for address in self._also])
        self._entries.clear()
        self._signals.clear()
        super().start(execution)

    def check(self, execution: Execution) -> None:
        """As MachineScenario.check. Unsettled if accesses need points that have none."""
        super().check(execution)
        sharing = self._sharing
        if sharing is None or sharing.everything or not sharing.unmarked:
            return
        where = ", ".join(self._name_of(address) for address in sharing.unmarked)
        raise Unsettled(
            f"{where}: found shared only now, so that accesses have no points; list it in `shared`"
        )

    def objects(self, task: Task, point: Point) -> Footprint:
        """As MachineScenario.objects; accesses to different granules commute, too."""
        of_machine = super().objects(task, point)
        return of_machine if self._sharing is None else footprint(point, of_machine)

    def point_text(self, point: Point) -> str:
        """As MachineScenario.point_text; addresses by name."""
        kind, touched, _ = point
        if isinstance(touched, tuple) and touched[0] == "access":
            _, address, size = touched
            return f"{kind} {size} bytes at {self._name_of(address)}"
        if isinstance(touched, tuple) and touched[0] == "miss":
            return super().point_text((kind, ("linear", touched[1]), False))
        if kind == "step" and isinstance(touched, tuple):
            return f"step at {self._name_of(self.scene.enclave.base + touched[1])}"
        return super().point_text(point)

    def _name_of(self, address: int) -> str:
        return self.symbols.name_of(address - self.scene.enclave.base) or f"{address:#x}"

    # What tasks do

    def call(
        self,
        scene: Scene,
        cpu: int,
        *,
        handler: Callable[[int, int], Answer] | None = None,
        signal: Callable[[], Answer] | None = None,
        **registers: int,
    ) -> Steps[Registers]:
        """Enter the enclave on the thread and TCS of a processor; the registers after EEXIT.

        `registers` are the registers at EENTER, by name (rdi=...). An exception that the kernel
        does not repair ends the call with EnclaveFault. With `handler(vector, address)`, the
        enclave is instead entered again at CSSA = 1 with the registers that the handler returns,
        then resumed. `signal()` does the same for a signal, see `send_signal`. Both may be
        generators, whose steps the thread executes first, and may return None: then the enclave is
        only resumed.
        """
        assert self._emulator is not None
        host, enclave = scene.thread(cpu), scene.enclave
        tcs = enclave.tcs[cpu - 1]

        def handle(answer: Answer) -> Steps[None]:
            if isinstance(answer, GeneratorType):
                answer = yield from answer
            if answer is None:
                return
            again: Any = answer
            nested = enclave.run(cpu - 1)
            yield from host.enter(entry, nested, leaves.EENTER, args=again)
            if nested.function != leaves.EEXIT:
                raise EnclaveFault(nested)

        def signalled() -> Steps[None] | None:
            if not self._signals.pop(cpu, False):
                return None
            if signal is None:
                raise Unmodelled(f"a signal for a thread whose call has no handler: cpu {cpu}")
            touch(MACHINE)  # code of the scenario may do anything
            return handle(signal())

        entry = CodeEntry(self._emulator, enclave.secinfo_slot, signalled)
        self._entries[cpu] = entry
        run = enclave.run(cpu - 1)
        leaf = leaves.EENTER
        try:
            while True:
                yield from host.enter(entry, run, leaf, args=registers)
                if run.function == leaves.EEXIT:
                    result: Registers = entry.result
                    return result
                if handler is None:
                    raise EnclaveFault(run)
                yield from handle(handler(run.exception_vector, run.exception_addr))
                leaf = leaves.ERESUME
        except EnclaveFault:
            entry.abandon(tcs)
            raise

    def send_signal(self, scene: Scene, cpu: int) -> Steps[None]:
        """Send a signal to the thread of a processor: AEX at its next step, then its handler.

        It does nothing to a thread that is not in the enclave.
        """
        yield ("signal", ("cpu", cpu), True)
        entry = self._entries.get(cpu)
        if entry is not None and entry.stacks.get(scene.enclave.tcs[cpu - 1]):
            self._signals[cpu] = True
