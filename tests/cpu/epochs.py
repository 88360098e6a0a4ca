"""Builders for tests of tracking: an enclave with threads, what stamps its pages, who asks."""

from collections.abc import Callable

import pytest

from softsgx.cpu import LogicalProcessor, Readings
from softsgx.spec.epcm import MODIFIED, PR, REG, TRIM, R
from tests.cpu.paging import Paged, paged

NOT_TRACKED = 11


def machine_with(readings: Readings | None = None) -> Paged:
    """An initialised enclave with two data pages and three threads; nobody is inside."""
    return paged(init=True, lps=4, threads=3, pages=2, readings=readings)


def counts(m: Paged) -> tuple[int, int, int]:
    """Epoch, and the processors inside that entered in it and in the one before."""
    secs = m.bare.processor.secs[m.enclave.secs]
    return secs.EPOCH, secs.current, secs.previous


def lps(m: Paged) -> list[LogicalProcessor]:
    """The processors of the three threads; the first processor of the machine is the kernel's."""
    return m.bare.processor.lps[1:]


def etrack(m: Paged) -> int:
    """ETRACK of the enclave."""
    status = m.bare.etrack(m.enclave.secs)
    assert status is not None
    return int(status)


def etrackc(m: Paged) -> int:
    """ETRACKC by a page of the enclave."""
    status = m.bare.etrackc(m.page)
    assert status is not None
    return int(status)


TRACKS = pytest.mark.parametrize("track", [etrack, etrackc])


def data(m: Paged, number: int = 0) -> int:
    """A data page."""
    return m.enclave.pages[m.enclave.data[number]]


def ewb(m: Paged, number: int = 0) -> int:
    """EWB of a data page: 0, 10 or 11."""
    status = m.bare.ewb(data(m, number), m.va, number, m.bare.backing())
    assert status is not None
    return int(status)


def accept(m: Paged, lp: LogicalProcessor, number: int = 0, flags: int = REG | PR | R) -> int:
    """EACCEPT of a data page."""
    status = m.enclave.eaccept(m.enclave.data[number], flags, lp)
    assert status is not None
    return int(status)


# What stamps a page, and whether that page is then tracked: by EWB, or by EACCEPT on `lp`.
Stamp = Callable[[Paged], object]
Asks = Callable[[Paged, LogicalProcessor], int]
STAMPS: dict[str, tuple[Stamp, Asks]] = {
    "EBLOCK": (lambda m: m.bare.eblock(data(m)), lambda m, lp: ewb(m)),
    "EMODPR": (lambda m: m.bare.emodpr(data(m), R), accept),
    "EMODT": (
        lambda m: m.bare.emodt(data(m), TRIM),
        lambda m, lp: accept(m, lp, flags=TRIM | MODIFIED),
    ),
}
STAMPED = pytest.mark.parametrize("by", STAMPS)
