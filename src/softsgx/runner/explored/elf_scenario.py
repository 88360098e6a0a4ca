"""Scenarios whose enclave is an ELF file: they explore a runtime's own binary.

    class Race(ElfScenario):
        elf = "enclave.elf"

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
from typing import Any, ClassVar

from softsgx.explore.scenario import Granularity
from softsgx.image.errors import ImageError
from softsgx.image.image import EnclaveImage, Segment
from softsgx.image.layout import ThreadLayout
from softsgx.linux.sgx.driver import encl_of
from softsgx.runner.explored.code_thread import CodeEntry, Registers
from softsgx.runner.explored.model_host import ModelHost
from softsgx.runner.explored.snapshot_arena import SnapshotArena
from softsgx.runner.explored.stepped_emulator import SteppedEmulator
from softsgx.sim import Steps, Unmodelled
from softsgx.spec import leaves
from softsgx.spec.attributes import ATTR_DEBUG, MISC_EXINFO
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import REG, R, W
from softsgx.system.enclave import EnclaveThread
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.loader import load
from softsgx.system.machine import Machine
from softsgx.system.scenarios.scenario import MachineScenario
from softsgx.system.scene import Scene


class ElfScenario(MachineScenario):
    """`elf` is the file, relative to that of the scenario. ImageError if it is not an enclave."""

    elf: ClassVar[str] = ""
    hole: ClassVar[int] = 16
    granularity = Granularity("TLB misses and ENCLU", binary=True, whole=False)
    layout: ClassVar[dict[str, int]] = {"nssa": 2, "stack_pages": 2, "heap_pages": 0}

    _emulator: SteppedEmulator | None = None

    def image(self) -> EnclaveImage:
        """The pages of the enclave."""
        if not self.elf:
            raise ImageError(f"{type(self).__name__}.elf", "the name of an ELF file is needed")
        path = Path(self.file).parent / self.elf
        try:
            layout: dict[str, Any] = {"threads": self.cpus, **self.layout}
            image = ThreadLayout(**layout).image(path.read_bytes())
        except OSError as error:
            raise ImageError(str(path), error.strerror or str(error)) from None
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
        self._emulator = SteppedEmulator(memory, ModelHost(memory), processor.part)
        return machine

    def built(self, machine: Machine) -> Scene:
        """The process and its enclave."""
        host = machine.thread()
        enclave = machine.run(load(host, self.image()))
        scene = Scene(machine, host, enclave, encl_of(host.process.files[enclave.fd]))
        for cpu in range(1, self.cpus):
            machine.run(enclave.call(scene.thread(cpu), self._touch, thread=cpu - 1), cpu)
        return scene

    def _touch(self, t: EnclaveThread) -> Steps[None]:
        """Load from every page, so that each has its PTE as in an enclave that has run before."""
        for segment in self.image().segments:
            if not segment.is_tcs:
                start = t.lp.elrange_base + segment.offset
                for page in range(start, start + segment.size, PAGE_SIZE):
                    yield from t.load(page)

    def call(
        self,
        scene: Scene,
        cpu: int,
        *,
        handler: Callable[[int, int], Registers] | None = None,
        **registers: int,
    ) -> Steps[Registers]:
        """Enter the enclave on the thread and TCS of a processor; the registers after EEXIT.

        `registers` are the registers at EENTER, by name (rdi=...). An exception that the kernel
        does not repair ends the call with EnclaveFault. With `handler(vector, address)`, the
        enclave is instead entered again at CSSA = 1 with the registers that the handler returns,
        then resumed.
        """
        assert self._emulator is not None
        host, enclave = scene.thread(cpu), scene.enclave
        entry = CodeEntry(self._emulator, enclave.secinfo_slot)
        run = enclave.run(cpu - 1)
        leaf = leaves.EENTER
        while True:
            yield from host.enter(entry, run, leaf, args=registers)
            if run.function == leaves.EEXIT:
                result: Registers = entry.result
                return result
            if handler is None:
                entry.abandon(run.tcs)
                raise EnclaveFault(run)
            again: Any = handler(run.exception_vector, run.exception_addr)
            yield from host.enter(entry, run, leaves.EENTER, args=again)
            if run.function != leaves.EEXIT:
                entry.abandon(run.tcs)
                raise EnclaveFault(run)
            leaf = leaves.ERESUME
