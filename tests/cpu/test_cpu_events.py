"""The events of a processor: each is built at one place, once, and only for a listener."""

from collections.abc import Callable
from typing import TypeVar

import pytest

from softsgx.cpu import Bare, Fault, LogicalProcessor, Status
from softsgx.cpu.bare import AEP, EXIT
from softsgx.events.cpu import (
    AccessFaulted,
    Entered,
    EpcmChanged,
    LeafDone,
    LeafFaulted,
    Left,
    TlbFilled,
    TlbFlushed,
)
from softsgx.mem.pagetable import AddressSpace
from softsgx.mem.tlb import CLEAN, READ, WRITE
from softsgx.sim import Event
from softsgx.spec import faults, leaves
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.concurrency import CONCURRENCY
from softsgx.spec.epcm import PENDING, PR, REG, VALID, R, W
from softsgx.spec.status import SGX_BLKSTATE
from tests.cpu.everyleaf import (
    ENCLU,
    MODE_CHANGES,
    SILENT,
    EveryLeaf,
    every_leaf,
    in_task,
)
from tests.cpu.table import Attempt, execute

T = TypeVar("T", bound=Event)
Run = Callable[[Attempt], Status | None]
RUNS = pytest.mark.parametrize("run", [execute, in_task])


@pytest.fixture
def machine() -> EveryLeaf:
    return every_leaf()


def of(kind: type[T], events: list[Event]) -> list[T]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


# Leaves


@RUNS
@pytest.mark.parametrize("leaf", CONCURRENCY)
def test_a_leaf_that_ends_normally_is_one_event_the_last(
    machine: EveryLeaf, leaf: str, run: Run
) -> None:
    a = machine.attempt(leaf)
    with machine.processor.log.record() as events:
        run(a)
    status = -1 if leaf in (*SILENT, *MODE_CHANGES) else 0
    assert events[-1] == LeafDone(a.lp.id, leaf, a.rbx, a.rcx, a.rdx, status, "")
    assert len(of(LeafDone, events)) == 1
    assert not of(LeafFaulted, events)


@RUNS
def test_a_refusal_is_done_under_its_rule(machine: EveryLeaf, run: Run) -> None:
    a = machine.attempt("EBLOCK")._replace(rcx=machine.bare.address(machine.blocked))
    with machine.processor.log.record() as events:
        run(a)
    assert events == [LeafDone(0, "EBLOCK", a.rbx, a.rcx, a.rdx, SGX_BLKSTATE, "EBLOCK.08")]


@RUNS
@pytest.mark.parametrize(
    "leaf", [leaf for leaf in CONCURRENCY if leaf not in ("EDECCSSA", "EEXIT")]
)
def test_a_fault_is_one_event(machine: EveryLeaf, leaf: str, run: Run) -> None:
    a = machine.attempt(leaf)
    a = a._replace(rbx=a.rbx | 1, rcx=a.rcx | 1, rdx=a.rdx | 1)
    with machine.processor.log.record() as events, pytest.raises(Fault) as refusal:
        run(a)
    rule = refusal.value.rule
    assert events == [LeafFaulted(a.lp.id, leaf, a.rbx, a.rcx, a.rdx, faults.GP, 0, 0, rule)]


@RUNS
def test_a_page_fault_of_a_leaf_names_code_and_address(machine: EveryLeaf, run: Run) -> None:
    a = machine.attempt("EMODPR")._replace(rcx=machine.bare.address(machine.free))
    with machine.processor.log.record() as events, pytest.raises(Fault):
        run(a)
    expected = LeafFaulted(0, "EMODPR", a.rbx, a.rcx, 0, faults.PF, 0x8003, a.rcx, "EMODPR.07")
    assert events == [expected]


@RUNS
@pytest.mark.parametrize("leaf", CONCURRENCY)
def test_a_fault_before_a_leaf_is_one_event_too(machine: EveryLeaf, leaf: str, run: Run) -> None:
    a = machine.attempt(leaf)
    a.lp.feature_control = 0
    with machine.processor.log.record() as events, pytest.raises(Fault):
        run(a)
    rule = "ENCLU.04" if leaf in ENCLU else "ENCLS.03"
    assert events == [LeafFaulted(a.lp.id, leaf, a.rbx, a.rcx, a.rdx, faults.GP, 0, 0, rule)]


@RUNS
@pytest.mark.parametrize(("instruction", "rule"), [("encls", "ENCLS.04"), ("enclu", "ENCLU.05")])
def test_a_leaf_without_name_is_named_by_its_number(
    machine: EveryLeaf, instruction: str, rule: str, run: Run
) -> None:
    a = Attempt(machine.processor.lps[0], instruction, 1 << 32 | 0x2A, 1, 2, 3)
    with machine.processor.log.record() as events, pytest.raises(Fault):
        run(a)
    name = f"{instruction.upper()}[0x2a]"
    assert events == [LeafFaulted(0, name, 1, 2, 3, faults.GP, 0, 0, rule)]


# EPCM


@RUNS
@pytest.mark.parametrize("leaf", CONCURRENCY)
def test_every_change_of_the_epcm_is_an_event(machine: EveryLeaf, leaf: str, run: Run) -> None:
    a, epcm = machine.attempt(leaf), machine.processor.epcm
    before = [list(column) for column in (epcm.state, epcm.secs, epcm.address)]
    with machine.processor.log.record() as events:
        run(a)
    expected = []
    for page, (old, new) in enumerate(zip(before[0], epcm.state, strict=True)):
        if old != new:
            # Of an entry that is freed, the event says whose it was.
            secs, linear = (epcm.secs, epcm.address) if new else (before[1], before[2])
            change = EpcmChanged(a.lp.id, page, secs[page], linear[page], old, new, leaf)
            expected.append(change)
    assert of(EpcmChanged, events) == expected


def test_the_owner_of_a_changed_page_is_named(machine: EveryLeaf) -> None:
    a = machine.attempt("EMODPR")
    with machine.processor.log.record() as events:
        execute(a)
    secs, address = machine.enclave.secs, machine.enclave.data[0]
    before, after = VALID | REG | R | W, VALID | REG | R | PR
    expected = EpcmChanged(0, machine.plain, secs, address, before, after, "EMODPR")
    assert of(EpcmChanged, events) == [expected]


@pytest.mark.parametrize("leaf", ["EMODPR", "EMODPE"])
def test_what_is_written_again_has_not_changed(machine: EveryLeaf, leaf: str) -> None:
    execute(machine.attempt(leaf))
    a = machine.attempt(leaf)
    with machine.processor.log.record() as events:
        execute(a)
    assert [type(event) for event in events] == [LeafDone]


# TLB and enclave mode


def small() -> tuple[Bare, LogicalProcessor]:
    """One enclave, its only processor inside."""
    bare = Bare(16)
    bare.enclave().enter()
    return bare, bare.lp


def test_a_translation_is_filled_once_per_miss() -> None:
    bare, lp = small()
    address = lp.elrange_base + 4 * PAGE_SIZE  # the scratch page is 3, data begins after it
    page = address >> PAGE_SHIFT
    with bare.processor.log.record() as events:
        lp.load(address, 8)
        lp.load(address + 8, 8)
        first = lp.tlb.entries[page]
        lp.store(address, b"x")
        lp.store(address, b"y")
    # The read left D clear, so that the first write walks again.
    assert events == [TlbFilled(0, page, first), TlbFilled(0, page, lp.tlb.entries[page])]
    assert first & (READ | WRITE | CLEAN) == READ | CLEAN
    assert lp.tlb.entries[page] & (READ | WRITE) == READ | WRITE


def test_a_refused_access_is_one_event_and_fills_nothing() -> None:
    bare, lp = small()
    address = lp.elrange_base
    with bare.processor.log.record() as events, pytest.raises(Fault):
        lp.load(address, 8)
    assert events == [AccessFaulted(0, address, READ, faults.PF, 0x8005, "ACCESS.06", 0)]


def test_operands_of_leaves_fill_no_translation(machine: EveryLeaf) -> None:
    a = machine.attempt("EACCEPT")
    with machine.processor.log.record() as events:
        execute(a)
    assert not of(TlbFilled, events)


def test_entry_and_exit_are_logged_in_order() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    lp, tcs, eid = bare.lp, enclave.tcs[0], bare.processor.secs[enclave.secs].EID
    with bare.processor.log.record() as events:
        enclave.enter()
        lp.interrupt(0x31)
        enclave.resume()
        enclave.exit()
    assert events == [
        TlbFlushed(0, "EENTER"),
        Entered(0, eid, tcs, 0, False),
        LeafDone(0, "EENTER", tcs, AEP, 0, -1, ""),
        TlbFlushed(0, "AEX"),
        Left(0, eid, tcs, 0x31),
        TlbFlushed(0, "ERESUME"),
        Entered(0, eid, tcs, 0, True),
        LeafDone(0, "ERESUME", tcs, AEP, 0, -1, ""),
        TlbFlushed(0, "EEXIT"),
        Left(0, eid, tcs, -1),
        LeafDone(0, "EEXIT", EXIT, 0, 0, -1, ""),
    ]


def test_a_new_address_space_flushes() -> None:
    bare = Bare(16)
    with bare.processor.log.record() as events:
        bare.lp.load_cr3(AddressSpace("other"))
    assert events == [TlbFlushed(0, "CR3")]


# Without a listener

PLACES = [
    *("softsgx.cpu.execute.LeafDone", "softsgx.cpu.execute.LeafFaulted"),
    *("softsgx.cpu.epcm.EpcmChanged", "softsgx.cpu.access.TlbFilled"),
    *("softsgx.cpu.state.TlbFlushed", "softsgx.cpu.memory.AccessFaulted"),
    *("softsgx.cpu.entry.Entered", "softsgx.cpu.aex.Left", "softsgx.mem.pagetable.PteChanged"),
]


class Built(Exception):
    """An event was built."""


def busy_day(lp: LogicalProcessor, bare: Bare) -> None:
    """At least one of each event."""
    enclave = bare.enclave()
    page = enclave.eaug(enclave.heap)
    enclave.enter()
    enclave.eaccept(enclave.heap, REG | PENDING | R | W)
    lp.interrupt()
    enclave.resume()
    with pytest.raises(Fault):
        lp.load(enclave.tcs[0], 1)
    enclave.exit()
    with pytest.raises(Fault):
        lp.encls(leaves.EMODPR, 1, bare.address(page))
    bare.eremove(page)


def forbid(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Building an event at this place raises."""

    def build(*_fields: object) -> Event:
        raise Built(place)

    monkeypatch.setattr(place, build)


def test_no_event_is_built_without_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Bare(16)
    for place in PLACES:
        forbid(monkeypatch, place)
    busy_day(bare.lp, bare)


@pytest.mark.parametrize("place", PLACES)
def test_every_event_is_built_for_a_listener(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    bare = Bare(16)
    forbid(monkeypatch, place)
    with bare.processor.log.record(), pytest.raises(Built):
        busy_day(bare.lp, bare)
