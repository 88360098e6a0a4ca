"""REMOVE_PAGES against a touch of the page: races K2 and L7."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene


class RemoveTouch(MachineScenario):
    """A page was trimmed and accepted; the host removes it while another thread reads there.

    The reader may find the old page or a new one. Afterwards a page can be added as to any hole.
    """

    layout: ClassVar = {"threads": 3, "pages": 1, "nssa": 4}

    def build(self, scene: Scene) -> None:
        """A page of the heap, added, accepted, trimmed, accepted."""
        page = scene.enclave.heap
        scene.probe(scene.call(1, lambda t: t.accept_new(page)))
        scene.probe(scene.enclave.trim(scene.host, page, PAGE_SIZE))
        scene.probe(scene.call(1, lambda t: t.accept_trim(page)))
        scene.holes.append(page)

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The remover and the reader."""
        page = scene.enclave.heap

        def remove() -> Steps[None]:
            scene.facts["removed"] = yield from scene.enclave.remove(
                scene.thread(1), page, PAGE_SIZE
            )

        yield "remover", 1, remove()
        yield "reader", 2, scene.thread(2).load(page, 1)
