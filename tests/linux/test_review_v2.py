"""The V2 series of February 2022 as posted: what a review found to differ from 6.12.

Patches 06 (PTEs from area and mirror), 07 (pfn_mkwrite), 08 (mirror), 19 (EAUG), 22 (MODIFY_TYPE).
"""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EACCES, EFAULT
from softsgx.linux.process import SIGBUS
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.mem.pagetable import PTE_D, pte_text
from softsgx.sim import Deadlock, Steps, Unmodelled
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, TCS, R, W, X
from softsgx.spec.paging import SECINFO
from softsgx.system import EnclaveThread, Machine, SignalRaised
from tests.linux.held import at, at_lock, at_retry, to_the_end
from tests.linux.test_races import read, scheduled, second
from tests.linux.world import World, world


def v2(**layout: int) -> World:
    return world(Machine(cpus=4, epc="1M", linux="v2"), nssa=8, **layout)


def change(w: World, cmd: int, page: int, flags: int) -> int:
    """RESTRICT, RELAX or MODIFY_TYPE of one page; its errno."""
    secinfo: int = w.do(w.host.alloc(PAGE_SIZE))
    w.do(w.host.store(secinfo, SECINFO(FLAGS=flags).pack()))
    relax = cmd == uapi.V2_IOC_ENCLAVE_RELAX_PERMISSIONS
    block = uapi.SgxEnclaveRelaxPerm if relax else uapi.SgxEnclaveRestrictPerm
    argument = block(offset=page - w.enclave.base, length=PAGE_SIZE, secinfo=secinfo)
    ret: int = w.do(w.enclave.ioctl(w.host, cmd, argument))[0]
    return ret


def restrict(w: World, page: int, rights: int) -> int:
    return change(w, uapi.V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS, page, rights)


def load(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.load(t.args, 1))


def store(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def pte(w: World, page: int) -> str:
    return pte_text(w.mm.space.lookup(page))


def zap(w: World, page: int) -> None:
    """Zap the entry, as the reclaimer does."""
    w.machine.settle()
    w.mm.space.unmap(page)
    for lp in w.machine.processor.lps:
        lp.flush_tlb("test")


def test_mappings_are_checked_against_the_mirror() -> None:
    """What RESTRICT removed mprotect and mmap do not grant until RELAX."""
    w = v2()
    page = w.enclave.data[0]
    assert restrict(w, page, R) == 0
    assert w.protect(page, R) == 0
    assert w.protect(page, R | W) == -EACCES
    assert change(w, uapi.V2_IOC_ENCLAVE_RELAX_PERMISSIONS, page, R | W) == 0
    assert w.protect(page, R | W) == 0
    assert restrict(w, page, R) == 0
    assert w.map(page, R | W) == -EACCES


def test_a_write_where_the_mirror_lacks_w_leaves_a_read_only_entry() -> None:
    """The fault handler makes a read-only entry; the write faults on it, with P in the code."""
    w = v2()
    page = w.enclave.data[0]
    assert restrict(w, page, R) == 0
    assert w.call(lambda t: t.accept_restricted(page, R)) == 0
    zap(w, page)
    assert w.fault(store, page) == (14, 7, page)
    assert pte(w, page) == "r--"


def test_a_page_may_have_less_than_its_area() -> None:
    """No test of the area against the cap: a page added by EAUG, which has no X, in an RWX area."""
    w = v2()
    heap = w.enclave.heap
    assert w.areas(heap, PAGE_SIZE)[0][1] == RWX
    assert w.call(lambda t: t.accept_new(heap)) == 0
    assert pte(w, heap) == "rw-", "PAGE_SHARED"
    zap(w, heap)
    w.call(load, heap)
    assert pte(w, heap) == "rw-"
    assert w.fault(lambda t: t.fetch(heap)) == (14, 0x15, heap)


def test_an_eaug_entry_is_rw_whatever_the_area() -> None:
    w = v2()
    heap = w.enclave.heap
    assert w.protect(heap, R) == 0
    w.do(read(w.host, heap))
    assert pte(w, heap) == "rw-"


@pytest.mark.parametrize("dirty", [False, True])
def test_mprotect_makes_entries_of_clean_pages_read_only(dirty: bool) -> None:
    """A hook for writes exists, so only entries of dirty pages get W at once."""
    w = v2()
    page = w.enclave.data[0]
    w.call(store if dirty else load, page)
    assert bool(w.mm.space.lookup(page) & PTE_D) is dirty
    assert w.protect(page, R) == 0
    assert w.protect(page, R | W) == 0
    assert pte(w, page) == ("rw-" if dirty else "r--")
    w.call(store, page)
    assert pte(w, page) == "rw-"


def test_a_new_tcs_has_the_mirror_of_a_tcs() -> None:
    """MODIFY_TYPE sets the mirror to RW, and gives the old one back if EMODT refuses."""
    w = v2()
    page = w.enclave.heap
    w.do(read(w.host, page))
    entry = w.encl.page(page)
    assert entry is not None
    assert change(w, uapi.V2_IOC_ENCLAVE_RELAX_PERMISSIONS, page, R) == 0
    modify = uapi.V2_IOC_ENCLAVE_MODIFY_TYPE
    assert change(w, modify, page, TCS) == -EFAULT, "not accepted yet"
    assert (entry.vm_run_prot_bits, entry.vm_max_prot_bits) == (R, R | W)
    assert w.call(lambda t: t.accept_new(page)) == 0
    assert change(w, modify, page, TCS) == 0
    assert entry.vm_run_prot_bits == R | W


def test_an_entry_without_any_right_is_not_modelled() -> None:
    w = v2()
    page = w.enclave.data[0]
    assert restrict(w, page, 0) == 0
    zap(w, page)
    with pytest.raises(Unmodelled, match="no rights"):
        w.call(load, page)


def test_restrict_to_x_needs_x_in_the_cap() -> None:
    w = v2(rights=RWX)
    assert restrict(w, w.enclave.data[0], R | X) == 0


# EAUG with direct reclaim


def full(linux: str = "6.12", **races: bool) -> World:
    """No free EPC page is left, so the next fault on a hole must reclaim or wait."""
    w = world(Machine(cpus=4, epc=64 * PAGE_SIZE, linux=linux, races=races or None), hole=256)
    w.kernel.low_watermark = w.kernel.high_watermark = 0  # the daemon does not run
    heap = w.enclave.heap
    while w.kernel.nr_free:
        w.do(read(w.host, heap))
        heap += PAGE_SIZE
    w.machine.settle()
    for page in w.encl.page_array.values():
        w.mm.space.test_and_clear_accessed(page.address)
    w.enclave.heap = heap
    return w


def test_v2_reclaims_in_the_fault_itself() -> None:
    w = full("v2")
    evicted = sum(page.epc_page is None for page in w.encl.page_array.values())
    assert w.do(read(w.host, w.enclave.heap)) == b"\xff"
    now = sum(page.epc_page is None for page in w.encl.page_array.values())
    assert now > evicted


@pytest.mark.parametrize("where", ["sgx_alloc_epc_page", "sgx_encl_grow"])
def test_any_failure_of_a_v2_eaug_is_sigbus(where: str) -> None:
    """Where the merged driver tries again."""
    w = v2()
    if where == "sgx_encl_grow":
        w.encl.page_cnt = 512
        calls = iter([False, True])
        w.kernel.inject = lambda site: site == "sgx_alloc_epc_page" and next(calls)
    else:
        w.kernel.inject = where.__eq__
    w.kernel.active_page_list.clear()
    free = w.kernel.nr_free
    with pytest.raises(SignalRaised) as raised:
        w.do(w.host.load(w.enclave.heap, 1))
    assert raised.value.signal.number == SIGBUS
    assert w.kernel.nr_free == free


@pytest.mark.parametrize("on", [True, False])
def test_k8_direct_reclaim_in_a_fault(on: bool) -> None:
    """The fault holds mmap_lock for reading, a writer waits, the reclaimer wants to read again."""
    w = full(direct_reclaim_in_fault=on)
    heap, other = w.enclave.heap, second(w, 2)
    protecting = other.mprotect(w.enclave.data[0], PAGE_SIZE, R)
    # The fault is about to reclaim; as merged, it gives up and tries again.
    until = at("epc", 2) if on else at_lock("encl->lock")

    def reclaiming() -> Steps[Any]:
        yield ("later", "", False)
        return (yield from sgx_reclaim_pages(second(w, 3).thread))

    bodies = {"a": read(second(w, 1), heap), "b": protecting, "c": reclaiming()}
    stages = [("a", until), ("b", to_the_end), ("a", to_the_end if on else at_retry)]
    stages += [("b", to_the_end), ("c", to_the_end)]
    if on:
        with pytest.raises(Deadlock):
            scheduled(w, stages, **bodies)
    else:
        ended = dict(scheduled(w, stages, **bodies))
        assert (ended["a"], ended["b"]) == (b"\xff", 0)
