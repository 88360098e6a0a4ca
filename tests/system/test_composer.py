"""The moves of a composing liar do what they say; a request that is held is done last."""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.explore import Violation
from softsgx.linux.version import NO_RACES
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_MASK, PT_TRIM, REG, RWX, TRIM, R, W
from softsgx.spec.translation import PTE_PFN_MASK
from softsgx.system.enclave import EnclaveAbort, EnclaveProgram, EnclaveThread
from softsgx.system.scenarios.composer import HELD, MOVE, MOVES, RUN_MENUS, Composer
from softsgx.system.scenarios.hostile_runs import HostileRuns
from softsgx.system.scene import Scene


class Drawn:
    """Draws by menu, each in order; then the truth."""

    def __init__(self, **draws: list[int]) -> None:
        self.draws = draws
        self.asked: list[str] = []

    def __call__(self, n: int, what: str) -> int:
        self.asked.append(what)
        left = self.draws.get(what, [])
        value = left.pop(0) if left else 0
        assert value < n
        return value


def composed(lies: int, **draws: list[int]) -> tuple[Scene, Composer, Drawn]:
    """The scene of a scenario, its liar, and what decides."""
    kind = type("Runs", (HostileRuns,), {"lies": lies})
    scene = kind(races=NO_RACES).scene
    liar: Composer = scene.facts["liar"]
    drawn = Drawn(**draws)
    liar.draw = drawn
    scene.host.thread.switch_in()
    return scene, liar, drawn


def moved(move: str, **draws: list[int]) -> tuple[Scene, Composer]:
    """After one move of the kernel."""
    scene, liar, _ = composed(1, move=[MOVES.index(move)], **draws)
    scene.probe(liar.run(scene.thread(3), 0, 3))
    assert liar.left == 0
    return scene, liar


def frame(scene: Scene, address: int) -> int:
    """The frame that the PTE of an address leads to."""
    return scene.mm.space.lookup(address) & PTE_PFN_MASK


def test_nothing_more_ends_a_run() -> None:
    scene, liar, drawn = composed(2)
    before = dict(scene.mm.space.ptes)
    scene.probe(liar.run(scene.thread(3), 0, 3))
    assert (liar.left, drawn.asked) == (2, [MOVE])
    assert scene.mm.space.ptes == before


def test_the_first_pte_is_put_back() -> None:
    scene, liar, _ = composed(1, move=[MOVES.index("the first PTE is put back")])
    page = scene.enclave.heap
    first = scene.mm.space.unmap(page)
    scene.probe(liar.run(scene.thread(3), 0, 3))
    assert scene.mm.space.lookup(page) == first != 0


def test_two_pages_lead_to_one_frame() -> None:
    scene, _ = moved("the address leads to another page's frame")
    page, data = scene.enclave.heap, scene.enclave.data[0]
    ours = frame(scene, page)
    assert ours == frame(scene, data) != 0
    scene, _ = moved("another address leads to the frame")
    assert frame(scene, page) == frame(scene, data) not in (0, ours)


def test_a_fresh_page_takes_its_place() -> None:
    scene, _ = moved("a fresh page in its place")
    assert scene.encl.page(scene.enclave.heap) is None
    assert scene.mm.space.lookup(scene.enclave.heap) == 0


def test_a_page_is_not_taken_while_the_driver_removes_it() -> None:
    """The driver looks a page up, lets go of its lock and frees it: it would be freed twice."""
    scene, liar, _ = composed(1, move=[MOVES.index("a fresh page in its place")])
    liar.removing = 1
    scene.probe(liar.run(scene.thread(3), 0, 3))
    assert scene.encl.page(scene.enclave.heap) is not None


@pytest.mark.parametrize(
    ("move", "tcs"),
    [("an old call again, on its TCS", 0), ("an old call again, on another TCS", 3)],
)
def test_an_old_call_is_entered_again(move: str, tcs: int) -> None:
    scene, liar, _ = composed(1, move=[MOVES.index(move)], call=[1])
    entered: list[tuple[str, int]] = []

    def call(name: str) -> Any:
        def entry(_host: object, thread: int) -> Steps[None]:
            entered.append((name, thread))
            return
            yield

        return entry

    liar.calls = {name: call(name) for name in RUN_MENUS["call"]}
    liar.made = ["commit", "protect"]
    scene.probe(liar.run(scene.thread(3), 0, 3))
    assert entered == [("protect", tcs)]


def test_requests_are_said_to_be_done_and_done_in_another_order() -> None:
    scene, liar, drawn = composed(2, held=[1, 1])
    page = scene.enclave.heap
    host = scene.host
    done = [
        scene.probe(liar.restrict(host, page, PAGE_SIZE, R)),
        scene.probe(liar.modify_types(host, page, PAGE_SIZE, PT_TRIM)),
    ]
    assert done == [(0, 0, PAGE_SIZE)] * 2
    word = scene.epcm_word(page) or 0
    assert (word & RWX, word & PT_MASK) == (R | W, REG)
    assert (liar.left, drawn.asked) == (0, [HELD, HELD])
    scene.probe(liar._complete(host))
    assert [request.name for request in liar.held] == ["restrict"]
    scene.probe(liar.run(scene.thread(3), 0, 3))
    word = scene.epcm_word(page) or 0
    assert word & PT_MASK == TRIM
    assert liar.held == []


def test_no_lie_is_asked_for_when_none_is_left() -> None:
    scene, liar, drawn = composed(0)
    page = scene.enclave.heap
    assert scene.probe(liar.restrict(scene.host, page, PAGE_SIZE, R)).errno == 0
    assert drawn.asked == []
    assert (scene.epcm_word(page) or 0) & RWX == R


def test_an_answer_that_is_a_lie_is_counted() -> None:
    scene, liar, drawn = composed(1, RESTRICT_PERMISSIONS=[1])
    page = scene.enclave.heap
    assert scene.probe(liar.restrict(scene.host, page, PAGE_SIZE, R)).errno == 0
    assert (scene.epcm_word(page) or 0) & RWX == R | W
    assert (liar.left, drawn.asked) == (0, [HELD, "RESTRICT_PERMISSIONS"])


def test_the_driver_is_known_to_remove_pages_while_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a request that is answered, and by one that was held."""
    scene, liar, _ = composed(1, held=[0, 1])
    page, removing = scene.enclave.heap, []
    honest = type(scene.enclave).remove

    def remove(*args: Any) -> Steps[Any]:
        removing.append(liar.removing)
        return (yield from honest(*args))

    monkeypatch.setattr(type(scene.enclave), "remove", remove)
    scene.probe(liar.remove(scene.host, page, PAGE_SIZE))
    assert (removing, liar.removing) == ([1], 0)
    scene.probe(liar.remove(scene.host, page, PAGE_SIZE))
    scene.probe(liar.run(scene.thread(3), 0, 3))
    assert (removing, liar.removing) == ([1, 1], 0)


def test_a_call_in_the_middle_of_another_is_refused() -> None:
    class Nested(EnclaveThread):
        def run(self, program: EnclaveProgram) -> Steps[Any]:
            self.cssa = 1
            return super().run(program)

    scene, liar, _ = composed(0)
    scene.enclave.thread_type = Nested
    with pytest.raises(EnclaveAbort, match="in the middle of another"):
        scene.probe(liar.calls["protect"](scene.host, 0))


def test_the_record_is_compared_when_no_manager_is_at_work() -> None:
    kind = HostileRuns(races=NO_RACES)
    scene = kind.scene
    manager = scene.facts["manager"]
    kind.verify(scene)
    manager.pages[scene.enclave.heap] = ("committed", R)
    with pytest.raises(Violation, match="is committed, r--; it has rw-"):
        kind.verify(scene)
    manager.lock.owner = object()
    kind.verify(scene)
