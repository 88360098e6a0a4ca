"""fork: the child begins to share the enclave while the reclaimer zaps a page of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.sim import Steps
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene

KEPT = b"kept-kep"


class ForkShare(MachineScenario):
    """A process forks and the child reads the enclave; meanwhile a page of it is evicted.

    The zap must also reach the child's mappings, or a stale one survives the eviction.
    """

    cpus: ClassVar[int] = 4
    layout: ClassVar = {"threads": 2, "pages": 1}

    def build(self, scene: Scene) -> None:
        """A page with contents, mapped, old, and alone on the reclaimer's list."""
        page = scene.enclave.data[0]
        scene.probe(scene.call(1, lambda t: t.store(page, KEPT)))
        scene.expected[page] = KEPT
        scene.watch = [page]
        scene.offer_to_reclaimer(page)
        # The child's processor; the parent has no thread there.
        scene.thread(3).thread.switch_out()

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The forking parent with its child, and the reclaimer."""
        page = scene.enclave.data[0]

        def family() -> Steps[None]:
            child = yield from scene.thread(1).fork("child", 3)
            yield from child.load(page, 1)

        yield "parent and child", 1, family()
        yield "reclaimer", 2, scene.kernel.driver.reclaim(scene.thread(2).thread)
