"""A refused restriction must not disturb an access: L1 of the V2 series."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from softsgx.explore import Violation
from softsgx.sim import Execution, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from softsgx.system.host import SignalRaised
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene


class RestrictRefused(MachineScenario):
    """A page is restricted, which EMODPR may refuse (a draw), while another thread writes to it.

    If it is refused nothing has changed, and the writer must not have noticed anything.
    """

    layout: ClassVar = {"threads": 3, "pages": 1}

    def build(self, scene: Scene) -> None:
        """The data page as it was built: REG, RW."""
        page = scene.enclave.data[0]
        scene.watch = [page]
        scene.facts["before"] = {page: scene.epcm_word(page)}
        scene.facts["signal"] = None

    def begin(self, execution: Execution, scene: Scene) -> None:
        """Draw whether another leaf has the page when EMODPR wants it."""

        def fails(site: str) -> bool:
            return site == "EMODPR" and bool(execution.draw(2, "EMODPR is refused"))

        scene.kernel.inject = fails

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The host's restriction, and a write."""
        page = scene.enclave.data[0]

        def restrict() -> Steps[None]:
            host = scene.thread(1)
            scene.facts["answer"] = yield from scene.enclave.restrict(host, page, PAGE_SIZE, R)

        def write() -> Steps[None]:
            try:
                yield from scene.thread(2).store(page, b"written!")
            except SignalRaised as raised:
                scene.facts["signal"] = raised

        yield "restricter", 1, restrict()
        yield "writer", 2, write()

    def verify(self, scene: Scene) -> None:
        """The writer must get no signal if nothing was restricted."""
        before, answer = scene.facts["before"], scene.facts["answer"]
        page = scene.watch[0]
        raised: SignalRaised | None = scene.facts["signal"]
        if raised is not None and answer[0] and scene.epcm_word(page) == before[page]:
            raise Violation(
                "spurious fault",
                f"writer gets {raised.signal.name}; {page:#x} was not restricted",
            )
