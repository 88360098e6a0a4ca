"""Scenarios for a driver whose mprotect() restricts the EPCM: docs/testing-a-driver-patch.md.

softsgx explore examples/driver_patch/mprotect.py --driver FILE
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.explore import Violation
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene

LOW_PAGES = 32  # SGX_NR_LOW_PAGES: below it calls reclaim pages themselves


class ProtectWhileShort(MachineScenario):
    """A page is protected while another thread adds pages until EPC is short."""

    layout: ClassVar = {"threads": 3, "pages": 178}

    def build(self, scene: Scene) -> None:
        """How many pages are free until calls reclaim some themselves."""
        self.page = scene.enclave.data[0]
        free = scene.kernel.driver.free_pages(scene.kernel)[1]
        self.added = range(scene.enclave.heap, scene.enclave.base + scene.enclave.size, PAGE_SIZE)[
            : free - LOW_PAGES + 1
        ]
        scene.watch = [self.page]

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """Faults that add pages, and mprotect(R)."""
        yield "toucher", 1, self.touch(scene)
        yield "protector", 2, self.protect(scene)

    def touch(self, scene: Scene) -> Steps[None]:
        """The reclaimer makes room for each of them."""
        for page in self.added:
            yield from scene.thread(1).load(page, 1)

    def protect(self, scene: Scene) -> Steps[None]:
        """It has to succeed."""
        ret = yield from scene.thread(2).mprotect(self.page, PAGE_SIZE, R)
        if ret:
            raise Violation("not restricted", f"mprotect returns {ret}")


class ProtectWhileRunning(MachineScenario):
    """Pages and a hole are protected while another thread reads there."""

    layout: ClassVar = {"threads": 3, "pages": 2}

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """mprotect(R) of the last page and the hole behind it, and a reader."""
        page = scene.enclave.data[-1]
        assert page + PAGE_SIZE == scene.enclave.heap
        yield "protector", 1, self.protect(scene, page)
        yield "reader", 2, scene.thread(2).load(page, 1)

    def protect(self, scene: Scene, page: int) -> Steps[None]:
        """A hole has no rights in the EPCM: it is passed over."""
        ret = yield from scene.thread(1).mprotect(page, 2 * PAGE_SIZE, R)
        if ret:
            raise Violation("not restricted", f"mprotect returns {ret}")
