"""Known races of the driver: each shown by a schedule that is harmless without the race."""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import EFAULT, EINVAL
from softsgx.linux.process import SIGBUS
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.uapi import (
    MAP_FIXED,
    MAP_SHARED,
    SGX_IOC_ENCLAVE_REMOVE_PAGES,
    SgxEnclaveRemovePages,
)
from softsgx.mem.pagetable import PTE_P
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system import HostThread, Machine, SignalRaised
from tests.linux.held import Held, Until, at, at_lock, at_retry, to_the_end
from tests.linux.world import World, unmapped, world

GOOD = b"\xff"  # what the host reads from a resident enclave page
each_way = pytest.mark.parametrize("on", [True, False])


def racing(race: str, on: bool, epc: str = "1M", **layout: int) -> World:
    """A world whose kernel has one race, or not."""
    machine = Machine(cpus=4, epc=epc, races={race: on})
    return world(machine, **layout)


def second(w: World, cpu: int) -> HostThread:
    """Another thread of the process."""
    return w.machine.thread(w.host.process, cpu, f"thread of cpu {cpu}")


def read(host: HostThread, address: int) -> Steps[bytes | int]:
    """Touch a page of the enclave: what was read, or the number of the signal."""
    try:
        return (yield from host.load(address, 1))
    except SignalRaised as raised:
        return raised.signal.number


def scheduled(
    w: World, stages: list[tuple[str, Until]], **bodies: Steps[Any]
) -> list[tuple[str, Any]]:
    """Run the bodies, on processors 1 and up, by the schedule: (name, result) as they ended."""
    ended: list[tuple[str, Any]] = []

    def noted(name: str, body: Steps[Any]) -> Steps[None]:
        result = yield from body
        ended.append((name, result))

    w.machine.settle()
    execution = w.machine.execution(Held(*stages), max_steps=10_000)
    for cpu, (name, body) in enumerate(bodies.items(), 1):
        execution.spawn(noted(name, body), name, cpu)
    execution.run()
    execution.close()
    return ended


def alone(w: World, address: int) -> None:
    """Make this page the only one that the next reclaim passes will take."""
    page = w.encl.page(address)
    assert page is not None
    assert page.epc_page is not None
    w.kernel.active_page_list.clear()
    w.kernel.active_page_list[page.epc_page] = None
    w.mm.space.test_and_clear_accessed(address)


@each_way
def test_k1_two_faults_on_one_hole(on: bool) -> None:
    w = racing("eaug_double_fault", on)
    hole = w.enclave.heap
    ended = scheduled(
        w,
        [("a", at_lock("encl->lock")), ("b", to_the_end)],
        a=read(second(w, 1), hole),
        b=read(second(w, 2), hole),
    )
    assert ended == [("b", GOOD), ("a", SIGBUS if on else GOOD)]
    assert w.do(read(w.host, hole)) == GOOD  # the page is good either way


@each_way
def test_k2_remove_against_fault(on: bool) -> None:
    w = racing("remove_vs_fault", on, nssa=16)  # each unrepaired fault takes an SSA frame
    page = w.enclave.heap
    assert w.call(lambda t: t.accept_new(page)) == 0
    assert w.do(w.enclave.trim(w.host, page, PAGE_SIZE))[0] == 0
    assert w.call(lambda t: t.accept_trim(page)) == 0
    ended = scheduled(
        w,
        [("a", at_lock("encl->lock", 2)), ("b", at_retry)],
        a=w.enclave.remove(second(w, 1), page, PAGE_SIZE),
        b=read(second(w, 2), page),
    )
    assert [name for name, _ in ended] == (["b", "a"] if on else ["a", "b"])
    assert dict(ended)["a"][0] == 0
    assert w.mm.space.lookup(page) & PTE_P
    if on:
        # A PTE to a page that is gone: the kernel does not repair such a fault.
        assert w.encl.page(page) is None
        for _ in range(3):
            assert w.fault(lambda t: t.load(page)) == (14, 0x8005, page)
            assert w.fault(lambda t: t.store(page, b"x")) == (14, 0x8007, page)
            assert w.fault(lambda t: t.accept_new(page))[:1] == (14,)
    else:
        assert dict(ended)["b"] == GOOD
        assert w.call(lambda t: t.accept_new(page)) == 0  # a fresh page, added by the fault


@each_way
def test_k3_new_tcs_against_fault(on: bool) -> None:
    w = racing("modify_vs_fault", on)
    page = w.enclave.heap
    assert w.call(lambda t: t.accept_new(page)) == 0
    w.call(lambda t: t.store(page, TCS_PAGE(OSSA=PAGE_SIZE, NSSA=1).pack()))
    assert w.protect(page, R | W) == 0
    ended = scheduled(
        w,
        [("a", at_lock("encl->lock", 2)), ("b", at_retry)],
        a=w.enclave.make_tcs(second(w, 1), page),
        b=read(second(w, 2), page),
    )
    # With the race the page is mapped again between zapping and EMODT.
    assert [name for name, _ in ended] == (["b", "a"] if on else ["a", "b"])
    assert dict(ended)["a"][0] == 0
    assert dict(ended)["b"] == GOOD
    assert w.call(lambda t: t.accept_tcs(page)) == 0


def evict_all(w: World) -> Steps[None]:
    """Reclaim until the SECS itself is gone."""
    thread = second(w, 2).thread
    while w.encl.secs.epc_page is not None:
        yield from sgx_reclaim_pages(thread)


@each_way
def test_k5_eaug_after_the_secs_was_evicted(on: bool) -> None:
    w = racing("eaug_without_secs", on)
    stages = [("a", at("xa_load")), ("b", to_the_end)]
    bodies = {"a": read(second(w, 1), w.enclave.heap), "b": evict_all(w)}
    if on:
        with pytest.raises(KernelBug, match="NULL dereference"):
            scheduled(w, stages, **bodies)
    else:
        assert scheduled(w, stages, **bodies) == [("b", None), ("a", GOOD)]
        assert w.encl.secs.epc_page is not None


@each_way
def test_k6_no_va_page_in_a_fault(on: bool) -> None:
    w = racing("va_shortage_is_sigbus", on, epc="4M", pages=507)
    assert w.encl.page_cnt == 512  # the next page needs a second VA page
    asked: list[str] = []

    def second_allocation(site: str) -> bool:
        asked.append(site)
        return asked.count("sgx_alloc_epc_page") == 2 and site == "sgx_alloc_epc_page"

    w.kernel.inject = second_allocation
    assert w.do(read(w.host, w.enclave.heap)) == (SIGBUS if on else GOOD)
    assert len(w.encl.va_pages) == (1 if on else 2)


def swapped_neighbour(race: str, on: bool, until: Until) -> tuple[World, list[tuple[str, Any]]]:
    """Two pages share a PCMD page; one comes back while the reclaimer takes the other."""
    w = racing(race, on, pages=2)
    first, other = w.enclave.data
    w.call(lambda t: t.store(first, b"precious"))
    reclaimer = second(w, 1).thread
    alone(w, other)
    w.do(sgx_reclaim_pages(reclaimer))
    alone(w, first)
    ended = scheduled(
        w,
        [("reclaim", until), ("fault", to_the_end)],
        reclaim=sgx_reclaim_pages(reclaimer),
        fault=read(second(w, 2), other),
    )
    return w, ended


@each_way
@pytest.mark.parametrize(
    ("race", "lock"), [("pcmd_truncated", 2), ("backing_without_lock", 1)], ids=["k9", "k10"]
)
def test_k9_k10_the_pcmd_page_is_punched_out(race: str, lock: int, on: bool) -> None:
    w, ended = swapped_neighbour(race, on, at_lock("encl->lock", lock))
    assert ended == [("fault", GOOD), ("reclaim", None)]
    first = w.enclave.data[0]
    if on:
        assert w.do(read(w.host, first)) == SIGBUS  # lost for ever
        assert w.do(read(w.host, first)) == SIGBUS
    else:
        assert w.call(lambda t: t.load(first, 8)) == b"precious"
        assert w.kernel.warnings == []


@each_way
def test_k11_a_range_that_wraps_around(on: bool) -> None:
    w = racing("range_overflow", on)
    argument = SgxEnclaveRemovePages(offset=(1 << 64) - PAGE_SIZE, length=2 * PAGE_SIZE)
    errno, block = w.do(w.enclave.ioctl(w.host, SGX_IOC_ENCLAVE_REMOVE_PAGES, argument))
    # Accepted, it looks for a page below the enclave.
    assert errno == (-EFAULT if on else -EINVAL)
    assert block.count == 0


def test_zapping_starts_again_when_an_address_space_is_added() -> None:
    """The child maps and touches the page while the only other address space is being zapped.

    The version of the list has moved, so the walk is repeated and meets the child's entry, too.
    """
    w = unmapped()
    page = w.enclave.data[0]
    child = w.do(w.host.fork("child", 2))
    assert w.map(page, R | W) == page
    assert w.do(read(w.host, page)) == GOOD
    seen: list[bool] = []

    def register() -> Steps[None]:
        yield ("test", "start", False)
        flags = MAP_SHARED | MAP_FIXED
        assert (yield from child.mmap(page, PAGE_SIZE, R | W, flags, w.enclave.fd)) == page
        assert (yield from read(child, page)) == GOOD
        seen.append(bool(child.thread.mm.space.lookup(page) & PTE_P))

    ended = scheduled(
        w,
        [("a", at_lock("mmap_lock(host)", 3)), ("b", to_the_end), ("a", to_the_end)],
        a=w.enclave.make_tcs(second(w, 1), page),
        b=register(),
    )
    assert [name for name, _ in ended] == ["b", "a"]
    assert dict(ended)["a"][0] == 0
    assert seen == [True]
    assert child.thread.mm.space.lookup(page) == 0
    assert w.mm.space.lookup(page) == 0


@each_way
def test_fault_that_looked_before_the_removal_ended_gets_sigbus(on: bool) -> None:
    """Found by the state machine of tests/property; no report of it is known.

    The fault handler finds the page in the page array, then waits for the mutex while
    REMOVE_PAGES takes the page away: it ends in SIGBUS, although the next touch of the same address
    adds a new page. Marking the page busy (the fix of K2) does not help: the mark goes with it.
    Linux 6.12, sgx/encl.c, sgx_vma_fault: looked once without the mutex, once with it.
    """
    w = racing("remove_vs_fault", on)
    page = w.enclave.heap
    assert w.call(lambda t: t.accept_new(page)) == 0
    assert w.do(w.enclave.trim(w.host, page, PAGE_SIZE))[0] == 0
    assert w.call(lambda t: t.accept_trim(page)) == 0
    w.mm.space.unmap(page)
    ended = scheduled(
        w,
        # The argument is in place before the fault takes mmap_lock, so the ioctl need not wait.
        [("remove", at("ioctl")), ("fault", at_lock("encl->lock")), ("remove", to_the_end)],
        fault=read(second(w, 1), page),
        remove=w.enclave.remove(second(w, 2), page, PAGE_SIZE),
    )
    assert dict(ended)["remove"][0] == 0
    assert dict(ended)["fault"] == SIGBUS
    assert w.do(read(w.host, page)) == GOOD
