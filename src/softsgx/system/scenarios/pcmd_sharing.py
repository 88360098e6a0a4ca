"""Two pages share a page of PCMDs: one comes back while the other leaves. Races K9 and K10."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene

PRECIOUS = b"precious"


class PcmdSharing(MachineScenario):
    """The second data page is swapped out; it is read while the reclaimer takes the first."""

    layout: ClassVar = {"threads": 2, "pages": 2}

    def build(self, scene: Scene) -> None:
        """Contents in the first page; the second is evicted, the first is next on the list."""
        first, second = scene.enclave.data
        scene.probe(scene.call(1, lambda t: t.store(first, PRECIOUS)))
        scene.offer_to_reclaimer(second)
        scene.probe(scene.kernel.driver.reclaim(scene.thread(1).thread))
        scene.offer_to_reclaimer(first)
        scene.expected[first] = PRECIOUS
        scene.watch = [first]

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The reclaimer and the reader."""
        yield "reclaimer", 1, scene.kernel.driver.reclaim(scene.thread(1).thread)
        yield "reader", 2, scene.thread(2).load(scene.enclave.data[1], 1)
