"""Tracking: the open readings, each both ways. eblock_locked_first is in leaf/test_eblock."""

import pytest

from softsgx.cpu import Readings
from softsgx.spec.epcm import MODIFIED, PR, REG, TRIM, R
from softsgx.spec.leaves import ELDB
from tests.cpu.epochs import (
    NOT_TRACKED,
    STAMPED,
    STAMPS,
    accept,
    counts,
    data,
    etrack,
    ewb,
    lps,
    machine_with,
)

BOTH = pytest.mark.parametrize("switch", [True, False])


@BOTH
@STAMPED
def test_reading_etrack_needed_when_empty(by: str, switch: bool) -> None:
    """Stamped with nobody inside: a thread that enters later has seen the new EPCM entry."""
    m = machine_with(Readings(etrack_needed_when_empty=switch))
    stamp, asks = STAMPS[by]
    stamp(m)
    m.enclave.enter(lps(m)[0])
    assert asks(m, lps(m)[0]) == (NOT_TRACKED if switch else 0)


@BOTH
def test_reading_etrack_needed_when_the_enclave_became_empty(switch: bool) -> None:
    m = machine_with(Readings(etrack_needed_when_empty=switch))
    a = lps(m)[0]
    m.enclave.enter(a)
    assert m.bare.eblock(data(m)) == 0
    assert ewb(m) == NOT_TRACKED  # a thread is inside: needed in any case
    a.interrupt()
    assert ewb(m) == (NOT_TRACKED if switch else 0)


@BOTH
@STAMPED
def test_reading_late_entry_counts(by: str, switch: bool) -> None:
    m = machine_with(Readings(late_entry_counts=switch))
    stamp, asks = STAMPS[by]
    a, early, late = lps(m)
    m.enclave.enter(early, 1)
    stamp(m)
    m.enclave.enter(late, 2)
    assert etrack(m) == 0
    m.enclave.enter(a, 0)
    assert asks(m, a) == NOT_TRACKED  # `early` may hold an old translation in either reading
    early.interrupt()
    assert asks(m, a) == (NOT_TRACKED if switch else 0)


@BOTH
def test_late_entry_still_needs_an_etrack_and_still_counts_for_the_next(switch: bool) -> None:
    m = machine_with(Readings(late_entry_counts=switch))
    late = lps(m)[0]
    assert m.bare.eblock(data(m)) == 0
    m.enclave.enter(late)
    assert ewb(m) == NOT_TRACKED
    assert etrack(m) == 0
    assert etrack(m) == 17
    assert counts(m) == (1, 0, 1)


def test_late_entry_forgets_who_left_and_came_back() -> None:
    """Who was inside at the stamp, left, and entered again before the ETRACK is a late entry."""
    m = machine_with(Readings(late_entry_counts=False))
    a = lps(m)[0]
    m.enclave.enter(a)
    assert m.bare.eblock(data(m)) == 0
    a.interrupt()
    m.enclave.resume(a)
    assert etrack(m) == 0
    assert ewb(m) == 0


@BOTH
def test_reading_repeated_eblock_restamps(switch: bool) -> None:
    m = machine_with(Readings(repeated_eblock_restamps=switch))
    assert m.bare.eblock(data(m)) == 0
    assert etrack(m) == 0
    stamp = m.bare.processor.epcm.stamp[data(m)]
    assert m.bare.eblock(data(m)) == 3
    assert m.bare.processor.epcm.stamp[data(m)] == stamp + switch
    assert ewb(m) == (NOT_TRACKED if switch else 0)


@BOTH
@pytest.mark.parametrize("flags", [REG | PR | R, TRIM | MODIFIED], ids=["PR", "MODIFIED"])
def test_reading_reloaded_tracked_for_eaccept(flags: int, switch: bool) -> None:
    m = machine_with(Readings(reloaded_tracked=switch))
    a = lps(m)[0]
    if flags & MODIFIED:
        m.bare.emodt(data(m), TRIM)
    else:
        m.bare.emodpr(data(m), R)
    page, status = m.load(m.evict(data(m)))
    assert status == 0
    m.enclave.map(m.enclave.data[0], page)
    m.enclave.enter(a)
    assert accept(m, a, flags=flags) == (0 if switch else NOT_TRACKED)
    a.interrupt()
    assert etrack(m) == 0
    m.enclave.resume(a)
    # Accepted the first time, there is nothing left to accept.
    assert accept(m, a, flags=flags) == (19 if switch and flags & MODIFIED else 0)


@BOTH
@pytest.mark.parametrize("restricted", [True, False])
def test_reading_reloaded_tracked_for_ewb(restricted: bool, switch: bool) -> None:
    """ELDB, then EWB. A page without PR and MODIFIED is never stamped by a reload."""
    m = machine_with(Readings(reloaded_tracked=switch))
    if restricted:
        m.bare.emodpr(data(m), R)
    page, _ = m.load(m.evict(data(m)), leaf=ELDB)
    refused = restricted and not switch
    assert m.bare.ewb(page, m.va, 1, m.bare.backing()) == (NOT_TRACKED if refused else 0)
    if refused:
        assert etrack(m) == 0
        assert m.bare.ewb(page, m.va, 1, m.bare.backing()) == 0


def test_the_default_readings_are_the_documented_ones() -> None:
    default = Readings()
    assert default.etrack_needed_when_empty
    assert default.late_entry_counts
    assert not default.repeated_eblock_restamps
    assert default.reloaded_tracked
    assert default.eblock_locked_first
