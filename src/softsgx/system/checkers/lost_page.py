"""No page becomes unreachable, and none loses its contents.

Verified, by entering the enclave on a thread of the checker's own when all tasks have ended: every
page of `Scene.expected` can be read and has its contents; every hole of `Scene.holes` can be filled
by EACCEPT, unless the execution has filled it, and written.
Not verified: that this was so at every earlier moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.explore import Violation
from softsgx.sim import StepBound, Steps
from softsgx.spec.epcm import PENDING
from softsgx.system.checkers.checker import Checker
from softsgx.system.host import SignalRaised
from softsgx.system.loaded_enclave import EnclaveFault

if TYPE_CHECKING:
    from softsgx.system.enclave import EnclaveThread
    from softsgx.system.scene import Scene


class LostPage(Checker):
    """Reads every page whose contents are known, and fills every hole."""

    rule = "lost page"

    def check(self, scene: Scene) -> None:
        """Raise the first page that cannot be used or has other contents."""
        for address, contents in scene.expected.items():
            found = self._enter(scene, address, lambda t, a=address: t.load(a, 8))
            if found != contents:
                data = f"{address:#x} holds {found!r}, {contents!r} was written"
                raise Violation("lost data", data)
        for address in scene.holes:
            self._enter(scene, address, lambda t, a=address: _fill(t, a, scene))

    def _enter(self, scene: Scene, address: int, program: object) -> object:
        try:
            return scene.probe(scene.enter(program))
        except (EnclaveFault, SignalRaised) as fault:
            raise self.violated(f"{address:#x} cannot be used any more: {fault}") from fault
        except StepBound as bound:
            raise self.violated(f"the access to {address:#x} is retried forever") from bound


def _fill(t: EnclaveThread, address: int, scene: Scene) -> Steps[bytes]:
    word = scene.epcm_word(address)
    if word is None or word & PENDING:
        yield from t.accept_new(address)
    yield from t.store(address, b"usable")
    return (yield from t.load(address, 6))
