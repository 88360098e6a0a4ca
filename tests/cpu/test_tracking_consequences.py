"""Tracking: what follows from the epochs for EWB and EACCEPT. SDM 3D, ETRACK, EWB, EACCEPT."""

from collections.abc import Callable

import pytest

from softsgx.cpu import LogicalProcessor
from softsgx.cpu.bare import BareEnclave
from softsgx.spec.epcm import MODIFIED, PENDING, PR, REG, TRIM, R, W, X
from softsgx.spec.status import SGX_PREV_TRK_INCMPL
from tests.cpu.epochs import (
    NOT_TRACKED,
    STAMPED,
    STAMPS,
    TRACKS,
    accept,
    counts,
    data,
    etrack,
    ewb,
    lps,
    machine_with,
)
from tests.cpu.paging import Paged


@STAMPED
def test_consequence_1_nothing_is_tracked_before_an_etrack(by: str) -> None:
    m = machine_with()
    stamp, asks = STAMPS[by]
    a = lps(m)[0]
    assert etrack(m) == 0  # too early to count
    stamp(m)
    m.enclave.enter(a)
    assert asks(m, a) == NOT_TRACKED
    a.interrupt()
    m.enclave.resume(a)
    assert asks(m, a) == NOT_TRACKED


@STAMPED
def test_consequence_1_nothing_is_tracked_while_one_of_those_is_inside(by: str) -> None:
    m = machine_with()
    stamp, asks = STAMPS[by]
    a, b, c = lps(m)
    m.enclave.enter(b, 1)
    m.enclave.enter(c, 2)
    stamp(m)
    assert etrack(m) == 0
    m.enclave.enter(a, 0)
    for lp in (b, c):
        assert asks(m, a) == NOT_TRACKED
        lp.interrupt()
    assert asks(m, a) == 0


@STAMPED
def test_consequence_2_who_enters_after_the_etrack_does_not_matter(by: str) -> None:
    m = machine_with()
    stamp, asks = STAMPS[by]
    stamp(m)
    assert etrack(m) == 0
    for thread, lp in enumerate(lps(m)):
        m.enclave.enter(lp, thread)
    assert counts(m) == (1, 3, 0)
    assert asks(m, lps(m)[0]) == 0


@STAMPED
def test_consequence_3_who_enters_between_stamp_and_etrack_counts(by: str) -> None:
    m = machine_with()
    stamp, asks = STAMPS[by]
    a, b = lps(m)[:2]
    stamp(m)
    m.enclave.enter(b, 1)
    assert etrack(m) == 0
    m.enclave.enter(a, 0)
    assert asks(m, a) == NOT_TRACKED
    b.interrupt()
    assert asks(m, a) == 0


def by_exit(enclave: BareEnclave, lp: LogicalProcessor) -> None:
    enclave.exit(lp)
    enclave.enter(lp)


def by_interrupt(enclave: BareEnclave, lp: LogicalProcessor) -> None:
    lp.interrupt()
    enclave.resume(lp)


@pytest.mark.parametrize("again", [by_exit, by_interrupt])
@pytest.mark.parametrize("by", ["EMODPR", "EMODT"])
def test_consequence_4_who_accepts_must_itself_have_left(
    by: str, again: Callable[[BareEnclave, LogicalProcessor], None]
) -> None:
    m = machine_with()
    stamp, asks = STAMPS[by]
    a = lps(m)[0]
    m.enclave.enter(a)
    stamp(m)
    again(m.enclave, a)  # before the ETRACK: of no use
    assert etrack(m) == 0
    assert asks(m, a) == NOT_TRACKED
    again(m.enclave, a)
    assert asks(m, a) == 0


@TRACKS
def test_consequence_5_etrack_is_needed_with_nobody_inside(track: Callable[[Paged], int]) -> None:
    m = machine_with()
    assert m.bare.eblock(data(m)) == 0
    assert ewb(m) == NOT_TRACKED
    assert track(m) == 0
    assert ewb(m) == 0


@STAMPED
def test_consequence_6_a_batch_shares_one_etrack(by: str) -> None:
    m = machine_with()
    a, b = lps(m)[:2]
    m.enclave.enter(b, 1)
    assert m.bare.emodpr(data(m, 1), R) == 0
    STAMPS[by][0](m)
    assert etrack(m) == 0
    m.enclave.enter(a, 0)
    assert [accept(m, a, 1), STAMPS[by][1](m, a)] == [NOT_TRACKED, NOT_TRACKED]
    assert etrack(m) == SGX_PREV_TRK_INCMPL
    b.interrupt()
    assert [accept(m, a, 1), STAMPS[by][1](m, a)] == [0, 0]


@pytest.mark.parametrize("flags", [REG | PR | R, TRIM | MODIFIED], ids=["PR", "MODIFIED"])
def test_consequence_7_a_reloaded_page_is_tracked(flags: int) -> None:
    m = machine_with()
    a = lps(m)[0]
    if flags & MODIFIED:
        m.bare.emodt(data(m), TRIM)
    else:
        m.bare.emodpr(data(m), R)
    page, status = m.load(m.evict(data(m)))
    assert status == 0
    m.enclave.map(m.enclave.data[0], page)
    m.enclave.enter(a)
    assert accept(m, a, flags=flags) == 0


def test_consequence_8_a_second_emodpr_restamps() -> None:
    m = machine_with()
    a = lps(m)[0]
    page = data(m)
    assert m.bare.emodpr(page, R | W) == 0
    assert etrack(m) == 0
    assert m.bare.emodpr(page, R) == 0
    m.enclave.enter(a)
    assert accept(m, a) == NOT_TRACKED
    a.interrupt()
    assert etrack(m) == 0
    m.enclave.resume(a)
    assert accept(m, a) == 0


def test_accepting_a_pending_page_needs_no_tracking() -> None:
    """Also not while others are inside, nor for EACCEPTCOPY."""
    m = machine_with()
    a, b = lps(m)[:2]
    heap = m.enclave.heap
    m.enclave.enter(a, 0)
    m.enclave.enter(b, 1)
    for address in (heap, heap + 4096):
        m.enclave.eaug(address)
    assert m.enclave.eaccept(heap, REG | PENDING | R | W, a) == 0
    assert m.enclave.eacceptcopy(heap + 4096, m.enclave.data[1], REG | R | X, a) == 0
    assert counts(m) == (0, 2, 0)
