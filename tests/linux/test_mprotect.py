"""mprotect and munmap of enclave areas: checks, splitting, entries. Linux 6.12, mm/mprotect.c."""

from typing import Any

import pytest

from softsgx.cpu.fault import Fault
from softsgx.linux.errno import EACCES, EINVAL, ENOMEM
from softsgx.mem.pagetable import PTE_P, PTE_W
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.sim import Steps, WaitFlag
from softsgx.sim.events import IpiSent
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X
from softsgx.system import EnclaveThread, SignalRaised
from tests.linux.world import World, together, unmapped, world


def pages(count: int) -> tuple[World, int]:
    """An enclave with one area of `count` RW pages; the address of the first."""
    w = world(pages=count)
    return w, w.enclave.data[0]


def layout(w: World) -> list[tuple[int, int]]:
    """(pages, rights) of the areas of the data pages."""
    return w.areas(w.enclave.data[0], len(w.enclave.data) * PAGE_SIZE)


# Checks


def test_arguments() -> None:
    w, data = pages(1)
    assert w.protect(data + 1, R) == -EINVAL
    assert w.protect(data, 16) == -EINVAL
    assert w.protect(data, 8, 0) == 0, "an empty range is fine before the rights are looked at"
    assert w.protect(data, R, 1 << 64) == -ENOMEM
    assert w.protect(0x1000, R) == -ENOMEM
    assert layout(w) == [(1, R | W)]


def test_length_is_rounded_up() -> None:
    w, data = pages(3)
    assert w.protect(data, R, PAGE_SIZE + 1) == 0
    assert layout(w) == [(2, R), (1, R | W)]


def test_cap_counts_in_the_affected_part_only() -> None:
    """The scratch page below it has RW, the data page R only; one area covers both."""
    w = world(rights=R)
    scratch, data = w.enclave.scratch, w.enclave.data[0]
    assert data == scratch + PAGE_SIZE
    assert w.map(scratch, R, 2 * PAGE_SIZE) == scratch
    assert w.protect(scratch, R | W, 2 * PAGE_SIZE) == -EACCES
    assert w.areas(scratch, 2 * PAGE_SIZE) == [(2, R)], "nothing is split by a refusal"
    assert w.protect(scratch, R | W) == 0
    assert w.areas(scratch, 2 * PAGE_SIZE) == [(1, R | W), (1, R)]


def test_range_counts_after_init() -> None:
    """An area that was mapped before INIT may lie partly outside; there mprotect is refused."""
    w = unmapped(early=R)
    end = w.enclave.base + w.enclave.size
    assert w.protect(end - PAGE_SIZE, 0, 2 * PAGE_SIZE) == -EACCES
    assert w.protect(end, R) == -EACCES
    assert w.protect(end - PAGE_SIZE, 0) == 0


def test_read_implies_exec_is_refused() -> None:
    w, data = pages(1)
    w.mm.read_implies_exec = True
    assert w.protect(data, R) == -EACCES


# Partial effects


def test_areas_before_a_refused_one_are_changed() -> None:
    """Caps RW, R, and a hole without one: the second area is refused, the third not reached."""
    w = world(rights=R)
    scratch = w.enclave.scratch
    addresses = [scratch, w.enclave.data[0], w.enclave.heap]
    assert addresses == list(range(scratch, scratch + 3 * PAGE_SIZE, PAGE_SIZE))
    for address in addresses:
        assert w.map(address, R) == address
    assert w.protect(scratch, R | W, 3 * PAGE_SIZE) == -EACCES
    assert w.areas(scratch, 3 * PAGE_SIZE) == [(1, R | W), (1, R), (1, R)]


def test_area_before_a_gap_is_changed() -> None:
    w, data = pages(3)
    assert w.do(w.host.munmap(data + PAGE_SIZE, PAGE_SIZE)) == 0
    assert w.protect(data, R, 3 * PAGE_SIZE) == -ENOMEM
    assert layout(w) == [(1, R), (1, R | W)]


def test_splits_stay_when_a_split_fails() -> None:
    """Room for one more area, but the middle page needs two: the first split is not undone."""
    w, data = pages(3)
    w.mm.max_map_count = len(w.mm.vmas) + 1
    assert w.protect(data + PAGE_SIZE, R) == -ENOMEM
    assert layout(w) == [(1, R | W), (2, R | W)]


# Splitting, and no merging


def test_areas_are_never_merged() -> None:
    w, data = pages(3)
    for prot in (R, R | W):
        assert w.protect(data + PAGE_SIZE, prot) == 0
        assert layout(w) == [(1, R | W), (1, prot), (1, R | W)]
    assert w.protect(data, R, 3 * PAGE_SIZE) == 0
    assert layout(w) == [(1, R)] * 3
    assert w.map(data, R) == data
    assert layout(w) == [(1, R)] * 3


def test_same_rights_split_nothing() -> None:
    w, data = pages(3)
    assert w.protect(data + PAGE_SIZE, R | W) == 0
    assert layout(w) == [(3, R | W)]


def test_one_area_per_page_until_the_limit() -> None:
    w, data = pages(9)
    w.mm.max_map_count = len(w.mm.vmas) + 4
    results = [w.protect(data + n * PAGE_SIZE, R) for n in range(0, 9, 2)]
    # One split at the very beginning, two for a page in the middle, then three left over.
    assert results == [0, 0, -ENOMEM, -ENOMEM, -ENOMEM]
    assert len(w.mm.vmas) == w.mm.max_map_count
    assert layout(w) == [(1, R), (1, R | W), (1, R), (1, R | W), (5, R | W)]


@pytest.mark.parametrize(
    ("first", "count", "result"),
    [(0, 1, 0), (2, 1, 0), (1, 1, -ENOMEM), (0, 3, 0)],
    ids=["head", "tail", "middle", "all"],
)
def test_munmap_at_the_limit(first: int, count: int, result: int) -> None:
    """Only a piece out of the middle makes one area more."""
    w, data = pages(3)
    w.mm.max_map_count = len(w.mm.vmas)
    assert w.do(w.host.munmap(data + first * PAGE_SIZE, count * PAGE_SIZE)) == result
    left = 3 if result else 3 - count
    assert sum(length for length, _rights in layout(w)) == left


def test_split_hook_registers_nothing_again() -> None:
    w, data = pages(3)
    references = w.encl.refcount
    assert w.protect(data + PAGE_SIZE, R) == 0
    assert w.encl.refcount == references
    assert len(w.encl.mm_list) == 1


# Page-table entries


def touched() -> tuple[World, int]:
    """A data page that has a writable entry in the page tables."""
    w, data = pages(1)

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.store(data, b"secret")

    w.call(program)
    assert w.mm.space.lookup(data) & PTE_W
    return w, data


@pytest.mark.parametrize("prot", [0, R, R | W])
def test_entries_are_rewritten_at_once(prot: int) -> None:
    """For removal and for granting: the processor walks to the new rights without a fault."""
    w, data = touched()
    assert w.protect(data, prot) == 0
    lp = w.machine.processor.lps[0]
    for access, right in ((READ, R), (WRITE, W), (FETCH, X)):
        if prot & right:
            lp.translate(data, access)
        else:
            with pytest.raises(Fault) as fault:
                lp.translate(data, access)
            assert fault.value.code & 1 == bool(prot), "P, unless the area is PROT_NONE"


def test_granting_again_needs_no_fault() -> None:
    w, data = touched()
    entry = w.mm.space.lookup(data)
    for prot in (0, R, R | W):
        assert w.protect(data, prot) == 0
    assert w.mm.space.lookup(data) == entry


def test_page_without_entry_gets_none() -> None:
    w, data = pages(1)
    assert w.protect(data, R) == 0
    assert w.mm.space.lookup(data) & PTE_P == 0


# TLB shootdown


def test_thread_inside_loses_its_stale_right_before_mprotect_returns() -> None:
    """Both use the page; then one takes W away. The other's translation would still have it."""
    w = world(threads=2)
    data = w.enclave.data[0]
    other = w.machine.thread(w.host.process, cpu=1)
    warm, done = WaitFlag("translation cached"), WaitFlag("mprotect returned")
    entry, run = None, w.enclave.run(1)

    def writer(t: EnclaveThread) -> Steps[None]:
        yield from t.store(data, b"first")
        assert t.lp.tlb.holds(data) & WRITE
        warm.set()
        yield from done.wait()
        yield from t.store(data, b"second")

    def protector() -> Steps[None]:
        yield from warm.wait()
        assert (yield from w.host.mprotect(data, PAGE_SIZE, R)) == 0
        done.set()

    entry = w.enclave.entry(writer)
    together(w, (1, other.enter(entry, run)), (0, protector()))
    assert (run.function, run.exception_vector) == (3, 14)
    assert (run.exception_error_code, run.exception_addr) == (0x7, data)


@pytest.mark.parametrize(("call", "code"), [("mprotect", 0x7), ("munmap", 0x6)])
def test_thread_outside_loses_its_stale_right(call: str, code: int) -> None:
    w, data = pages(1)
    other = w.machine.thread(w.host.process, cpu=1)
    warm, done = WaitFlag("translation cached"), WaitFlag("system call returned")
    codes = []

    def writer() -> Steps[None]:
        yield from other.store(data, b"dropped")
        assert w.machine.processor.lps[1].tlb.holds(data) & WRITE
        warm.set()
        yield from done.wait()
        try:
            yield from other.store(data, b"refused")
        except SignalRaised as raised:
            codes.append(raised.signal.error_code)

    def changer() -> Steps[None]:
        yield from warm.wait()
        if call == "mprotect":
            yield from w.host.mprotect(data, PAGE_SIZE, R)
        else:
            yield from w.host.munmap(data, PAGE_SIZE)
        done.set()

    together(w, (1, writer()), (0, changer()))
    assert codes == [code]


def test_area_of_the_enclave_may_become_executable_where_the_cap_says_so() -> None:
    w = world(rights=RWX)
    data = w.enclave.data[0]
    assert w.protect(data, R | X) == 0

    def program(t: EnclaveThread) -> Steps[bytes]:
        return (yield from t.fetch(data))

    assert w.call(program) == b"\0"


def interrupts(w: World, call: str, prot: int = 0) -> int:
    """Rounds of interrupts that a call costs; another thread of the process is on processor 1."""
    data = w.enclave.data[0]
    body: Any = w.host.mprotect(data, PAGE_SIZE, prot)
    if call == "munmap":
        body = w.host.munmap(data, PAGE_SIZE)
    elif call == "mremap":
        body = w.host.mremap(data, PAGE_SIZE, PAGE_SIZE, 3, w.enclave.heap)
    elif call == "fork":
        body = w.host.fork("child", 2)
    w.machine.settle()
    with w.machine.processor.log.record() as events:
        result = w.do(body)
    assert not isinstance(result, int) or result >= 0
    return sum(isinstance(event, IpiSent) for event in events)


@pytest.mark.parametrize(
    ("call", "prot", "without", "present"),
    [
        ("mprotect", R, 0, 1),
        ("mprotect", 0, 0, 1),
        ("mprotect", W, 0, 0),  # of RW: the entry stays what it was
        ("munmap", 0, 0, 1),
        ("mremap", 0, 0, 1),
        ("fork", 0, 1, 1),  # the parent's translations are dropped in any case
    ],
)
def test_interrupts_only_where_an_entry_changed(
    call: str, prot: int, without: int, present: int
) -> None:
    """A thread inside an enclave is thrown out by mprotect only if one of its entries changed."""
    for touched, rounds in ((False, without), (True, present)):
        w = world()
        w.machine.thread(w.host.process, cpu=1)
        if touched:
            w.do(w.host.load(w.enclave.data[0], 1))
        assert interrupts(w, call, prot) == rounds
