"""The reclaimer: watermarks, ageing, the attempts at EWB, VA pages, the SECS, the backing store."""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.events.cpu import LeafDone
from softsgx.linux.errno import ENOMEM
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.uapi import (
    MAP_FIXED,
    MAP_SHARED,
    SGX_IOC_ENCLAVE_ADD_PAGES,
    SgxEnclaveAddPages,
)
from softsgx.sim import RETRY, Steps
from softsgx.sim.events import IpiSent
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.paging import SECINFO
from softsgx.system import Enclave, EnclaveThread, HostThread, Machine, load
from tests.linux.building import created, filled
from tests.linux.held import Held, at, at_lock, to_the_end
from tests.linux.test_races import alone, scheduled, second
from tests.linux.world import World, together, world


def reclaim(w: World, passes: int = 1) -> None:
    """Reclaim passes on processor 3."""
    thread = w.machine.thread(w.host.process, 3, "reclaim").thread
    for _ in range(passes):
        w.do(sgx_reclaim_pages(thread))


def age(w: World) -> None:
    """Make every page of the enclave look old."""
    for index in w.encl.page_array:
        w.mm.space.test_and_clear_accessed(index * PAGE_SIZE)


def resident(w: World) -> int:
    """How many pages of the enclave are in EPC, without SECS and VA pages."""
    return sum(page.epc_page is not None for page in w.encl.page_array.values())


def fill(t: EnclaveThread) -> Steps[None]:
    """Write its number into every page of `args`."""
    for number, address in enumerate(t.args):
        yield from t.store(address, number.to_bytes(8, "little"))


def check(t: EnclaveThread) -> Steps[int]:
    """How many pages of `args` still hold their number."""
    good = 0
    for number, address in enumerate(t.args):
        good += (yield from t.load(address, 8)) == number.to_bytes(8, "little")
    return good


def idle(w: World) -> Steps[None]:
    """Let the daemon run until it has nothing to do; it is bounded, so that it cannot hang."""
    for _ in range(5000):
        yield (RETRY, "daemon", False)
    assert not w.kernel.ksgxd_running


def test_the_daemon_wakes_below_32_free_pages_and_stops_at_64() -> None:
    w = world(Machine(cpus=4, epc="1M"), pages=8, hole=256)
    holes = [w.enclave.heap + n * PAGE_SIZE for n in range(256)]
    free = w.kernel.nr_free

    def touch(first: int, last: int) -> Steps[None]:
        for hole in holes[first:last]:
            yield from w.host.load(hole, 1)
        yield from idle(w)

    w.do(touch(0, free - 32))
    assert w.kernel.nr_free == 32  # not below the low watermark: nothing happens
    assert resident(w) == len(w.encl.page_array)
    w.do(touch(free - 32, free - 31))
    assert 64 <= w.kernel.nr_free < 64 + 16
    assert resident(w) == len(w.encl.page_array) - (w.kernel.nr_free - 31)


def test_a_page_used_since_the_last_pass_stays() -> None:
    w = world(pages=4)
    w.call(fill, w.enclave.data)
    age(w)
    young = w.enclave.data[2]
    w.call(lambda t: t.load(young, 1))
    before = {a: w.encl.page(a) for a in w.enclave.data}
    reclaim(w)
    evicted = [a for a in w.enclave.data if (p := before[a]) and p.epc_page is None]
    assert evicted == [a for a in w.enclave.data if a != young]
    reclaim(w, 2)  # the pass before took the accessed bit away
    assert resident(w) == 0


def attempts(w: World) -> tuple[int, int, int]:
    """One pass: how many EWB were tried, how many ETRACK done, how many rounds of IPIs sent."""
    w.machine.settle()
    with w.machine.processor.log.record() as events:
        reclaim(w)
        w.machine.settle()
    leaves = [e.leaf for e in events if isinstance(e, LeafDone)]
    sent = sum(isinstance(e, IpiSent) for e in events)
    return leaves.count("EWB"), leaves.count("ETRACK"), sent


def test_one_etrack_serves_all_pages_blocked_before_it() -> None:
    w = world(pages=4)
    w.call(fill, w.enclave.data)
    age(w)
    children = resident(w)
    ewb, etrack, _ipis = attempts(w)
    # The first EWB is refused and repeated after ETRACK; the rest pass; the SECS comes last.
    assert (ewb, etrack) == (children + 2, 1)
    assert resident(w) == 0
    assert w.encl.secs.epc_page is None


@pytest.mark.parametrize("inside", [False, True])
def test_interrupts_are_sent_only_if_a_thread_was_inside(inside: bool) -> None:
    w = world(pages=2)
    w.call(fill, w.enclave.data)
    victim = w.enclave.data[1]
    alone(w, victim)
    w.mm.space.unmap(victim)  # no PTE, so that zapping it sends no interrupt of its own
    stages = [("in", at("load")), ("reclaim", to_the_end)]
    bodies = {"reclaim": sgx_reclaim_pages(second(w, 1).thread)}
    if inside:
        bodies["in"] = w.enclave.call(second(w, 2), lambda t: t.load(w.enclave.data[0], 1))
    with w.machine.processor.log.record() as events:
        scheduled(w, stages if inside else stages[1:], **bodies)
    leaves = [e.leaf for e in events if isinstance(e, LeafDone)]
    assert leaves.count("ETRACK") == 1
    assert leaves.count("EWB") == (3 if inside else 2)
    assert sum(isinstance(e, IpiSent) for e in events) == inside
    entry = w.encl.page(victim)
    assert entry is not None
    assert entry.epc_page is None
    assert w.kernel.warnings == []


def test_the_secs_is_evicted_last_and_comes_back_first() -> None:
    w = world(pages=4)
    w.call(fill, w.enclave.data)
    age(w)
    reclaim(w)
    assert w.encl.secs.epc_page is None
    assert w.encl.secs_child_cnt == 0
    assert w.machine.processor.epc.pages - w.kernel.nr_free == 1  # the VA page is left
    assert w.call(check, w.enclave.data) == 4
    assert w.encl.secs.epc_page is not None
    assert w.kernel.warnings == []


def test_backing_and_pcmd_pages_are_freed_on_reload() -> None:
    w = world(pages=4)
    w.call(fill, w.enclave.data)
    age(w)
    children = resident(w)
    reclaim(w)
    assert len(w.encl.backing.contents) == children + 1  # and the SECS
    assert len(w.encl.backing.pcmds) == 2
    for index in list(w.encl.page_array):
        w.do(w.host.load(index * PAGE_SIZE, 1))
    assert not w.encl.backing.contents
    assert not w.encl.backing.pcmds


def test_513_pages_need_two_va_pages() -> None:
    w = world(Machine(cpus=4, epc="4M"), pages=507)
    assert (w.encl.page_cnt, len(w.encl.va_pages)) == (512, 1)
    w.do(w.host.load(w.enclave.heap, 1))
    assert (w.encl.page_cnt, len(w.encl.va_pages)) == (513, 2)


@pytest.mark.parametrize("pages", [600])
def test_an_enclave_larger_than_epc_loses_no_byte(pages: int) -> None:
    w = world(Machine(cpus=4, epc="1M"), pages=pages, hole=4)  # direct reclaim in ADD_PAGES
    assert len(w.encl.page_array) == pages + 4
    assert resident(w) < 256
    w.call(fill, w.enclave.data)
    assert w.call(check, w.enclave.data) == pages
    assert w.kernel.warnings == []
    w.do(w.host.exit())  # while most of it is swapped out
    assert w.all_epc_free()


def test_two_enclaves_share_epc() -> None:
    machine = Machine(cpus=4, epc="1M")
    first = world(machine, pages=200, hole=4)
    host = machine.thread(cpu=1)
    other: Enclave = machine.run(load(host, pages=200, hole=4))
    results: list[Any] = []

    def use(w_host: HostThread, enclave: Enclave) -> Steps[None]:
        yield from enclave.call(w_host, fill, args=enclave.data)
        results.append((yield from enclave.call(w_host, check, args=enclave.data)))
        yield from idle(first)

    together(first, (0, use(first.host, first.enclave)), (1, use(host, other)))
    assert results == [200, 200]
    machine.run(first.host.exit())
    machine.run(host.exit())
    assert first.all_epc_free()


# Which pages can be taken


def test_neither_secs_nor_va_pages_are_on_the_list() -> None:
    w = world(pages=2)
    owners = [page.owner for page in w.kernel.active_page_list]
    assert owners == list(w.encl.page_array.values())
    secs = w.encl.secs.epc_page
    assert secs is not None
    assert secs not in w.kernel.active_page_list
    assert all(va.epc_page not in w.kernel.active_page_list for va in w.encl.va_pages)


def test_an_enclave_under_construction_gives_its_pages_but_not_its_secs() -> None:
    """EINIT and EADD need the SECS only; the pages come back when they are used."""
    b = filled()
    thread = b.host.thread
    b.do(sgx_reclaim_pages(thread))
    assert b.encl.secs_child_cnt == 0
    assert b.encl.secs.epc_page is not None
    assert b.init() == 0
    assert b.close() == 0
    assert b.machine.kernel.warnings == []


def test_an_enclave_that_is_being_released_is_not_reclaimed() -> None:
    """Its pages are off the list already; a reclaim pass meanwhile takes none."""
    w = world(pages=2)
    encl = w.encl
    ended = scheduled(
        w,
        [("exit", at("EREMOVE", 3)), ("reclaim", to_the_end), ("exit", to_the_end)],
        reclaim=sgx_reclaim_pages(w.machine.thread(w.host.process, 1).thread),
        exit=leave(w),
    )
    assert [name for name, _ in ended] == ["reclaim", "exit"]
    assert encl.refcount == 0
    assert not w.kernel.active_page_list
    assert w.all_epc_free()


def leave(w: World) -> Steps[None]:
    """A thread on processor 2 takes the enclave down."""
    host = w.machine.thread(w.host.process, 2)
    yield from host.munmap(w.enclave.base, w.enclave.size)
    yield from host.close(w.enclave.fd)


def test_eviction_of_a_page_keeps_its_enclave() -> None:
    """The reclaimer holds a reference: closing the descriptor ends the enclave when it is done."""
    w = world(pages=2)
    encl = w.encl
    for index in encl.page_array:
        w.mm.space.test_and_clear_accessed(index * PAGE_SIZE)
    ended = scheduled(
        w,
        [("reclaim", at("EBLOCK", 2)), ("exit", to_the_end), ("reclaim", to_the_end)],
        reclaim=sgx_reclaim_pages(w.machine.thread(w.host.process, 1).thread),
        exit=leave(w),
    )
    assert [name for name, _ in ended] == ["exit", "reclaim"]
    assert encl.refcount == 0
    assert w.all_epc_free()


def test_a_full_va_page_goes_to_the_tail() -> None:
    """Slots are taken from the first VA page of the list, the lowest free one first."""
    w = world(Machine(cpus=4, epc="4M"), pages=520)
    newer, older = w.encl.va_pages
    passes = 0
    while newer.used.bit_count() < 512 and passes < 100:
        age(w)
        reclaim(w)
        passes += 1
    assert newer.full
    assert w.encl.va_pages == [older, newer]
    # A page that comes back frees its slot and brings its VA page to the front.
    entry = next(page for page in w.encl.page_array.values() if page.va_page is newer)
    slot = entry.va_slot
    w.do(w.host.load(entry.address, 1))
    assert w.encl.va_pages == [newer, older]
    assert not newer.used >> slot & 1


def test_a_new_va_page_is_used_by_no_other_before_its_page_is_added() -> None:
    """It is listed under the mutex. Evictions in between use the old one, so undoing loses nothing.

    The model once listed it at once: the reclaimer put a version there, ADD_PAGES failed and freed
    the VA page, and the evicted page could never be loaded again.
    """
    b = created(Machine(cpus=4, epc="4M"), size=1 << 22)
    assert b.add(0, 511) == (0, 511 * PAGE_SIZE)
    source, secinfo = b.memory(bytes(PAGE_SIZE)), b.memory(SECINFO(FLAGS=0x203).pack())
    add = SgxEnclaveAddPages(src=source, offset=511 * PAGE_SIZE, length=PAGE_SIZE, secinfo=secinfo)
    argument = b.memory(add.pack())
    b.machine.kernel.inject = "xa_insert".__eq__
    hosts = [b.machine.thread(b.host.process, cpu) for cpu in (1, 2)]
    results: list[int] = []

    def adding() -> Steps[None]:
        results.append((yield from hosts[0].ioctl(b.fd, SGX_IOC_ENCLAVE_ADD_PAGES, argument)))

    stages = [("add", at_lock("encl->lock")), ("reclaim", to_the_end), ("add", to_the_end)]
    execution = b.machine.execution(Held(*stages))
    execution.spawn(adding(), "add", 1)
    execution.spawn(sgx_reclaim_pages(hosts[1].thread), "reclaim", 2)
    execution.run()
    execution.close()
    assert results == [-ENOMEM]
    (va_page,) = b.encl.va_pages
    assert va_page.used.bit_count() == 16
    b.machine.kernel.inject = None
    out = [page for page in b.encl.page_array.values() if page.epc_page is None]
    assert len(out) == 16
    address = out[0].address
    flags = MAP_SHARED | MAP_FIXED
    assert b.do(b.host.mmap(address, PAGE_SIZE, 1, flags, b.fd)) == address
    assert b.do(b.host.load(address, 1)) == b"\xff"
