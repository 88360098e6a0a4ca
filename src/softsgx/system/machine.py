"""A machine: processors with SGX, a Linux kernel with its reclaimer, processes with enclaves."""

from __future__ import annotations

import weakref
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from softsgx.cpu import Part, Processor, Readings
from softsgx.cpu.epc import EPC_BYTES_MAX
from softsgx.cpu.part import DEFAULT_PART
from softsgx.cpu.readings import DEFAULT_READINGS
from softsgx.linux.kernel import Kernel
from softsgx.linux.process import Process, Thread, refuse_cpu
from softsgx.linux.version import VERSION_DEFAULT, kernel_version
from softsgx.sim import RETRY, Cooperative, Execution, Scheduler, Steps
from softsgx.spec.bits import PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.system.built import BuiltEnclaves
    from softsgx.system.explain.explainer import Explainer
    from softsgx.system.explain.unfinished import Remark, Unfinished
    from softsgx.system.host import HostThread

T = TypeVar("T")
_NO_BOUND = 1 << 62  # the live execution lasts as long as the machine
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Machine:
    """`cpus` logical processors for threads, and one more on which the kernel thread ksgxd runs.

    `epc` is the size of EPC: bytes, or a text such as "4M". `linux` names the kernel
    (`linux.version`), `races` switches its known races on or off by name. All keys derive from
    `seed`. With `explain` the machine remembers who changed what, for the method `explain`.
    `driver` is a driver object (`softsgx driver build`), which takes the place of the driver in
    Python; `linux` then names the kernel for all other code.
    """

    def __init__(
        self,
        *,
        cpus: int = 2,
        epc: int | str = "16M",
        linux: str = VERSION_DEFAULT,
        races: dict[str, bool] | None = None,
        restrict_requires_read: bool = False,
        seed: int = 0,
        part: Part = DEFAULT_PART,
        readings: Readings = DEFAULT_READINGS,
        explain: bool = False,
        driver: str | PathLike[str] | None = None,
    ) -> None:
        if cpus < 1:
            raise ValueError(f"Machine: cpus={cpus}, at least 1 is needed")
        if driver is not None and (races or restrict_requires_read):
            raise ValueError("Machine: races and rules are those of the driver that is given")
        version = kernel_version(linux, restrict_requires_read=restrict_requires_read, races=races)
        pages = epc_bytes(epc) // PAGE_SIZE
        self.cpus = cpus
        self.driver = driver
        self.processor = Processor(pages, lps=cpus + 1, seed=seed, part=part, readings=readings)
        self.kernel = Kernel(self.processor, version)
        self.ksgxd = self.kernel.ksgxd_tsk = Thread(self.kernel, None, "ksgxd", cpus)
        if driver is not None:
            from softsgx.cdriver.driver import CDriver

            c_driver = CDriver(self.kernel, Path(driver))
            c_driver.boot(self.ksgxd)
            self.kernel.driver = c_driver
        self._live: Execution | None = None
        self.explainer: Explainer | None = None
        self._unfinished: Unfinished | None = None
        if explain:
            from softsgx.system.explain.explainer import Explainer
            from softsgx.system.explain.unfinished import Unfinished

            self.explainer = Explainer(self.kernel)
            self._unfinished = Unfinished(self.processor)

    def explain(self, fault: Exception | None = None) -> str:
        """Why something was refused: the `Fault` that was just raised, or else the last refusal.

        "" if nothing was refused. The machine must have been made with `explain=True`, because
        the answer names who changed what before.
        """
        if self.explainer is None:
            raise ValueError("explain: a Machine made with explain=True is needed")
        return self.explainer.explain(fault)

    def unfinished(self) -> list[Remark]:
        """Pages that still need EACCEPT and threads that are still inside, and since which event.

        The machine must have been made with `explain=True`.
        """
        if self._unfinished is None:
            raise ValueError("unfinished: a Machine made with explain=True is needed")
        return self._unfinished.remarks()

    def built(self) -> BuiltEnclaves:
        """Records the SGXS stream of each enclave created within `with machine.built() as built:`,
        as the processor measures it: `built.enclaves[0].stream.data`."""
        from softsgx.system.built import BuiltEnclaves

        return BuiltEnclaves(self.processor)

    def process(self, name: str = "host") -> Process:
        """A new process."""
        return Process(self.kernel, name)

    def thread(
        self, process: Process | None = None, cpu: int = 0, name: str = "main"
    ) -> HostThread:
        """A thread of `process` (a new one by default) on logical processor `cpu`.

        Threads of one process may share a processor if they run one after the other. ValueError if
        another process runs there.
        """
        process = process or self.process()
        refuse_cpu(self.kernel, cpu, process.mm)
        from softsgx.system.host import HostThread

        return HostThread(self.kernel, process, name, cpu)

    def execution(self, scheduler: Scheduler, **options: Any) -> Execution:
        """A fresh execution of this machine under `scheduler`, with the reclaim daemon in it.

        What `run` started is settled first.
        """
        self.settle()
        execution = Execution(scheduler, log=self.processor.log, **options)
        self.spawn_ksgxd(execution)
        return execution

    def spawn_ksgxd(self, execution: Execution) -> None:
        """Start the reclaim daemon in an execution, where it waits for work."""
        daemon = self.kernel.driver.ksgxd(self.ksgxd)
        execution.spawn(daemon, "ksgxd", self.cpus, daemon=True)

    def run(self, body: Steps[T], cpu: int = 0) -> T:
        """Run one body to its end, along with the reclaim daemon; returns the body's result.

        At the next `run` the daemon continues where it was. An exception of the body passes
        through; the daemon then starts afresh.
        """
        if self._live is None:
            log = self.processor.log
            self._live = Execution(Cooperative(), log=log, record=False, max_steps=_NO_BOUND)
            self.spawn_ksgxd(self._live)
            # The daemon may hold locks that only a running task can release: unwind it before exit.
            weakref.finalize(self, self._live.close)
        live = self._live
        task = live.spawn(body, "main", cpu)
        try:
            live.run()
        except BaseException:
            self._live = None
            raise
        if task.exception is not None:
            raise task.exception
        result: T = task.result
        return result

    def settle(self) -> None:
        """Let the reclaim daemon finish its current pass, and end the execution that `run` uses."""
        if self._live is not None:
            self.run(_until_idle(self.kernel))
            self._live.close()
            self._live = None


def _until_idle(kernel: Kernel) -> Steps[None]:
    while kernel.ksgxd_running:
        yield (RETRY, "ksgxd", False)


def epc_bytes(size: int | str) -> int:
    """Bytes from a number or a text with K, M, G or T; ValueError names a bad one."""
    if isinstance(size, str):
        unit = _UNITS.get(size[-1:].upper(), 1)
        digits = size[:-1] if unit > 1 else size
        if not digits.isdecimal():
            raise ValueError(f"epc={size!r}: a size such as 4096K, 16M or 1G is needed")
        size = int(digits) * unit
    if size < 16 * PAGE_SIZE or size % PAGE_SIZE:
        raise ValueError(f"epc={size}: a multiple of 4096 of at least 65536 bytes is needed")
    if size > EPC_BYTES_MAX:
        raise ValueError(f"epc={size}: at most {EPC_BYTES_MAX >> 40}T fit below 2^46")
    return size
