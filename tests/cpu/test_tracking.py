"""Tracking: every transition of the epochs. SDM 3D, EBLOCK, ETRACK, ETRACKC, EWB."""

from collections.abc import Callable

import pytest

from softsgx.cpu import Fault, LogicalProcessor
from softsgx.spec.epcm import TCS, TRIM, R
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
    etrackc,
    ewb,
    lps,
    machine_with,
)
from tests.cpu.paging import Paged


def test_an_enclave_starts_in_epoch_0_with_nobody_counted() -> None:
    m = machine_with()
    assert counts(m) == (0, 0, 0)
    assert not any(m.bare.processor.epcm.stamp)


def test_eenter_and_eresume_count_in_the_current_epoch() -> None:
    m = machine_with()
    a, b = lps(m)[:2]
    m.enclave.enter(a, 0)
    assert (counts(m), a.epoch) == ((0, 1, 0), 0)
    m.enclave.enter(b, 1)
    assert counts(m) == (0, 2, 0)
    a.interrupt()
    assert counts(m) == (0, 1, 0)
    etrack(m)
    m.enclave.resume(a, 0)
    assert (counts(m), a.epoch, b.epoch) == ((1, 1, 1), 1, 0)


@pytest.mark.parametrize("leaf", ["EEXIT", "AEX"])
def test_eexit_and_aex_leave_the_epoch_of_entry(leaf: str) -> None:
    m = machine_with()
    a, b = lps(m)[:2]
    out: Callable[[LogicalProcessor], object]
    out = m.enclave.exit if leaf == "EEXIT" else LogicalProcessor.interrupt
    m.enclave.enter(a, 0)
    etrack(m)
    m.enclave.enter(b, 1)
    assert counts(m) == (1, 1, 1)
    out(b)
    assert counts(m) == (1, 0, 1)
    out(a)
    assert counts(m) == (1, 0, 0)


@TRACKS
def test_etrack_opens_the_next_epoch(track: Callable[[Paged], int]) -> None:
    m = machine_with()
    for thread, lp in enumerate(lps(m)[:2]):
        m.enclave.enter(lp, thread)
    assert track(m) == 0
    assert counts(m) == (1, 0, 2)


@TRACKS
def test_etrack_is_refused_until_all_have_left(track: Callable[[Paged], int]) -> None:
    m = machine_with()
    a, b = lps(m)[:2]
    m.enclave.enter(a, 0)
    m.enclave.enter(b, 1)
    assert track(m) == 0
    for lp in (a, b):
        assert track(m) == SGX_PREV_TRK_INCMPL
        assert counts(m) == (1, 0, 2 if lp is a else 1)
        lp.interrupt()
    assert track(m) == 0
    assert counts(m) == (2, 0, 0)


def test_etrack_and_etrackc_are_one_tracking() -> None:
    m = machine_with()
    a = lps(m)[0]
    m.enclave.enter(a)
    assert etrack(m) == 0
    assert etrackc(m) == SGX_PREV_TRK_INCMPL
    a.interrupt()
    assert etrackc(m) == 0
    assert counts(m) == (2, 0, 0)
    m.enclave.resume(a)
    assert etrackc(m) == 0
    assert etrack(m) == SGX_PREV_TRK_INCMPL


@STAMPED
@TRACKS
def test_either_leaf_completes_what_a_stamp_waits_for(
    by: str, track: Callable[[Paged], int]
) -> None:
    m = machine_with()
    stamp, asks = STAMPS[by]
    stamp(m)
    assert track(m) == 0
    m.enclave.enter(lps(m)[0])
    assert asks(m, lps(m)[0]) == 0


def test_epochs_over_several_cycles() -> None:
    """A processor drains each cycle by one interrupt and comes back into the new epoch."""
    m = machine_with()
    a = lps(m)[0]
    m.enclave.enter(a)
    for cycle in range(1, 6):
        assert etrack(m) == 0
        assert (counts(m), a.epoch) == ((cycle, 0, 1), cycle - 1)
        assert etrack(m) == SGX_PREV_TRK_INCMPL
        a.interrupt()
        m.enclave.resume(a)
        assert (counts(m), a.epoch) == ((cycle, 1, 0), cycle)


def test_a_stamp_of_two_epochs_ago_is_tracked_whoever_is_inside() -> None:
    m = machine_with()
    a = lps(m)[0]
    m.enclave.enter(a)
    assert m.bare.eblock(data(m)) == 0
    assert etrack(m) == 0
    assert ewb(m) == NOT_TRACKED
    a.interrupt()
    m.enclave.resume(a)
    assert etrack(m) == 0
    # The second cycle is incomplete, but the first was completed before it could begin.
    assert counts(m) == (2, 0, 1)
    assert ewb(m) == 0


@STAMPED
def test_who_stamps_writes_the_epoch(by: str) -> None:
    m = machine_with()
    for _ in range(3):
        etrack(m)
    STAMPS[by][0](m)
    # Stored plus one, so that zero is "no stamp".
    assert m.bare.processor.epcm.stamp[data(m)] == 3 + 1


def test_pages_that_are_added_or_loaded_have_no_stamp() -> None:
    m = machine_with()
    etrack(m)
    m.enclave.eaug(m.enclave.heap)
    m.load(m.evict(data(m)))
    assert not any(m.bare.processor.epcm.stamp)


def test_a_refused_leaf_does_not_stamp_and_a_refused_entry_is_not_counted() -> None:
    m = machine_with()
    a, b = lps(m)[:2]
    tcs = m.enclave.pages[m.enclave.tcs[0]]
    assert m.bare.eblock(m.enclave.secs) == 18
    assert m.bare.eblock(m.va) == 5
    page = m.enclave.eaug(m.enclave.heap)
    assert m.bare.emodpr(page, R) == 20
    assert m.bare.emodt(page, TRIM) == 20
    with pytest.raises(Fault, match=r"EMODPR\.10"):
        m.bare.emodpr(tcs, R)
    with pytest.raises(Fault, match=r"EMODT\.09"):
        m.bare.emodt(tcs, TCS)
    assert not any(m.bare.processor.epcm.stamp)
    m.enclave.enter(a)
    with pytest.raises(Fault, match=r"ENTRY\.14"):
        m.enclave.enter(b)
    assert counts(m) == (0, 1, 0)


def test_eaccept_takes_the_stamp_away() -> None:
    m = machine_with()
    m.bare.emodpr(data(m), R)
    etrack(m)
    m.enclave.enter(lps(m)[0])
    assert accept(m, lps(m)[0]) == 0
    assert m.bare.processor.epcm.stamp[data(m)] == 0


def test_enclaves_are_tracked_apart() -> None:
    m = machine_with()
    other = m.bare.enclave(base=0x10_0000_0000)
    m.enclave.enter(lps(m)[0])
    other.enter(lps(m)[1])
    assert m.bare.etrack(other.secs) == 0
    assert counts(m) == (0, 1, 0)
    assert m.bare.eblock(data(m)) == 0
    assert m.bare.etrackc(other.pages[other.scratch]) == SGX_PREV_TRK_INCMPL
    lps(m)[1].interrupt()
    assert m.bare.etrack(other.secs) == 0
    lps(m)[0].interrupt()
    assert ewb(m) == NOT_TRACKED
