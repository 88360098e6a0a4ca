"""Eviction of the SECS against EAUG: race K5."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.sim import Steps
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene


class SecsEviction(MachineScenario):
    """One thread touches a hole while EPC is so short that the whole enclave is evicted."""

    layout: ClassVar = {"threads": 1, "pages": 1}

    def build(self, scene: Scene) -> None:
        """Pages without the accessed bit, so that one pass takes them all."""
        for page in scene.encl.page_array.values():
            scene.mm.space.test_and_clear_accessed(page.address)
        scene.holes.append(scene.enclave.heap)

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The reader and the reclaimer."""
        yield "reader", 1, scene.thread(1).load(scene.enclave.heap, 1)
        yield "reclaimer", 2, _evict(scene)


def _evict(scene: Scene) -> Steps[None]:
    thread = scene.thread(2).thread
    yield from scene.kernel.driver.reclaim(thread)
