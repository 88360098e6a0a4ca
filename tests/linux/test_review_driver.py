"""The driver against Linux 6.12, sgx/: what a review found to differ, one test each."""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import EACCES, EBUSY
from softsgx.linux.process import SIGBUS, Thread
from softsgx.linux.sgx.encl import (
    XA_CHECK_SCHED,
    SgxEnclPage,
    sgx_encl_free_epc_page,
    sgx_encl_may_map,
)
from softsgx.linux.sgx.ioctl import sgx_update_lepubkeyhash
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.uapi import (
    SGX_IOC_ENCLAVE_ADD_PAGES,
    SGX_IOC_ENCLAVE_INIT,
    SgxEnclaveAddPages,
    SgxEnclaveInit,
)
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import REG, R, W
from softsgx.spec.paging import SECINFO
from softsgx.system import Machine, SignalRaised
from tests.linux.building import created, filled
from tests.linux.held import Held, Until, at, at_lock, to_the_end
from tests.linux.test_races import alone
from tests.linux.world import World, world


def play(
    machine: Machine, stages: list[tuple[str, Until]], **bodies: tuple[int, Steps[Any]]
) -> Any:
    """Run bodies on their processors by the schedule; their results by name."""
    machine.settle()
    execution = machine.execution(Held(*stages), max_steps=100_000)
    tasks = {n: execution.spawn(body, n, cpu) for n, (cpu, body) in bodies.items()}
    execution.run()
    execution.close()
    return {name: task.result for name, task in tasks.items()}


def test_a_va_page_that_is_given_back_was_never_used() -> None:
    """ADD_PAGES publishes a new VA page under the mutex: if it fails, no slot of it was taken.

    Page 512 needs a second VA page; its offset is occupied; meanwhile the reclaimer evicts.
    """
    machine = Machine(cpus=3, epc="4M")
    b = created(machine, size=1 << 22)
    assert b.add(0, 511) == (0, 511 * PAGE_SIZE)
    assert (b.encl.page_cnt, len(b.encl.va_pages)) == (511 + 1, 1)
    secinfo = b.memory(SECINFO(FLAGS=REG | R | W).pack())
    block = SgxEnclaveAddPages(src=b.memory(bytes(PAGE_SIZE)), length=PAGE_SIZE, secinfo=secinfo)
    argument = b.memory(block.pack())
    add = b.host.ioctl(b.fd, SGX_IOC_ENCLAVE_ADD_PAGES, argument)
    reclaim = sgx_reclaim_pages(Thread(machine.kernel, None, "reclaimer", 2))
    stages = [("add", at_lock("mmap_lock")), ("reclaim", to_the_end)]
    assert play(machine, stages, add=(0, add), reclaim=(2, reclaim))["add"] == -EBUSY
    evicted = [page for page in b.encl.page_array.values() if page.epc_page is None]
    assert evicted
    assert all(page.va_page in b.encl.va_pages for page in evicted)
    assert b.close() == 0
    assert machine.kernel.warnings == []


def descriptor(w: World, address: int) -> SgxEnclPage:
    page = w.encl.page(address)
    assert page is not None
    return page


def evict(w: World, address: int) -> None:
    """One pass of the reclaimer that takes this page only."""
    w.machine.settle()
    alone(w, address)
    w.do(sgx_reclaim_pages(w.host.thread))


def lose(w: World, address: int) -> None:
    """EPC loses its contents, as in a suspended machine: EWB will fault."""
    epc_page = descriptor(w, address).epc_page
    assert epc_page is not None
    w.machine.processor.epcm.free(epc_page.number)


def test_a_page_that_never_had_a_version_cannot_be_loaded() -> None:
    """Its first EWB failed: the kernel looks for a version at a NULL VA page."""
    w = world(pages=1)
    page = w.enclave.data[0]
    w.call(lambda t: t.store(page, b"x"))
    lose(w, page)
    evict(w, page)
    assert (descriptor(w, page).epc_page, descriptor(w, page).va_page) == (None, None)
    with pytest.raises(KernelBug, match="NULL dereference of encl_page->va_page"):
        w.do(w.host.load(page, 1))


def test_a_page_whose_second_eviction_failed_is_lost() -> None:
    """Its stale VA page and slot 0 are what ELDU gets: refused, SIGBUS."""
    w = world(pages=1)
    page = w.enclave.data[0]
    w.call(lambda t: t.store(page, b"x"))
    evict(w, page)
    assert w.do(w.host.load(page, 1)) == b"\xff"
    assert (descriptor(w, page).va_page, descriptor(w, page).va_slot) == (w.encl.va_pages[0], 0)
    lose(w, page)
    evict(w, page)
    with pytest.raises(SignalRaised) as raised:
        w.do(w.host.load(page, 1))
    assert raised.value.signal.number == SIGBUS


def test_address_spaces_stand_in_the_order_of_list_add() -> None:
    """The latest is at the head, so it is zapped and aged first."""
    w = world()
    child = w.do(w.host.fork("child", 1))
    assert [entry.mm for entry in w.encl.mm_list] == [child.thread.mm, w.mm]


def test_order_of_the_free_list_after_release() -> None:
    """Pages by ascending address, SECS, VA pages; the order in which they were added does
    not matter."""
    b = created()
    for offset in (2, 0, 1):
        assert b.add(offset * PAGE_SIZE)[0] == 0
    encl = b.encl
    pages = [encl.page_array[(b.base >> 12) + index].epc_page for index in range(3)]
    expected = [*pages, encl.secs.epc_page, *(va.epc_page for va in encl.va_pages)]
    free = b.machine.kernel.free_pages
    before = len(free)
    assert b.close() == 0
    assert list(free)[before:] == expected


def test_va_pages_are_freed_from_the_head() -> None:
    b = created(Machine(epc="4M"), size=1 << 22)
    assert b.add(0, 512)[0] == 0
    expected = [va.epc_page for va in b.encl.va_pages]
    assert len(expected) == 2
    assert b.close() == 0
    assert list(b.machine.kernel.free_pages)[-2:] == expected


def test_a_long_check_of_caps_drops_the_mutex() -> None:
    """sgx_encl_may_map drops the mutex after every 4096 pages."""
    w = world()
    first = w.encl.base >> PAGE_SHIFT
    for index in range(first, first + XA_CHECK_SCHED + 1):
        w.encl.page_array.setdefault(index, SgxEnclPage(w.encl, index << PAGE_SHIFT, R | W))
    size = (XA_CHECK_SCHED + 1) * PAGE_SIZE
    w.encl.size = size
    order: list[str] = []

    def locking() -> Steps[None]:
        with (yield from w.encl.lock.acquire()):
            order.append("in between")

    def may(rights: int) -> Steps[int]:
        end = w.encl.base + size
        return (yield from sgx_encl_may_map(w.host.thread, w.encl, w.encl.base, end, rights))

    stages = [("check", at_lock("encl->lock", 2)), ("lock", to_the_end)]
    assert play(w.machine, stages, check=(0, may(R | W)), lock=(1, locking()))["check"] == 0
    assert order == ["in between"]
    w.encl.page_array[first + XA_CHECK_SCHED].vm_max_prot_bits = R
    assert w.do(may(R | W)) == -EACCES


def test_freeing_a_tracked_page_is_warned_of() -> None:
    w = world(pages=1)
    epc_page = descriptor(w, w.enclave.data[0]).epc_page
    assert epc_page is not None
    w.do(sgx_encl_free_epc_page(w.host.thread, epc_page))
    assert any("tracks it" in text for text in w.kernel.warnings)


def test_no_other_task_of_the_processor_gets_between_wrmsr_and_einit() -> None:
    """preempt_disable: the signer in the hash MSRs is the one that EINIT compares."""
    b = filled(Machine(cpus=2))
    address = b.memory(b.sigstruct().pack())
    argument = b.memory(SgxEnclaveInit(sigstruct=address).pack())

    def another() -> Steps[None]:
        yield ("another", "", True)
        sgx_update_lepubkeyhash(b.host.thread, bytes(32))

    init = b.host.ioctl(b.fd, SGX_IOC_ENCLAVE_INIT, argument)
    stages = [("init", at("EINIT")), ("other", to_the_end)]
    assert play(b.machine, stages, init=(0, init), other=(0, another()))["init"] == 0
