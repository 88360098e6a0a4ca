"""The sequences system software needs, each with two threads inside. SDM 3D, ETRACK, EWB, EACCEPT.

What happens when a step is left out is in test_tracking_consequences; here all are there, and the
mask of the interrupts is taken after the ETRACK.
"""

import pytest

from softsgx.cpu import Fault
from softsgx.spec.epcm import MODIFIED, PENDING, PR, REG, TCS, TRIM, VALID, R, W, X
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.cpu.epochs import accept, counts, data, etrack, ewb, lps, machine_with
from tests.cpu.paging import Paged, pattern


def running() -> Paged:
    """Two threads inside."""
    m = machine_with()
    for thread, lp in enumerate(lps(m)[:2]):
        m.enclave.enter(lp, thread)
    return m


def interrupt_all(m: Paged) -> None:
    """An IPI to every processor that is inside; they resume at once."""
    for lp in m.enclave.live():
        thread = m.enclave.tcs.index(lp.tcs_address)
        lp.interrupt()
        m.enclave.resume(lp, thread)


def test_sequence_to_evict() -> None:
    m = running()
    a, b = lps(m)[:2]
    a.store(m.enclave.data[0], pattern(1))
    b.load(m.enclave.data[0], 8)
    m.bare.processor.space.unmap(m.enclave.data[0])
    assert [m.bare.eblock(data(m, n)) for n in (0, 1)] == [0, 0]
    assert etrack(m) == 0
    # They still write through what they cached, up to the interrupt; so EWB must wait.
    a.store(m.enclave.data[0] + 8, b"last")
    interrupt_all(m)
    for lp in (a, b):
        with pytest.raises(Fault, match=r"PAGING\.01"):
            lp.load(m.enclave.data[0], 8)
    assert [ewb(m, n) for n in (0, 1)] == [0, 0]


def test_sequence_to_restrict() -> None:
    m = running()
    a, b = lps(m)[:2]
    address = m.enclave.data[0]
    b.store(address, b"1")
    assert m.bare.emodpr(data(m), R) == 0
    assert etrack(m) == 0
    b.store(address, b"2")
    interrupt_all(m)
    assert accept(m, a) == 0
    with pytest.raises(Fault, match=r"ACCESS\.12"):
        b.store(address, b"3")
    assert b.load(address, 1) == b"2"
    assert m.bare.word(data(m)) == VALID | REG | R


def test_sequence_to_make_a_tcs() -> None:
    m = running()
    a = lps(m)[0]
    ssa = m.enclave.tcs[2] + 4096 - m.enclave.base
    a.store(m.enclave.data[0], TCS_PAGE(OSSA=ssa, NSSA=1).pack())
    assert m.bare.emodt(data(m), TCS) == 0
    assert etrack(m) == 0
    interrupt_all(m)
    assert accept(m, a, flags=TCS | MODIFIED) == 0
    # A third thread enters by it.
    m.enclave.tcs.append(m.enclave.data[0])
    m.enclave.enter(lps(m)[2], 3)
    assert counts(m) == (1, 3, 0)


def test_sequence_to_remove() -> None:
    m = running()
    a = lps(m)[0]
    assert m.bare.emodt(data(m), TRIM) == 0
    assert etrack(m) == 0
    interrupt_all(m)
    assert m.bare.eremove(data(m)) == 14
    assert accept(m, a, flags=TRIM | MODIFIED) == 0
    m.bare.processor.space.unmap(m.enclave.data[0])
    assert m.bare.eremove(data(m)) == 0
    assert counts(m) == (1, 2, 0)  # both threads ran on
    assert m.bare.word(data(m)) == 0


def test_sequences_to_add_and_to_extend() -> None:
    """No ETRACK and no interrupt; EMODPE needs the OS for the page tables only."""
    m = running()
    a, b = lps(m)[:2]
    page = m.enclave.eaug(m.enclave.heap)
    assert m.enclave.eaccept(m.enclave.heap, REG | PENDING | R | W, a) == 0
    b.store(m.enclave.heap, b"new")
    m.enclave.emodpe(m.enclave.heap, X, a)
    assert m.bare.word(page) == VALID | REG | R | W | X
    b.tlb.invlpg(m.enclave.heap)  # narrower than what is allowed now
    assert b.fetch(m.enclave.heap, 3) == b"new"
    assert counts(m) == (0, 2, 0)


def test_sequence_when_etrack_gives_17() -> None:
    m = running()
    assert etrack(m) == 0
    assert m.bare.emodpr(data(m), R) == 0
    assert etrack(m) == 17
    interrupt_all(m)
    assert etrack(m) == 0
    interrupt_all(m)
    assert accept(m, lps(m)[0], flags=REG | PR | R) == 0


def test_sequence_to_tear_down() -> None:
    m = running()
    pages = list(m.enclave.pages.values())
    assert m.bare.eremove(pages[0]) == 14
    for lp in lps(m)[:2]:
        lp.interrupt()
    for page in pages:
        assert m.bare.eremove(m.enclave.secs) == 13
        assert m.bare.eremove(page) == 0
    assert m.bare.eremove(m.enclave.secs) == 0
    assert m.bare.processor.secs == {}
