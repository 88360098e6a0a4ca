"""A thread is created with a stack that is committed at its first touch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.sim import Completion, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system.enclave import EnclaveThread
from softsgx.system.runtimes import TrustedManager
from softsgx.system.scenarios.lazy_stack import touch
from softsgx.system.scenarios.protect import Managed
from softsgx.system.scenarios.scenario import Cast
from softsgx.system.scene import Scene

_NSSA = 2


class ThreadCreation(Managed):
    """A page becomes a TCS; the new thread enters there and touches its lazy stack.

    Another thread of the enclave touches its own stack meanwhile, so that faults, EAUG and the
    manager's lock meet the change of type.
    """

    cpus: ClassVar[int] = 4
    layout: ClassVar = {"threads": 4, "pages": 1, "nssa": 4}

    def build(self, scene: Scene) -> None:
        """Committed: the page that becomes the TCS, and its SSA frames. Lazy: two stacks."""
        super().build(scene)
        manager: TrustedManager = scene.facts["manager"]
        tcs = scene.enclave.heap + PAGE_SIZE
        ssa, stacks = tcs + PAGE_SIZE, tcs + (1 + _NSSA) * PAGE_SIZE
        manager.reserve(scene.enclave.heap + 4 * PAGE_SIZE, 2 * PAGE_SIZE)

        def commit(t: EnclaveThread) -> Steps[None]:
            yield from manager.commit(t, tcs, (1 + _NSSA) * PAGE_SIZE)

        scene.probe(scene.call(1, commit))
        manager.commit_on_demand(stacks, 2 * PAGE_SIZE)
        scene.facts["tcs"], scene.facts["ssa"], scene.facts["stacks"] = tcs, ssa, stacks
        scene.watch = [tcs, stacks]

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The creator, the thread that it creates, and another one."""
        manager: TrustedManager = scene.facts["manager"]
        tcs, stacks = scene.facts["tcs"], scene.facts["stacks"]
        ready = Completion("new thread")

        def create() -> Steps[None]:
            fields = {"OSSA": scene.facts["ssa"] - scene.enclave.base, "NSSA": _NSSA}
            yield from scene.call(1, lambda t: manager.new_tcs(t, tcs, fields))
            ready.complete()

        def start() -> Steps[None]:
            yield from ready.wait()
            yield from touch(scene, 2, stacks, SgxEnclaveRun(tcs=tcs))

        yield "creator", 1, create()
        yield "new thread", 2, start()
        yield "other thread", 3, touch(scene, 3, stacks + PAGE_SIZE)
