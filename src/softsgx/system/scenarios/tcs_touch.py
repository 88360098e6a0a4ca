"""TCS creation against a touch of the page: race K3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system.checkers import CHECKERS
from softsgx.system.checkers.zapped import Zapped
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene


class TcsTouch(MachineScenario):
    """A filled page becomes a TCS while another host thread reads it."""

    layout: ClassVar = {"threads": 2, "pages": 1}
    checkers = (Zapped, *CHECKERS)

    def build(self, scene: Scene) -> None:
        """A page with the contents of a TCS, mapped RW as a TCS may be."""
        page = scene.enclave.heap
        scene.probe(scene.call(1, lambda t: t.accept_new(page)))
        contents = TCS_PAGE(OSSA=PAGE_SIZE, NSSA=1).pack()
        scene.probe(scene.call(1, lambda t: t.store(page, contents)))
        scene.probe(scene.host.mprotect(page, PAGE_SIZE, R | W))

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The maker and the reader."""
        page = scene.enclave.heap

        def make() -> Steps[None]:
            scene.facts["made"] = yield from scene.enclave.make_tcs(scene.thread(1), page)

        yield "maker", 1, make()
        yield "reader", 2, scene.thread(2).load(page, 1)
