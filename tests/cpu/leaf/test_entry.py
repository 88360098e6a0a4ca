"""What EENTER and ERESUME test alike: the TCS, the machine, where execution goes on. ENTRY.*"""

from collections.abc import Callable
from functools import partial

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.spec.attributes import ATTR_DEBUG
from softsgx.spec.leaves import EENTER, ERESUME
from softsgx.spec.msr import CR4_OSXSAVE
from softsgx.spec.tcs import TCS_AEXNOTIFY, TCS_DBGOPTIN
from tests.cpu.entry_spoils import BASES, MACHINE, trials
from tests.cpu.table import Attempt, Row, gp, row_id, run_row
from tests.cpu.thread import NON_CANONICAL, NOTIFY_64, Thread, before, name, thread

LEAVES = (EENTER, ERESUME)
STATE_ACTIVE = 1


def never_entered(leaf: int, make: Callable[[], Thread]) -> Attempt:
    """An enclave that cannot be entered at all; for ERESUME its TCS says that a frame is in use."""
    t = make()
    t.leaf, t.rbx = leaf, t.tcs_address
    t.set_tcs(CSSA=int(leaf == ERESUME))
    return t.attempt()


def uninitialised() -> Thread:
    return thread(init=False)


def of_32_bits() -> Thread:
    limits: dict[str, int | bytes] = {"FSLIMIT": 0xFFF, "GSLIMIT": 0xFFF}
    return thread(base=0x1000_0000, attributes=ATTR_DEBUG, tcs=limits)


def aep_last() -> Thread:
    return thread(readings=Readings(aep_before_tcs=False))


def bad_aep(leaf: int) -> Attempt:
    """The reading of the listing: the AEP is tested after the page."""
    t = before(leaf, aep_last)
    t.rcx = NON_CANONICAL
    return t.attempt()


def silent_tcs() -> Thread:
    return thread(attributes=NOTIFY_64)


def shared_by_processors(leaf: int) -> Attempt:
    """The other processor is inside on the same TCS; a frame is free and one is in use."""
    t = before(ERESUME)
    t.leaf = leaf
    t.enclave.enter(t.other)
    return t.attempt()


ROWS = [
    *(row for leaf in LEAVES for row in trials(leaf).rows(MACHINE, name(leaf))),
    *(row for leaf in LEAVES for row in trials(leaf).rows(BASES[leaf], name(leaf))),
    *(
        Row(rule, partial(never_entered, leaf, make), gp(), f"{name(leaf)} real")
        for leaf in LEAVES
        for rule, make in (
            ("ENTRY.05", uninitialised),
            ("ENTRY.06", of_32_bits),
            ("ENTRY.10", silent_tcs),
        )
    ),
    *(
        Row("ENTRY.14", partial(shared_by_processors, leaf), gp(), f"{name(leaf)} real")
        for leaf in LEAVES
    ),
    *(Row("ENTRY.15", partial(bad_aep, leaf), gp(), name(leaf)) for leaf in LEAVES),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_entry_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("flags", [TCS_DBGOPTIN, TCS_DBGOPTIN | TCS_AEXNOTIFY])
@pytest.mark.parametrize("attributes", ["silent", "notifying"])
def test_entry_for_debug_ignores_aexnotify(attributes: str, flags: int) -> None:
    """With DBGOPTIN set the two AEXNOTIFY bits may differ."""
    t = thread() if attributes == "silent" else silent_tcs()
    t.opt_in(flags)
    t.enter()
    assert t.lp.enclave_mode
    assert flags == t.tcs.FLAGS


def test_entry_needs_xsave_only_for_more_than_x87_and_sse() -> None:
    t = thread(xfrm=3)
    t.lp.cr4 &= ~CR4_OSXSAVE
    t.enter()
    assert t.lp.xcr0 == 7, "without OSXSAVE, XCR0 is not switched"
    t.lp.interrupt()
    t.resume()
    t.exit()
    assert t.lp.xcr0 == 7


def test_a_tcs_serves_one_processor_at_a_time() -> None:
    t = thread()
    t.enter()
    with pytest.raises(Fault) as refused:
        t.enclave.enter(t.other)
    assert refused.value.rule == "ENTRY.14"
    t.exit()
    assert t.tcs.STATE == 0
    t.enclave.enter(t.other)
    assert t.tcs.STATE == STATE_ACTIVE
