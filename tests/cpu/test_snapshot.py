"""Processor.snapshot and restore: the machine goes on as if nothing had happened since.

Verified here: what happens after a restore. That a snapshot holds every component is in
test_fingerprint, the snapshots of the EPCM alone in test_epcm, of memory in tests/mem.
"""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softsgx.cpu import Bare, Fault, LogicalProcessor, Readings
from softsgx.mem import AddressSpace
from softsgx.mem.tlb import WRITE
from softsgx.spec.epcm import PR, REG, TRIM, VALID, R, W
from softsgx.spec.leaves import EBLOCK, EREMOVE
from softsgx.spec.registers import R8
from softsgx.spec.tcs import TCS
from tests.cpu.machines import USER, Everything, everything
from tests.cpu.paging import Paged, hold_open, paged, pattern


def counts(m: Paged) -> tuple[int, int, int]:
    secs = m.bare.processor.secs[m.enclave.secs]
    return secs.EPOCH, secs.current, secs.previous


def test_a_processor_that_was_inside_is_inside_again_and_goes_on() -> None:
    m = paged(init=True)
    lp, enclave, processor = m.bare.processor.lps[1], m.enclave, m.bare.processor
    address = enclave.data[0]
    enclave.enter(lp)
    lp.store(address, b"inside")
    lp.regs[R8] = 0x1111
    image, fingerprint = processor.snapshot(), processor.fingerprint()
    lp.store(address, b"later!")
    lp.interrupt()
    assert m.bare.etrack(enclave.secs) == 0
    for page in list(enclave.pages.values()):
        assert m.bare.eremove(page) == 0
    assert m.bare.eremove(enclave.secs) == 0

    processor.restore(image)
    assert processor.fingerprint() == fingerprint
    assert lp.secs is processor.secs[enclave.secs]
    assert counts(m) == (0, 1, 0)
    assert lp.load(address, 6) == b"inside"
    lp.regs[R8 + 1] = 0x2222
    inside = lp.regs[:]
    lp.interrupt()
    assert not lp.enclave_mode
    assert counts(m) == (0, 0, 0)
    assert TCS.unpack(m.content(enclave.pages[enclave.tcs[0]])).CSSA == 1
    enclave.resume(lp)
    assert lp.regs == inside
    assert lp.load(address, 6) == b"inside"
    enclave.exit(lp)
    enclave.enter(lp)
    assert m.bare.etrack(enclave.secs) == 0
    assert m.bare.etrack(enclave.secs) == 17


def test_stale_translations_are_restored() -> None:
    """A snapshot between EMODPR and the AEX that flushes: writes go on, then and again."""
    m = paged(init=True)
    lp, processor = m.bare.processor.lps[1], m.bare.processor
    address = m.enclave.data[0]
    m.enclave.enter(lp)
    lp.store(address, b"1")
    assert m.bare.emodpr(m.page, R) == 0
    image = processor.snapshot()
    for _ in range(2):
        assert lp.tlb.holds(address) & WRITE
        lp.store(address, b"2")
        lp.interrupt()
        m.enclave.resume(lp)
        with pytest.raises(Fault, match=r"ACCESS\.12"):
            lp.store(address, b"3")
        processor.restore(image)
    assert lp.load(address, 1) == b"1"


def test_a_tracking_cycle_goes_on_where_it_was() -> None:
    m = paged(init=True)
    lp, processor = m.bare.processor.lps[1], m.bare.processor
    m.enclave.enter(lp)
    assert m.bare.eblock(m.page) == 0
    assert m.bare.etrack(m.enclave.secs) == 0
    image = processor.snapshot()
    for _ in range(2):
        assert counts(m) == (1, 0, 1)
        assert m.bare.ewb(m.page, m.va, 0, m.bare.backing()) == 11
        lp.interrupt()
        assert m.bare.ewb(m.page, m.va, 0, m.bare.backing()) == 0
        processor.restore(image)


def test_the_history_of_late_entries_is_restored() -> None:
    m = paged(init=True, threads=2, lps=3, readings=Readings(late_entry_counts=False))
    processor, (early, late) = m.bare.processor, m.bare.processor.lps[1:]
    m.enclave.enter(early, 0)
    assert m.bare.eblock(m.page) == 0
    m.enclave.enter(late, 1)
    assert m.bare.etrack(m.enclave.secs) == 0
    image = processor.snapshot()
    for _ in range(2):
        assert m.bare.ewb(m.page, m.va, 0, m.bare.backing()) == 11
        early.interrupt()
        assert m.bare.ewb(m.page, m.va, 0, m.bare.backing()) == 0
        m.bare.eremove(m.va)
        processor.restore(image)


def test_ids_versions_and_frames_are_given_out_again() -> None:
    m = paged()
    processor = m.bare.processor
    image = processor.snapshot()
    seen = set()
    for _ in range(2):
        other = m.bare.enclave(base=0x10_0000_0000, init=False)
        m.evict(m.page)
        frame = processor.memory.alloc()
        seen.add((processor.secs[other.secs].EID, m.slot(0), frame))
        processor.restore(image)
    assert len(seen) == 1


def test_an_evicted_page_can_be_loaded_after_every_restore() -> None:
    m = paged()
    m.fill(m.page, pattern(1))
    backing = m.evict(m.page)
    image = m.bare.processor.snapshot()
    for _ in range(2):
        page, status = m.load(backing)
        assert (status, m.content(page)) == (0, pattern(1))
        assert m.load(backing)[1] == 9
        m.bare.processor.restore(image)


def test_a_measurement_goes_on_from_the_snapshot() -> None:
    """Before and after the eviction of an enclave that is being built."""
    for evicted in (False, True):
        m = paged()
        processor = m.bare.processor
        if evicted:
            for page in m.enclave.pages.values():
                m.bare.eremove(page)
            backing = m.evict(m.enclave.secs)
        image = processor.snapshot()
        digests = set()
        for _ in range(2):
            if evicted:
                m.enclave.secs, _ = m.load(backing, secs=None)
            m.enclave.add(m.enclave.heap, pattern(2), measure=True)
            assert m.bare.einit(m.enclave.secs, m.bare.sigstruct(m.enclave.secs)) == 0
            digests.add(processor.secs[m.enclave.secs].MRENCLAVE)
            processor.restore(image)
        assert len(digests) == 1


def test_snapshots_of_several_moments_are_independent() -> None:
    m = paged(init=True)
    processor = m.bare.processor
    moments = []
    for step in (
        lambda: m.enclave.enter(),
        lambda: m.bare.lp.store(m.enclave.data[0], b"x"),
        lambda: m.enclave.exit(),
        lambda: m.bare.eblock(m.page),
        lambda: m.bare.etrack(m.enclave.secs),
        lambda: m.evict(m.page),
    ):
        moments.append((processor.snapshot(), processor.fingerprint()))
        step()
    moments.append((processor.snapshot(), processor.fingerprint()))
    assert len({fingerprint for _, fingerprint in moments}) == len(moments)
    for number in (3, 0, 6, 1, 5, 2, 4):
        processor.restore(moments[number][0])
        assert processor.fingerprint() == moments[number][1]


def test_no_snapshot_while_a_leaf_is_in_flight() -> None:
    m = paged()
    finish = hold_open(m.bare.lp.encls_steps(EBLOCK, 0, m.bare.address(m.page)))
    with pytest.raises(RuntimeError, match="in the middle of a leaf"):
        m.bare.processor.snapshot()
    assert finish() == 0
    m.bare.processor.snapshot()


def test_a_restore_forgets_a_leaf_in_flight() -> None:
    """And when that leaf is closed later, it releases nothing that another holds now."""
    m = paged()
    lp, image = m.bare.lp, m.bare.processor.snapshot()
    rcx = m.bare.address(m.page)
    abandoned = lp.encls_steps(EREMOVE, 0, rcx)
    next(abandoned)
    assert not lp.interruptible()
    m.bare.processor.restore(image)
    assert lp.interruptible()
    finish = hold_open(lp.encls_steps(EREMOVE, 0, rcx))
    abandoned.close()
    assert not lp.interruptible()
    with pytest.raises(Fault, match=r"EREMOVE\.03"):
        m.bare.eremove(m.page, m.bare.processor.lps[1])
    assert finish() == 0


# Address spaces


def test_a_processor_in_a_second_address_space_is_back_in_it() -> None:
    e = everything()
    processor, lp, boot = e.bare.processor, e.bare.processor.lps[1], e.bare.processor.space
    image, fingerprint = processor.snapshot(), processor.fingerprint()
    before = e.second.lookup(USER), boot.lookup(USER)
    for _ in range(2):
        lp.interrupt()
        e.second.map(USER, processor.memory.alloc())
        e.second.unmap(e.enclave.data[0])
        boot.unmap(USER)
        boot.map(USER + 0x1000, 7)
        lp.load_cr3(boot)
        with pytest.raises(Fault, match=r"PAGING\.01"):
            lp.load(USER, 6)
        assert processor.fingerprint() != fingerprint

        processor.restore(image)
        assert processor.fingerprint() == fingerprint
        assert lp.space is e.second
        assert (e.second.lookup(USER), boot.lookup(USER)) == before
        assert boot.lookup(USER + 0x1000) == 0
        # Inside, through the tables of the second space; outside, by the first.
        assert lp.load(USER, 6) == b"before"
        assert lp.load(e.enclave.data[0], 4096) == pattern(1)
        assert processor.lps[2].load(USER, 7) == b"outside"


def test_the_first_address_space_is_restored_though_nobody_is_in_it() -> None:
    bare = Bare(16)
    other = AddressSpace("other")
    bare.processor.space.map(USER, 5)
    for lp in bare.processor.lps:
        lp.load_cr3(other)
    image, fingerprint = bare.processor.snapshot(), bare.processor.fingerprint()
    bare.processor.space.map(USER, 6)
    assert bare.processor.fingerprint() != fingerprint
    bare.processor.restore(image)
    assert bare.processor.space.lookup(USER) >> 12 & 0xFF == 5
    assert bare.processor.fingerprint() == fingerprint


def test_a_space_that_came_later_is_left_and_is_not_touched() -> None:
    """It is its owner's: the snapshot does not know it."""
    bare = Bare(16)
    image = bare.processor.snapshot()
    later = AddressSpace("later")
    later.map(USER, 5)
    bare.lp.load_cr3(later)
    bare.processor.restore(image)
    assert bare.lp.space is bare.processor.space
    assert later.lookup(USER) >> 12 & 0xFF == 5


# Large EPC


def test_a_large_epc_is_restored_with_pages_of_later_blocks_gone() -> None:
    bare = Bare(1 << 20)
    processor = bare.processor
    m = Paged(bare, bare.enclave(), bare.epa())
    image, fingerprint = processor.snapshot(), processor.fingerprint()
    assert isinstance(image.epcm, dict)
    assert list(image.epcm) == [0]
    for number, page in enumerate((5000, 70_000, (1 << 20) - 1)):
        bare._next = page
        m.enclave.eaug(m.enclave.heap + 4096 * number)
        assert bare.word(page)
        m.fill(page, pattern(page))
    assert processor.fingerprint() != fingerprint
    processor.restore(image)
    assert processor.fingerprint() == fingerprint
    assert not any(bare.word(page) for page in (5000, 70_000, (1 << 20) - 1))
    assert m.content(70_000) == bytes(4096)
    m.enclave.enter()
    assert bare.lp.load(m.enclave.data[0], 8) == bytes(8)


# Anything at all, and the same again

Step = Callable[[Everything, LogicalProcessor], object]


def enter_or_leave(e: Everything, lp: LogicalProcessor) -> None:
    thread = 0 if lp.id == 1 else 1
    if lp.secs is None:
        lp.load_cr3(e.second)
        tcs = e.enclave.pages[e.enclave.tcs[thread]]
        word = e.bare.processor.memory.read(e.bare.processor.epc.physical(tcs), 4096)
        again = TCS.unpack(word).CSSA
        (e.enclave.resume if again else e.enclave.enter)(lp, thread)
    else:
        lp.interrupt()


def data(e: Everything, number: int) -> int:
    return e.enclave.pages[e.enclave.data[number]]


def evict_and_load(e: Everything, lp: LogicalProcessor) -> None:
    bare = e.bare
    bare.eblock(data(e, 0))
    bare.etrack(e.enclave.secs)
    backing = bare.backing()
    if bare.ewb(data(e, 0), e.va, 40 + lp.id, backing) in (0, 12):
        bare.eld(backing, e.va, 40 + lp.id, e.enclave.secs, page=data(e, 0))


STEPS: dict[str, Step] = {
    "enter or leave": enter_or_leave,
    "store": lambda e, lp: lp.store(e.enclave.data[0] + 8, b"store"),
    "store outside": lambda e, lp: lp.store(USER, b"user"),
    "EMODPR": lambda e, lp: e.bare.emodpr(data(e, 0), R),
    "EMODT": lambda e, lp: e.bare.emodt(data(e, 1), TRIM),
    "ETRACK": lambda e, lp: e.bare.etrack(e.enclave.secs),
    "EACCEPT": lambda e, lp: e.enclave.eaccept(e.enclave.data[0], REG | PR | R, lp),
    "EMODPE": lambda e, lp: e.enclave.emodpe(e.enclave.data[0], R | W, lp),
    "EWB ELD": evict_and_load,
    "EEXTEND": lambda e, lp: e.bare.eextend(e.unfinished.secs, e.unfinished.secs + 1),
    "PTE": lambda e, lp: e.second.map(USER + 0x1000 * lp.id, e.bare.processor.memory.alloc()),
}
MACHINE = everything()
START = MACHINE.bare.processor.snapshot()
Program = list[tuple[str, int]]
PROGRAMS = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(1, 2)), max_size=12)


def perform(program: Program) -> list[int | str]:
    """The fingerprint after every step, or the rule that refused it."""
    seen: list[int | str] = []
    for name, lp in program:
        try:
            STEPS[name](MACHINE, MACHINE.bare.processor.lps[lp])
        except Fault as fault:
            seen.append(fault.rule)
        seen.append(MACHINE.fingerprint())
    return seen


@settings(max_examples=100)
@given(before=PROGRAMS, after=PROGRAMS, detour=PROGRAMS)
def test_what_follows_a_restore_is_what_followed_the_snapshot(
    before: Program, after: Program, detour: Program
) -> None:
    processor = MACHINE.bare.processor
    processor.restore(START)
    perform(before)
    image = processor.snapshot()
    straight = perform(after)
    perform(detour)
    processor.restore(image)
    assert perform(after) == straight


def test_the_programs_do_something() -> None:
    MACHINE.bare.processor.restore(START)
    seen = perform([(name, 1) for name in STEPS])
    assert len({value for value in seen if isinstance(value, int)}) == len(STEPS)
    assert MACHINE.bare.word(data(MACHINE, 1)) & VALID
