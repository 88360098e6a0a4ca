"""The state that a scenario runs on: a process, an enclave, threads, and what must be true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from softsgx.linux.kernel import Kernel
from softsgx.linux.mm import Mm
from softsgx.linux.sgx.encl import SgxEncl
from softsgx.sim import Cooperative, Execution, Steps
from softsgx.system.enclave import EnclaveThread
from softsgx.system.host import HostThread
from softsgx.system.loaded_enclave import Enclave
from softsgx.system.loader import default_image, load
from softsgx.system.machine import Machine

T = TypeVar("T")
_PROBE_STEPS_MAX = 200_000


@dataclass
class Scene:
    """`enclave` was built by `host`, which runs on processor 0 and takes no part in the race.

    expected   contents that pages must have at the end, 8 bytes by address
    holes      addresses where it must be possible to add a page at the end
    protected  rights that the enclave was promised, by address
    facts      what the tasks note for the check
    watch      pages in the state column; if empty, the first of the heap
    threads    by processor
    others     further enclaves of the machine
    """

    machine: Machine
    host: HostThread
    enclave: Enclave
    encl: SgxEncl
    expected: dict[int, bytes] = field(default_factory=dict)
    holes: list[int] = field(default_factory=list)
    protected: dict[int, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    watch: list[int] = field(default_factory=list)
    threads: dict[int, HostThread] = field(default_factory=dict)
    others: list[SgxEncl] = field(default_factory=list)

    @staticmethod
    def built(machine: Machine, **layout: int) -> Scene:
        """A process with an enclave, whose last TCS is for checkers."""
        host = machine.thread()
        enclave = machine.run(load(host, default_image(**layout)))
        file = host.process.files[enclave.fd]
        # An enclave of the C driver has the same face.
        return Scene(machine, host, enclave, cast("SgxEncl", file.encl))

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return self.machine.kernel

    @property
    def mm(self) -> Mm:
        """The address space of the process."""
        return self.host.thread.mm

    @property
    def enclaves(self) -> list[SgxEncl]:
        """All enclaves of the machine."""
        return [self.encl, *self.others]

    def thread(self, cpu: int) -> HostThread:
        """The thread of the process on another processor, made at first use."""
        if cpu not in self.threads:
            name = f"thread of cpu {cpu}"
            self.threads[cpu] = self.machine.thread(self.host.process, cpu, name)
        return self.threads[cpu]

    def call(
        self, cpu: int, program: Callable[[EnclaveThread], Steps[Any]], args: Any = None
    ) -> Steps[Any]:
        """Enclave code on the thread of processor `cpu`, which uses the TCS number `cpu` - 1."""
        host = self.thread(cpu)
        return (yield from self.enclave.call(host, program, thread=cpu - 1, args=args))

    def enter(self, program: Any) -> Steps[Any]:
        """Enclave code on the host's thread and the last TCS."""
        last = len(self.enclave.tcs) - 1
        self.host.thread.switch_in()
        try:
            return (yield from self.enclave.call(self.host, program, thread=last))
        finally:
            self.host.thread.switch_out()

    def probe(self, body: Steps[T]) -> T:
        """Run something alone with the reclaim daemon; StepBound if it does not end."""
        log = self.machine.processor.log
        execution = Execution(Cooperative(), log=log, record=False, max_steps=_PROBE_STEPS_MAX)
        self.machine.spawn_ksgxd(execution)
        task = execution.spawn(body, "probe", self.host.thread.cpu)
        execution.run()
        execution.close()
        result: T = task.result
        return result

    def offer_to_reclaimer(self, address: int) -> None:
        """Make a resident page old, and the only one on the reclaimer's list."""
        self.kernel.driver.offer(self.kernel, self.encl, address)
        self.mm.space.test_and_clear_accessed(address)

    def epcm_word(self, address: int) -> int | None:
        """The EPCM word of a page of the enclave; None if it is not resident."""
        entry = self.encl.page(address)
        if entry is None or entry.epc_page is None:
            return None
        return self.machine.processor.epcm.state[entry.epc_page.number]
