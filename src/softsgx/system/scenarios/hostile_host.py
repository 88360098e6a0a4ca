"""A host with a menu of lies: whatever it draws, a protect is true or the enclave aborts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

from softsgx.sim import Execution, Steps
from softsgx.spec.epcm import R, W
from softsgx.system.checkers import Checker, WiderRight
from softsgx.system.enclave import EnclaveAbort, EnclaveThread
from softsgx.system.host import HostThread, SignalRaised
from softsgx.system.loader import EnclaveFault
from softsgx.system.runtimes.untrusted import Answer, Untrusted
from softsgx.system.scenarios.protect import Managed
from softsgx.system.scenarios.scenario import Cast
from softsgx.system.scenarios.scene import Scene

HONEST, IDLE, OTHER_RIGHTS, COUNT_TOO_HIGH, COUNT_NEGATIVE, ERROR = range(6)
LIES: Final = 6


class Liar(Untrusted):
    """Draws for every RESTRICT_PERMISSIONS how to lie; 0 is the truth."""

    def __init__(self, honest: Untrusted) -> None:
        super().__init__(honest.enclave)
        self.draw: Callable[[int, str], int] = lambda n, what: HONEST

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        """RESTRICT_PERMISSIONS, or not."""
        lie = self.draw(LIES, "lie")
        if lie == IDLE:
            return Answer(0, 0, length)
        asked = rights | W if lie == OTHER_RIGHTS else rights
        answer = yield from super().restrict(host, address, length, asked)
        if lie == COUNT_TOO_HIGH:
            return answer._replace(done=2 * length)
        if lie == COUNT_NEGATIVE:
            return answer._replace(done=-length)
        if lie == ERROR:
            return Answer(-14, 0, 0)
        return answer


class HostileHost(Managed):
    """A page becomes read-only by the host's help, while a thread of the enclave writes to it.

    That the enclave gives up or cannot go on is no finding here; that it believes what is not so
    would be.
    """

    checkers: ClassVar[Sequence[type[Checker]]] = (WiderRight,)

    def build(self, scene: Scene) -> None:
        """The manager's host functions are a liar's."""
        super().build(scene)
        manager = scene.facts["manager"]
        manager.untrusted = scene.facts["liar"] = Liar(manager.untrusted)

    def begin(self, execution: Execution, scene: Scene) -> None:
        """Let the scheduler draw the lies."""
        scene.facts["liar"].draw = execution.draw

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The protector and a writer, who may both fail."""
        page = scene.enclave.heap

        def write(t: EnclaveThread) -> Steps[None]:
            yield from t.store(page, b"writable")

        yield "protector", 1, _may_fail(self.protect(scene, 1, page, R))
        yield "writer", 2, _may_fail(scene.call(2, write))


def _may_fail(body: Steps[Any]) -> Steps[Any]:
    try:
        return (yield from body)
    except (EnclaveAbort, EnclaveFault, SignalRaised) as end:
        return end
