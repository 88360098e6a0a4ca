"""An entry where the last one was: every test that would now fail still refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from softsgx.cpu import Fault
from softsgx.cpu.entry import tcs_operand
from softsgx.cpu.leaf import eenter
from softsgx.cpu.secs import Secs
from softsgx.spec.epcm import BLOCKED
from softsgx.spec.leaves import EENTER
from softsgx.spec.registers import RAX
from tests.cpu.entry_spoils import BASES, MACHINE, frame_spoils, gp_at, tcs_spoils, trials
from tests.cpu.spoil import Spoil, spoil_id
from tests.cpu.thread import Thread, thread

NO_FRAME = gp_at("EENTER.09", "nssa", lambda t: t.set_tcs(NSSA=0))
NO_SSE = gp_at("ENTRY.09", "xcr0", lambda t: setattr(t.lp, "xcr0", 1), "XCR0 alone")
SPOILS = [*tcs_spoils(EENTER), *MACHINE, NO_SSE, NO_FRAME, *frame_spoils(), *BASES[EENTER]]


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """RBX of each EENTER whose tests were made one by one."""
    made: list[int] = []
    operand: Callable[..., int] = tcs_operand

    def noted(lp: object, rbx: int, *more: object) -> int:
        made.append(rbx)
        return operand(lp, rbx, *more)

    monkeypatch.setattr(eenter, "tcs_operand", noted)
    return made


def _enter(t: Thread) -> None:
    t.lp.enclu(EENTER, t.rbx, t.rcx)


def _entered_twice() -> Thread:
    t = trials(EENTER).fresh()
    for _ in range(2):
        _enter(t)
        t.exit()
    return t


def test_the_tests_are_made_once_while_nothing_changes(tested: list[int]) -> None:
    t = _entered_twice()
    assert tested == [t.rbx]


def test_a_second_entry_does_all_that_the_first_one_did(tested: list[int]) -> None:
    """The registers, the TCS, the frame, the processor's own state, and what is logged."""
    results = []
    for forget in (False, True):
        t = _entered_twice()
        t.lp.regs[:] = range(100, 118)
        if forget:
            t.lp.last_entries = ()
        with t.bare.processor.log.record() as events:
            _enter(t)
        results.append((list(events), t.registers, t.tcs, t.ssa(), t.lp.snapshot()[2:]))
        t.exit()
    assert len(tested) == 3
    assert results[0] == results[1]


@pytest.mark.parametrize("spoil", SPOILS, ids=spoil_id)
def test_what_has_changed_is_refused(spoil: Spoil[Thread]) -> None:
    t = _entered_twice()
    spoil.apply(t)
    with pytest.raises(Fault) as refused:
        _enter(t)
    assert refused.value.rule == spoil.rule


def test_a_change_of_another_page_is_none(tested: list[int]) -> None:
    """Enclaves that grow or shrink change some page between any two entries."""
    t = thread(pages=2)
    t.rbx = t.tcs_address
    _enter(t)
    t.exit()
    page = t.enclave.pages[t.enclave.data[0]]
    epcm, space = t.bare.processor.epcm, t.bare.processor.space
    epcm.put(page, epcm.state[page] | BLOCKED)
    space.unmap(t.enclave.data[1])
    _enter(t)
    assert tested == [t.rbx]


def test_another_enclave_in_the_same_pages_is_another(tested: list[int]) -> None:
    """Its entries may be equal in all tables; its SECS is another."""
    t = _entered_twice()
    secs = t.bare.processor.parent(t.tcs_page)
    t.bare.processor.secs[secs.page] = Secs.restored(secs.snapshot())
    _enter(t)
    assert len(tested) == 2


def test_an_aex_in_between_takes_another_frame() -> None:
    t = thread(frames=2)
    t.enter()
    t.exit()
    t.enter()
    t.lp.interrupt()
    t.enter()
    assert t.lp.regs[RAX] == 1
    assert t.lp.ssa_frame == (t.bare.processor.epc.physical(t.frame_page(1)),)


def test_entries_of_two_frames_are_both_known(tested: list[int]) -> None:
    """An enclave that handles exceptions inside is entered at CSSA 0 and CSSA 1 in turn."""
    t = thread(frames=2)
    for _ in range(3):
        t.enter()
        t.lp.interrupt()
        t.enter()
        assert t.lp.regs[RAX] == 1
        t.exit()
        t.resume()
        t.exit()
    assert len(tested) == 2


def test_a_restored_processor_has_no_last_entry() -> None:
    """Its generations may go back as well, and then say nothing."""
    t = _entered_twice()
    processor = t.bare.processor
    good = processor.snapshot()
    generations = processor.space.generation, processor.epcm.generation
    processor.epcm.put(t.tcs_page, t.bare.word(t.tcs_page) | BLOCKED)
    blocked = processor.snapshot()
    processor.restore(good)
    processor.space.generation, processor.epcm.generation = generations
    _enter(t)
    t.exit()
    processor.restore(blocked)
    processor.space.generation, processor.epcm.generation = generations
    with pytest.raises(Fault) as refused:
        _enter(t)
    assert refused.value.rule == "EENTER.06"
