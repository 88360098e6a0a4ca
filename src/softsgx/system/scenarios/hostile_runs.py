"""A host whose lies compose: up to `lies` of them in one execution, in calls and between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from softsgx.explore import Violation
from softsgx.mem.tlb import CLEAN, FETCH, READ, WRITE
from softsgx.sim import Execution, Steps
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import RWX, USABLE_MASK, USABLE_REG, R, rwx_text
from softsgx.system.checkers import Checker
from softsgx.system.enclave import EnclaveAbort, EnclaveThread
from softsgx.system.host import HostThread
from softsgx.system.runtimes import TrustedManager
from softsgx.system.scenarios.composer import RUN_MENUS, Composer
from softsgx.system.scenarios.hostile_host import WRITTEN, ZEROS, may_fail
from softsgx.system.scenarios.protect import CONTENTS, Managed
from softsgx.system.scenarios.scenario import Cast
from softsgx.system.scene import Scene

MARKED = b"marked 1"
OTHER = b"other pg"


class HostileRuns(Managed):
    """A page is made read-only, uncommitted, committed and marked, each by a call of its own.

    Meanwhile a thread of the enclave writes to it, and the kernel does what it likes: see
    `composer`. The enclave may give up or be unable to go on. It is a violation if it is wrong
    about the rights of the page, or reads a value that it has not written there.
    """

    cpus: ClassVar[int] = 4
    layout: ClassVar = {"threads": 4, "pages": 1, "nssa": 4}
    checkers: ClassVar[Sequence[type[Checker]]] = ()
    lies: ClassVar[int] = 1
    calls: ClassVar[Sequence[str]] = ("protect", "uncommit", "commit")
    others: ClassVar[Sequence[str]] = ("writer", "kernel")

    def build(self, scene: Scene) -> None:
        """The manager calls a composer; the data page has contents as well."""
        super().build(scene)
        manager: TrustedManager = scene.facts["manager"]
        data = scene.enclave.data[0]
        scene.probe(scene.call(1, lambda t: t.store(data, OTHER)))
        composer = Composer(manager.untrusted, scene, scene.enclave.heap, self.lies)
        manager.untrusted = scene.facts["liar"] = composer
        composer.calls = {
            name: self._entry(scene, program)
            for name, program in {
                "protect": self.restrict,
                "uncommit": self.uncommit,
                "commit": self.commit,
            }.items()
        }
        composer.made.append("commit")
        scene.facts["holds"] = (CONTENTS,)
        scene.watch = [scene.enclave.heap, data]

    def begin(self, execution: Execution, scene: Scene) -> None:
        """Let the scheduler draw the lies."""
        scene.facts["liar"].draw = execution.draw

    def draw_text(self, what: str, value: int) -> str:
        """A lie by its name."""
        if what == "call":
            return f"{what}: {self.scene.facts['liar'].made[value]}"
        return f"{what}: {RUN_MENUS[what][value]}"

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """The host's calls, a writer, and the kernel."""
        liar: Composer = scene.facts["liar"]
        page = scene.enclave.heap

        def write(t: EnclaveThread) -> Steps[None]:
            yield from t.store(page, WRITTEN)

        yield "owner", 1, may_fail(self.own(scene))
        for cpu, name in enumerate(self.others, 2):
            if name == "writer":
                yield name, cpu, may_fail(scene.call(cpu, write))
            else:
                yield name, cpu, liar.run(scene.thread(cpu), 0, 3)

    def own(self, scene: Scene) -> Steps[None]:
        """Every call once, then both pages are read."""
        liar: Composer = scene.facts["liar"]
        host = scene.thread(1)
        for name in self.calls:
            if name not in liar.made:
                liar.made.append(name)
            yield from liar.calls[name](host, 0)
        yield from scene.enclave.call(host, lambda t: self.read(scene, t))

    def verify(self, scene: Scene) -> None:
        """No page can be used with a right that the enclave's record does not have.

        Looked at when no manager is at work: after every call, and at the end. A page that is not
        committed has no rights; one that is PENDING or MODIFIED cannot be used.
        """
        manager: TrustedManager = scene.facts["manager"]
        if manager.lock.owner is not None:
            return
        for page, (state, rights) in manager.pages.items():
            word = scene.epcm_word(page) or 0
            usable = word & RWX if word & USABLE_MASK == USABLE_REG else 0
            for lp in scene.machine.processor.lps:
                entry = lp.tlb.entries.get(page >> PAGE_SHIFT, 0) if lp.secs is not None else 0
                usable |= entry & (READ | WRITE | FETCH) | (WRITE if entry & CLEAN else 0)
            if usable & ~rights:
                has, may = rwx_text(usable), rwx_text(rights)
                raise Violation("wider right", f"{page:#x} is {state}, {may}; it has {has}")

    # The enclave's entry points

    def restrict(self, scene: Scene, t: EnclaveThread) -> Steps[None]:
        """The page becomes read-only."""
        manager: TrustedManager = scene.facts["manager"]
        page = scene.enclave.heap
        yield from manager.protect(t, page, PAGE_SIZE, R)
        yield from self.read(scene, t)

    def uncommit(self, scene: Scene, t: EnclaveThread) -> Steps[None]:
        """The page is given back."""
        manager: TrustedManager = scene.facts["manager"]
        yield from manager.uncommit(t, scene.enclave.heap, PAGE_SIZE)
        scene.facts["holds"] = (ZEROS,)

    def commit(self, scene: Scene, t: EnclaveThread) -> Steps[None]:
        """A page of zeros takes its place, and is marked."""
        manager: TrustedManager = scene.facts["manager"]
        page = scene.enclave.heap
        yield from manager.commit(t, page, PAGE_SIZE)
        yield from self.read(scene, t)
        scene.facts["holds"] = (*scene.facts["holds"], MARKED)
        yield from t.store(page, MARKED)
        scene.facts["holds"] = (MARKED,)

    def read(self, scene: Scene, t: EnclaveThread) -> Steps[None]:
        """The page has what the enclave put there, and so has the data page."""
        for page in (scene.enclave.heap, scene.enclave.data[0]):
            read = yield from t.load(page, 8)
            may = (*scene.facts["holds"], WRITTEN) if page == scene.enclave.heap else (OTHER,)
            if read not in may:
                raise Violation("wrong data", f"{read!r} is read where {may[0]!r} must be")

    def _entry(
        self, scene: Scene, program: Callable[[Scene, EnclaveThread], Steps[None]]
    ) -> Callable[[HostThread, int], Steps[Any]]:
        def enclave(t: EnclaveThread) -> Steps[None]:
            if t.cssa:
                raise EnclaveAbort("an entry in the middle of another one")
            try:
                yield from program(scene, t)
            except ValueError as refused:
                raise EnclaveAbort(str(refused)) from refused
            self.verify(scene)

        def call(host: HostThread, thread: int) -> Steps[Any]:
            return scene.enclave.call(host, enclave, thread=thread)

        return call
