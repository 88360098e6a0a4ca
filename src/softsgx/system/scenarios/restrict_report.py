"""What the caller of RESTRICT_PERMISSIONS learns when tracking fails: L4."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.sim import Execution, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from softsgx.system.checkers.knowledge import check_restrict
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene


class RestrictReport(MachineScenario):
    """Two pages are restricted; for each, a draw decides whether ETRACK fails for good."""

    layout: ClassVar = {"threads": 3, "pages": 2}

    def build(self, scene: Scene) -> None:
        """The data pages as they were built: REG, RW."""
        scene.watch = list(scene.enclave.data)
        scene.facts["before"] = {page: scene.epcm_word(page) for page in scene.watch}

    def begin(self, execution: Execution, scene: Scene) -> None:
        """Draw for each ETRACK."""

        def fails(site: str) -> bool:
            return site == "ETRACK" and bool(execution.draw(2, "ETRACK fails"))

        scene.kernel.inject = fails

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The caller, and a thread that is inside meanwhile."""
        first = scene.enclave.data[0]

        def restrict() -> Steps[None]:
            scene.facts["answer"] = yield from scene.enclave.restrict(
                scene.thread(1), first, 2 * PAGE_SIZE, R
            )

        yield "restricter", 1, restrict()
        yield "reader", 2, scene.call(2, lambda t: t.load(scene.enclave.data[1], 8))

    def verify(self, scene: Scene) -> None:
        """Compare what was reported with what was done."""
        check_restrict(scene, scene.facts["before"], R, scene.facts["answer"])
