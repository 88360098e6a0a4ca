"""A host with a menu of lies: whatever it draws, a change really happens or the enclave aborts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from softsgx.explore import Violation
from softsgx.sim import Execution, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from softsgx.system.checkers import Checker, WiderRight
from softsgx.system.enclave import EnclaveAbort, EnclaveThread
from softsgx.system.host import SignalRaised
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.runtimes import TrustedManager
from softsgx.system.scenarios.liar import MENUS, Liar
from softsgx.system.scenarios.protect import CONTENTS, Managed
from softsgx.system.scenarios.scenario import Cast
from softsgx.system.scene import Scene

WRITTEN = b"writable"
ZEROS = bytes(8)


class HostileHost(Managed):
    """A page is made read-only, uncommitted and committed again, all through a lying host.

    Meanwhile a thread of the enclave writes to it. The enclave may give up or be unable to go on.
    It is a violation if it is wrong about the rights of the page, or reads a value that it has
    neither written nor, in a page just committed, may expect.
    """

    checkers: ClassVar[Sequence[type[Checker]]] = (WiderRight,)

    def build(self, scene: Scene) -> None:
        """The manager calls a liar."""
        super().build(scene)
        manager = scene.facts["manager"]
        manager.untrusted = scene.facts["liar"] = Liar(manager.untrusted, scene)

    def begin(self, execution: Execution, scene: Scene) -> None:
        """Let the scheduler draw the lies."""
        scene.facts["liar"].draw = execution.draw

    def draw_text(self, what: str, value: int) -> str:
        """A lie by its name."""
        return f"{what}: {MENUS[what][value]}"

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The owner of the page and a writer; both may fail."""
        page = scene.enclave.heap

        def write(t: EnclaveThread) -> Steps[None]:
            yield from t.store(page, WRITTEN)

        yield "owner", 1, may_fail(self.own(scene, page))
        yield "writer", 2, may_fail(scene.call(2, write))

    def own(self, scene: Scene, page: int) -> Steps[None]:
        """Protect, read, uncommit, commit, and read again: zeros, or what the writer wrote."""
        manager: TrustedManager = scene.facts["manager"]

        def reuse(t: EnclaveThread) -> Steps[None]:
            _expect((yield from t.load(page, 8)), CONTENTS, WRITTEN)
            scene.protected.clear()
            yield from manager.uncommit(t, page, PAGE_SIZE)
            yield from manager.commit(t, page, PAGE_SIZE)
            _expect((yield from t.load(page, 8)), ZEROS, WRITTEN)

        yield from self.protect(scene, 1, page, R)
        yield from scene.call(1, reuse)


def _expect(read: bytes, *written: bytes) -> None:
    if read not in written:
        raise Violation("wrong data", f"{read!r} is read where {written[0]!r} must be")


def may_fail(body: Steps[Any]) -> Steps[Any]:
    """A task that may fail: a refusal is no violation."""
    try:
        return (yield from body)
    except (EnclaveAbort, EnclaveFault, SignalRaised) as end:
        return end
