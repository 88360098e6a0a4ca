"""The driver's fault handler: existing pages, and EAUG. Linux 6.12, sgx/encl.c, sgx_vma_fault."""

from collections.abc import Callable

import pytest

from softsgx.cpu import Part
from softsgx.linux.fault import do_user_addr_fault
from softsgx.linux.process import BUS_ADRERR, SIGBUS
from softsgx.linux.sgx.driver import encl_of
from softsgx.linux.sgx.encl import SgxEnclPage
from softsgx.linux.uapi import MAP_FIXED, MAP_SHARED
from softsgx.mem.pagetable import PTE_A, PTE_NX, PTE_P, PTE_W
from softsgx.sim import Steps, run
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PENDING, REG, RWX, VALID, R, W, X
from softsgx.spec.faults import PFEC_U, PFEC_W
from softsgx.system import EnclaveThread, Machine, SignalRaised
from softsgx.system.loader import BuildError, build, default_image, reserve
from tests.linux.world import World, unmapped, world


def load_(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.load(t.args, 1))


def store(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def fetch(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.fetch(t.args))


def accept(t: EnclaveThread) -> Steps[None]:
    assert (yield from t.accept_new(t.args)) == 0


def repair(w: World, address: int, code: int = PFEC_U) -> bool:
    """One fault, taken to its end: whether it was repaired. If not, it was SIGBUS."""
    signal = w.do(do_user_addr_fault(w.host.thread, code, address))
    if signal is None:
        return True
    assert signal == (SIGBUS, BUS_ADRERR, address, 14, code)
    return False


def sigbus(w: World, address: int) -> None:
    """All accesses get it: a signal outside; inside vector 14 and the code as it was."""
    for program, code in ((load_, 0x4), (store, 0x6), (fetch, 0x14)):
        assert w.fault(program, address) == (14, code, address)
    for body, code in ((w.host.load(address, 1), 0x4), (w.host.store(address, b"x"), 0x6)):
        with pytest.raises(SignalRaised) as raised:
            w.do(body)
        assert raised.value.signal == (SIGBUS, BUS_ADRERR, address, 14, code)


# Pages that exist


@pytest.mark.parametrize("rights", range(1, RWX + 1))
def test_entry_has_the_rights_of_the_area(rights: int) -> None:
    w = world(rights=RWX)
    data = w.enclave.data[0]
    assert w.map(data, rights) == data
    assert repair(w, data)
    pte = w.mm.space.lookup(data)
    assert pte & PTE_P
    assert bool(pte & PTE_W) is bool(rights & W)
    assert bool(pte & PTE_NX) is not bool(rights & X)


def test_area_wider_than_the_cap_is_sigbus_for_any_access() -> None:
    """The area's rights count as a whole, not the access: even reads fail."""
    w = unmapped(early=RWX, rights=R)
    data = w.enclave.data[0]
    assert not repair(w, data)
    assert not repair(w, data, PFEC_U | PFEC_W)
    assert w.mm.space.lookup(data) == 0
    assert w.protect(data, R) == 0
    assert repair(w, data)


def test_area_wider_than_the_cap_of_a_new_tcs_is_sigbus() -> None:
    """MODIFY_TYPES to TCS lowered the cap to RW and zapped the entry; the area kept RWX."""
    w = world(nssa=4)
    heap = w.enclave.heap
    w.call(accept, heap)
    assert w.do(w.enclave.make_tcs(w.host, heap))[0] == 0
    sigbus(w, heap)


def test_fault_before_init_maps_the_page() -> None:
    machine = Machine(epc="1M")
    host = machine.thread()
    machine.kernel.inject = "init_page".__eq__
    fd, image = machine.run(host.open()), default_image()
    base = machine.run(reserve(host, image.size))
    with pytest.raises(BuildError, match="INIT"):
        machine.run(build(host, fd, base, image))
    encl = encl_of(host.process.files[fd])
    flags = MAP_SHARED | MAP_FIXED
    assert machine.run(host.mmap(encl.base, encl.size, R, flags, fd)) == encl.base
    assert machine.run(host.load(encl.base, 2)) == b"\xff\xff"
    assert host.thread.mm.space.lookup(encl.base) & PTE_P
    # A hole is another matter: without an initialised enclave EAUG is not even tried.
    sites: list[str] = []

    def note(site: str) -> bool:
        sites.append(site)
        return False

    machine.kernel.inject = note
    with pytest.raises(SignalRaised) as raised:
        machine.run(host.load(encl.base + encl.size - PAGE_SIZE, 1))
    assert raised.value.signal.number == SIGBUS
    assert sites == []


def test_failed_insertion_is_sigbus_and_may_be_tried_again() -> None:
    w = world()
    data = w.enclave.data[0]
    w.kernel.inject = "vmf_insert_pfn".__eq__
    assert not repair(w, data)
    w.kernel.inject = None
    assert repair(w, data)


def test_entry_that_exists_counts_as_success_and_is_left_alone() -> None:
    """A thread that waited for the mutex finds that another has mapped the page, and used it."""
    w = world()
    data = w.enclave.data[0]
    w.call(store, data)
    before = w.mm.space.lookup(data)
    assert w.mm.insert_pfn(data, 99, R) == 0
    assert w.mm.space.lookup(data) == before


def test_new_entry_is_old_unless_eaug_made_it() -> None:
    """The accessed bit: a page just added by EAUG survives one round of the reclaimer."""
    w = world()
    data, hole = w.enclave.data[0], w.enclave.heap
    assert repair(w, data)
    assert repair(w, hole)
    assert w.mm.space.lookup(data) & (PTE_P | PTE_A) == PTE_P
    assert w.mm.space.lookup(hole) & (PTE_P | PTE_A) == PTE_P | PTE_A


def test_evicted_page_comes_back_unseen() -> None:
    w = world(pages=300, hole=4)
    out = [a for a in w.enclave.data if _page(w, a).epc_page is None]
    assert out
    assert w.call(load_, out[0]) == b"\0"
    assert _page(w, out[0]).epc_page is not None


def _page(w: World, address: int) -> SgxEnclPage:
    page = w.encl.page(address)
    assert page is not None
    return page


def test_backing_store_that_is_short_is_sigbus() -> None:
    w = world(pages=300, hole=4)
    out = next(a for a in w.enclave.data if _page(w, a).epc_page is None)
    w.machine.settle()
    w.kernel.inject = "sgx_encl_get_backing".__eq__
    # Without the reclaim daemon, which would try for ever.
    signal = run(do_user_addr_fault(w.host.thread, PFEC_U, out))
    assert signal == (SIGBUS, BUS_ADRERR, out, 14, PFEC_U)
    w.kernel.inject = None
    assert w.call(load_, out) == b"\0"


# Holes


def test_eaug_adds_a_pending_rw_page_of_zeros() -> None:
    w = world()
    heap = w.enclave.heap
    free, children = w.kernel.nr_free, w.encl.secs_child_cnt
    assert repair(w, heap)
    resident = _page(w, heap).epc_page
    assert resident is not None
    assert w.machine.processor.epcm.state[resident.number] == VALID | REG | PENDING | R | W
    assert (w.kernel.nr_free, w.encl.secs_child_cnt) == (free - 1, children + 1)
    assert resident in w.kernel.active_page_list
    w.call(accept, heap)
    assert w.call(load_, heap) == b"\0"


TOUCHES: dict[str, Callable[[World, int], object]] = {
    "host load": lambda w, a: w.do(w.host.load(a, 1)),
    "host store": lambda w, a: w.do(w.host.store(a, b"x")),
    "enclave load": lambda w, a: w.fault(load_, a) == (14, 0x8005, a) or pytest.fail("load"),
    "enclave store": lambda w, a: w.fault(store, a) == (14, 0x8007, a) or pytest.fail("store"),
    "enclave fetch": lambda w, a: w.fault(fetch, a) == (14, 0x8015, a) or pytest.fail("fetch"),
    "eaccept": lambda w, a: w.call(accept, a),
}


@pytest.mark.parametrize("touch", TOUCHES, ids=str)
def test_any_access_adds_the_page(touch: str) -> None:
    """From inside or outside, read, write or fetch; only EACCEPT sees nothing of it."""
    w = world()
    TOUCHES[touch](w, w.enclave.heap)
    assert w.encl.page(w.enclave.heap) is not None
    assert w.encl.page(w.enclave.heap + PAGE_SIZE) is None


@pytest.mark.parametrize("rights", [R, R | W, RWX, X])
def test_rights_of_the_area_do_not_matter_to_eaug(rights: int) -> None:
    w = world()
    heap = w.enclave.heap
    assert w.map(heap, rights) == heap
    assert repair(w, heap)
    assert _page(w, heap).vm_max_prot_bits == RWX


def test_without_sgx2_a_hole_is_sigbus() -> None:
    w = world(Machine(epc="1M", part=Part(sgx2=False)), nssa=4)
    sigbus(w, w.enclave.heap)
    assert w.encl.page(w.enclave.heap) is None


def test_hole_outside_the_enclave_is_sigbus() -> None:
    """An over-wide area from before INIT: EAUG is tried, and the processor refuses it."""
    w = unmapped(early=R | W)
    behind, free = w.enclave.base + w.enclave.size, w.kernel.nr_free
    assert not repair(w, behind)
    assert (w.encl.page(behind), w.kernel.nr_free) == (None, free), "all of it is undone"


def once(site: str) -> Callable[[str], bool]:
    """An injection that fires at `site` the first time."""
    left = [site]

    def inject(at: str) -> bool:
        if at in left:
            left.remove(at)
            return True
        return False

    return inject


def test_descriptor_that_cannot_be_allocated_is_oom_and_unseen() -> None:
    """Memory is made, and the instruction executes again."""
    w = world()
    w.kernel.inject = once("sgx_encl_page_alloc")
    w.call(accept, w.enclave.heap)
    assert w.kernel.fail("sgx_encl_page_alloc") is False
    assert w.encl.page(w.enclave.heap) is not None


@pytest.mark.parametrize("site", ["xa_insert", "vmf_insert_pfn"])
def test_failure_of_eaug_is_sigbus(site: str) -> None:
    """Undone, except that a page without an entry stays: the next fault maps it."""
    w = world()
    heap, free, count = w.enclave.heap, w.kernel.nr_free, w.encl.page_cnt
    w.kernel.inject = once(site)
    assert not repair(w, heap)
    stays = site == "vmf_insert_pfn"
    assert (w.encl.page(heap) is not None) is stays
    assert (w.kernel.nr_free, w.encl.page_cnt) == (free - stays, count + stays)
    w.call(accept, heap)
    assert (w.kernel.nr_free, w.encl.page_cnt) == (free - 1, count + 1)


def test_no_epc_and_nothing_to_reclaim_is_sigbus() -> None:
    w = world()
    w.kernel.active_page_list.clear()
    w.kernel.inject = "sgx_alloc_epc_page".__eq__
    assert not repair(w, w.enclave.heap)
    assert w.encl.page(w.enclave.heap) is None


def test_no_epc_but_something_to_reclaim_is_tried_again() -> None:
    w = world()
    w.kernel.inject = once("sgx_alloc_epc_page")
    assert repair(w, w.enclave.heap)
    assert w.encl.page(w.enclave.heap) is None, "the instruction has to fault again"
    w.call(accept, w.enclave.heap)
    assert w.encl.page(w.enclave.heap) is not None


def test_page_is_found_by_its_linear_address() -> None:
    """The file offset does not matter."""
    w = unmapped()
    data = w.enclave.data[0]
    assert w.map(data, R | W) == data
    assert repair(w, data)
    resident = _page(w, data).epc_page
    assert resident is not None
    pfn = w.machine.processor.epc.pfn(resident.number)
    assert w.mm.space.lookup(data) >> 12 & (1 << 40) - 1 == pfn
