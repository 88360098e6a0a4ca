"""vm_max_prot_bits, the cap: the most that mmap and mprotect allow for a page, by its origin."""

import pytest

from softsgx.linux.errno import EFAULT
from softsgx.linux.mm import VM_RWX
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PENDING, REG, RWX, R, W, X
from softsgx.spec.status import SGX_PAGE_NOT_MODIFIABLE
from softsgx.spec.tcs import TCS
from softsgx.system import EnclaveThread
from tests.linux.world import World, unmapped, world


def cap(w: World, address: int) -> int:
    """The cap, as user space sees it: mprotect grants its subsets and nothing else."""
    everything = range(VM_RWX + 1)
    mapped = [prot for prot in everything if w.map(address, prot) == address]
    assert w.map(address, 0) == address
    protected = [prot for prot in everything if w.protect(address, prot) == 0]
    most = max(mapped)
    assert mapped == protected == [prot for prot in everything if not prot & ~most]
    return most


def accept(t: EnclaveThread) -> Steps[None]:
    assert (yield from t.accept_new(t.args)) == 0


def added(w: World) -> int:
    """An accepted page that EAUG added."""
    w.call(accept, w.enclave.heap)
    return w.enclave.heap


@pytest.mark.parametrize("rights", [0, R, X, R | W, R | X, RWX])
def test_added_page_has_the_rights_of_its_secinfo(rights: int) -> None:
    w = unmapped(rights=rights)
    assert cap(w, w.enclave.data[0]) == rights


def test_tcs_page_has_rw() -> None:
    w = world()
    assert cap(w, w.enclave.tcs[0]) == R | W


def test_hole_has_none() -> None:
    w = world()
    assert cap(w, w.enclave.heap) == RWX


def test_page_of_eaug_has_rwx() -> None:
    w = world()
    assert w.map(w.enclave.heap, R) == w.enclave.heap
    assert cap(w, added(w)) == RWX
    assert w.encl.page(w.enclave.heap) is not None


def test_range_is_bound_by_its_narrowest_page() -> None:
    w = world()
    data, hole = w.enclave.data[0], w.enclave.heap
    assert hole == data + PAGE_SIZE
    assert w.map(data, RWX, 2 * PAGE_SIZE) < 0
    assert w.map(data, R | W, 2 * PAGE_SIZE) == data
    assert w.protect(data, RWX, 2 * PAGE_SIZE) < 0
    assert w.protect(hole, RWX) == 0


def tcs_contents(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, TCS(OSSA=PAGE_SIZE, NSSA=1).pack())


def test_page_turned_into_a_tcs_has_rw() -> None:
    w = world()
    address = added(w)
    w.call(tcs_contents, address)
    ret, modt = w.do(w.enclave.make_tcs(w.host, address))
    assert (ret, modt.result, modt.count) == (0, 0, PAGE_SIZE)
    assert cap(w, address) == R | W


def test_page_that_could_not_be_turned_into_a_tcs_keeps_its_cap() -> None:
    """EMODT refuses a page that is still PENDING."""
    w = world()
    assert w.do(w.host.load(w.enclave.heap, 1)) == b"\xff"
    ret, modt = w.do(w.enclave.make_tcs(w.host, w.enclave.heap))
    assert (ret, modt.result, modt.count) == (-EFAULT, SGX_PAGE_NOT_MODIFIABLE, 0)
    assert cap(w, w.enclave.heap) == RWX


@pytest.mark.parametrize("rights", [R, R | W, RWX])
def test_trim_keeps_the_cap(rights: int) -> None:
    w = world(rights=rights)
    address = w.enclave.data[0]
    assert w.do(w.enclave.trim(w.host, address, PAGE_SIZE))[0] == 0
    assert cap(w, address) == rights


def test_restriction_and_its_acceptance_keep_the_cap() -> None:
    w = world()
    address = w.enclave.data[0]
    assert w.do(w.enclave.restrict(w.host, address, PAGE_SIZE, R))[0] == 0
    assert cap(w, address) == R | W
    assert w.map(address, R | W) == address

    def program(t: EnclaveThread) -> Steps[None]:
        assert (yield from t.accept_restricted(address, R)) == 0

    w.call(program)
    assert cap(w, address) == R | W


def test_emodpe_keeps_the_cap() -> None:
    """The kernel never learns that the EPCM permits more."""
    w = world(rights=R)

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.emodpe(w.enclave.data[0], RWX)

    w.call(program)
    assert cap(w, w.enclave.data[0]) == R


def test_eacceptcopy_keeps_the_cap() -> None:
    w = world()

    def program(t: EnclaveThread) -> Steps[None]:
        assert (yield from t.eacceptcopy(w.enclave.heap, w.enclave.data[0], R)) == 0

    w.call(program)
    assert cap(w, w.enclave.heap) == RWX


def test_page_added_where_one_was_removed_has_rwx() -> None:
    w = world(rights=R | X)
    address = w.enclave.data[0]
    assert w.do(w.enclave.trim(w.host, address, PAGE_SIZE))[0] == 0

    def program(t: EnclaveThread) -> Steps[None]:
        assert (yield from t.accept_trim(address)) == 0

    w.call(program)
    assert w.do(w.enclave.remove(w.host, address, PAGE_SIZE))[0] == 0

    def again(t: EnclaveThread) -> Steps[None]:
        assert (yield from t.eaccept(address, REG | PENDING | R | W)) == 0

    w.call(again)
    assert cap(w, address) == RWX
