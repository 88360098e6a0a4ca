"""Two enclave threads touch one page that is committed on demand: lazy stacks, lazy heaps."""

from __future__ import annotations

from collections.abc import Iterable

from softsgx.explore import Violation
from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system.enclave import EnclaveThread
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.runtimes import TrustedManager
from softsgx.system.scenarios.protect import Managed
from softsgx.system.scenarios.scenario import Cast
from softsgx.system.scene import Scene


class LazyStack(Managed):
    """Both threads fault, the kernel adds the page once, one handler accepts it, both go on."""

    def build(self, scene: Scene) -> None:
        """A page after the committed ones that waits for its first touch."""
        super().build(scene)
        page = scene.enclave.heap + PAGE_SIZE
        scene.facts["manager"].commit_on_demand(page, PAGE_SIZE)
        scene.watch = [page]

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The same page, two places in it."""
        page = scene.watch[0]
        for cpu in (1, 2):
            yield f"toucher {cpu}", cpu, touch(scene, cpu, page + 8 * cpu)


def touch(scene: Scene, cpu: int, address: int, run: SgxEnclaveRun | None = None) -> Steps[None]:
    """The host loop of a runtime: after a #PF enter the handler at CSSA = 1, then ERESUME.

    `run` names the TCS; by default it is the one of the processor.
    """
    manager: TrustedManager = scene.facts["manager"]
    faults: list[int] = []

    def program(t: EnclaveThread) -> Steps[object]:
        if t.cssa:
            return (yield from manager.handle_fault(t, faults[-1]))
        yield from t.store(address, b"touched!")
        return (yield from t.load(address, 8))

    host, run = scene.thread(cpu), run or scene.enclave.run(cpu - 1)
    entry, leaf = scene.enclave.entry(program), leaves.EENTER
    while True:
        yield from host.enter(entry, run, leaf)
        if run.function == leaves.EEXIT:
            break
        faults.append(run.exception_addr)
        yield from host.enter(entry, run)
        if run.function != leaves.EEXIT or entry.result is not True:
            raise EnclaveFault(run)
        leaf = leaves.ERESUME
    if entry.result != b"touched!":
        raise Violation("lost data", f"{address:#x} has {entry.result!r} after a write")
