"""Small random machines: two or three threads of a process, each with a call or two of the driver.

What a call answers is part of how an execution ends, signals included: a page that is gone is no
failure here. The checkers are those of the shipped scenarios.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, NamedTuple

from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.uapi import PROT_NONE, PROT_READ, PROT_WRITE
from softsgx.sim import Execution, Rng, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R
from softsgx.system.host import SignalRaised
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene

Call = tuple[str, int]
"""A call and its page: 0 is the first of the data, which is there; 1 of the heap, a hole."""


class Calls(NamedTuple):
    """The calls of each thread; the page of the data may be the reclaimer's next one."""

    threads: tuple[tuple[Call, ...], ...]
    old: bool = False


def load(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.thread(cpu).load(page, 1)


def store(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.thread(cpu).store(page, bytes([cpu]))


def munmap(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.thread(cpu).munmap(page, PAGE_SIZE)


def protect(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.thread(cpu).mprotect(page, PAGE_SIZE, PROT_READ)


def forbid(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.thread(cpu).mprotect(page, PAGE_SIZE, PROT_NONE)


def permit(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.thread(cpu).mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE)


def restrict(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.enclave.restrict(scene.thread(cpu), page, PAGE_SIZE, R)


def trim(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.enclave.trim(scene.thread(cpu), page, PAGE_SIZE)


def remove(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.enclave.remove(scene.thread(cpu), page, PAGE_SIZE)


def reclaim(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return sgx_reclaim_pages(scene.thread(cpu).thread)


def accept(scene: Scene, cpu: int, page: int) -> Steps[Any]:
    return scene.call(cpu, lambda inside: inside.accept_new(page))


CALLS: Final[dict[str, Callable[[Scene, int, int], Steps[Any]]]] = {
    "load": load,
    "store": store,
    "munmap": munmap,
    "mprotect r": protect,
    "mprotect none": forbid,
    "mprotect rw": permit,
    "restrict": restrict,
    "trim": trim,
    "remove": remove,
    "reclaim": reclaim,
    "accept": accept,
}


class MachineRun(MachineScenario):
    """These calls, as a scenario."""

    cpus: ClassVar[int] = 4
    layout: ClassVar = {"threads": 3, "pages": 1}
    max_steps = 2_000

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.calls = calls
        self.answers: dict[int, list[Any]] = {}

    def build(self, scene: Scene) -> None:
        """The page of the data is what the reclaimer takes next, if it is to be."""
        if self.calls.old:
            scene.offer_to_reclaimer(scene.enclave.data[0])

    def begin(self, execution: Execution, scene: Scene) -> None:
        """Nothing has been answered."""
        self.answers = {}

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        """A task for each thread."""
        for number, calls in enumerate(self.calls.threads, 1):
            yield f"thread {number}", number, self.thread(scene, number, calls)

    def thread(self, scene: Scene, cpu: int, calls: tuple[Call, ...]) -> Steps[None]:
        """The calls of one thread; a signal does not end it."""
        answers = self.answers.setdefault(cpu, [])
        for name, which in calls:
            page = scene.enclave.heap if which else scene.enclave.data[0]
            try:
                answer = yield from CALLS[name](scene, cpu, page)
            except SignalRaised as raised:
                answer = raised.signal.name
            answers.append(repr(answer))

    def observed(self) -> Any:
        """The answers, and what the processor and the page tables have become."""
        scene = self.scene
        answers = tuple((cpu, tuple(each)) for cpu, each in sorted(self.answers.items()))
        space = tuple(sorted(scene.mm.space.ptes.items()))
        return answers, space, self.fingerprint()

    def world(self) -> Any:
        """For tasks that retry: as much, and the driver's records."""
        encl = self.scene.encl
        busy = tuple((page.address, page.busy) for page in encl.page_array.values())
        return self.observed(), busy, encl.flags


def any_machine(rng: Rng) -> Calls:
    """Two threads of one or two calls, or three of one; mostly about one page."""
    names = tuple(CALLS)
    lengths = rng.choice(((1, 1), (1, 1), (1, 2), (1, 1, 1)))
    pages = rng.choice(((0,), (0,), (1,), (0, 1)))
    threads = tuple(
        tuple((rng.choice(names), rng.choice(pages)) for _ in range(length)) for length in lengths
    )
    return Calls(threads, rng.below(3) == 0)
