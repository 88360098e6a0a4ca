"""Trusted permission changes against accesses, each other, and the reclaimer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from softsgx.linux.version import VERSION_DEFAULT
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.system.checkers import WiderRight
from softsgx.system.enclave import EnclaveThread
from softsgx.system.runtimes import TrustedManager, order_of
from softsgx.system.runtimes.untrusted import Untrusted
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene

CONTENTS = b"contents"


class Managed(MachineScenario):
    """An enclave with a `TrustedManager` and one runtime's order; a base for scenarios.

    `committed` pages of the heap are committed, writable, and have contents.
    """

    layout: ClassVar = {"threads": 3, "pages": 1, "nssa": 4}
    committed: ClassVar[int] = 1
    manager: ClassVar[type[TrustedManager]] = TrustedManager

    def __init__(
        self,
        linux: str = VERSION_DEFAULT,
        races: dict[str, bool] | None = None,
        order: str = "gramine",
    ) -> None:
        super().__init__(linux, races)
        self.order = order
        self.name += f",order={order}"

    def build(self, scene: Scene) -> None:
        """The manager, and its pages."""
        manager = self.manager(
            Untrusted(scene.enclave),
            order_of(self.order, relax=scene.kernel.version.interface.has_relax),
        )
        scene.facts["manager"] = manager
        heap = scene.enclave.heap
        manager.reserve(heap, 4 * PAGE_SIZE)
        length = self.committed * PAGE_SIZE

        def program(t: EnclaveThread) -> Steps[None]:
            yield from manager.commit(t, heap, length)
            for page in range(heap, heap + length, PAGE_SIZE):
                yield from t.store(page, CONTENTS)

        scene.probe(scene.call(1, program))
        for page in range(heap, heap + length, PAGE_SIZE):
            scene.expected[page] = CONTENTS

    def protect(self, scene: Scene, cpu: int, page: int, rights: int) -> Steps[Any]:
        """A trusted protect by enclave code; once it has succeeded, no wider right is usable."""
        manager: TrustedManager = scene.facts["manager"]

        def program(t: EnclaveThread) -> Steps[None]:
            yield from manager.protect(t, page, PAGE_SIZE, rights)
            held = manager.pages[page][1]
            scene.protected[page] = held
            WiderRight().check(scene)

        return scene.call(cpu, program)


class ProtectAccess(Managed):
    """A page becomes read-only while another thread reads it."""

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """Reading should succeed at all times."""
        page = scene.enclave.heap
        yield "protector", 1, self.protect(scene, 1, page, R)
        yield "reader", 2, scene.call(2, lambda t: t.load(page, 8))


class ProtectReclaim(Managed):
    """A page becomes read-only while the reclaimer evicts what it can."""

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """One reclaim pass."""
        page = scene.enclave.heap
        scene.offer_to_reclaimer(page)
        yield "protector", 1, self.protect(scene, 1, page, R)
        yield "reclaimer", 2, scene.kernel.driver.reclaim(scene.thread(2).thread)


class TwoProtects(Managed):
    """Two threads change the rights of two pages of one enclave at the same time.

    Their ioctls exclude each other with -EBUSY, so each has to retry (L6).
    """

    committed: ClassVar[int] = 2

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """One page each."""
        heap = scene.enclave.heap
        yield "first", 1, self.protect(scene, 1, heap, R)
        yield "second", 2, self.protect(scene, 2, heap + PAGE_SIZE, R)


class ExtendRestrict(Managed):
    """One thread takes W away from a page, another one gives it back, in either order.

    The manager's lock orders them; the last one decides.
    """

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The same page."""
        heap = scene.enclave.heap
        yield "restricter", 1, self.protect(scene, 1, heap, R)
        yield "extender", 2, self.protect(scene, 2, heap, R | W)


class TrimReuse(Managed):
    """A page is uncommitted and committed again while a host thread touches it."""

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """Uncommit, commit, write."""
        page = scene.enclave.heap
        manager: TrustedManager = scene.facts["manager"]

        def program(t: EnclaveThread) -> Steps[None]:
            yield from manager.uncommit(t, page, PAGE_SIZE)
            yield from manager.commit(t, page, PAGE_SIZE)
            yield from t.store(page, CONTENTS)

        yield "owner", 1, scene.call(1, program)
        yield "toucher", 2, scene.thread(2).load(page, 1)
