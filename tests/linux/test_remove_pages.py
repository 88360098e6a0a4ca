"""SGX_IOC_ENCLAVE_REMOVE_PAGES, row by row: errno, count, what is left."""

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EFAULT, EINVAL, EPERM
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import EnclaveThread
from tests.linux.building import BAD
from tests.linux.world import World, signalled, world

REMOVE = uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES


def remove(w: World, address: int, pages: int) -> tuple[int, int]:
    """errno, count in pages."""
    ret, block = w.do(w.enclave.remove(w.host, address, pages * PAGE_SIZE))
    return ret, block.count // PAGE_SIZE


def trim(w: World, *pages: int) -> None:
    for page in pages:
        assert w.do(w.enclave.trim(w.host, page, PAGE_SIZE))[0] == 0


def accept(t: EnclaveThread) -> Steps[None]:
    for address in t.args:
        assert (yield from t.accept_trim(address)) == 0


def test_argument_must_be_readable() -> None:
    w = world()
    assert w.do(w.host.ioctl(w.enclave.fd, REMOVE, BAD)) == -EFAULT


@pytest.mark.parametrize("fields", [{"offset": 8}, {"length": 0}, {"length": 7}, {"count": 1}])
def test_validation_is_einval_and_writes_nothing_back(fields: dict[str, int]) -> None:
    w = world()
    block = uapi.SgxEnclaveRemovePages(**{"length": PAGE_SIZE} | fields)
    ret, after = w.do(w.enclave.ioctl(w.host, REMOVE, block))
    assert (ret, after.pack()) == (-EINVAL, block.pack())


def test_page_that_is_not_trim_is_eperm() -> None:
    w = world()
    assert remove(w, w.enclave.data[0], 1) == (-EPERM, 0)


def test_trim_that_is_not_accepted_is_eperm_after_those_that_are() -> None:
    w = world(pages=3)
    trim(w, *w.enclave.data)
    w.call(accept, w.enclave.data[:2])
    free = w.kernel.nr_free
    assert remove(w, w.enclave.data[0], 3) == (-EPERM, 2)
    assert w.kernel.nr_free == free + 2
    assert w.encl.page(w.enclave.data[2]) is not None
    w.call(accept, w.enclave.data[2:])
    assert remove(w, w.enclave.data[2], 1) == (0, 1)
    assert w.kernel.nr_free == free + 3


def test_removed_page_is_a_hole_without_pte() -> None:
    w = world()
    page = w.enclave.data[0]
    trim(w, page)
    w.call(accept, [page])
    areas = w.areas(w.enclave.base, w.enclave.size)
    assert w.mm.space.lookup(page) != 0
    assert remove(w, page, 1) == (0, 1)
    assert (w.mm.space.lookup(page), w.encl.page(page)) == (0, None)
    assert w.areas(w.enclave.base, w.enclave.size) == areas
    assert remove(w, page, 1) == (-EFAULT, 0)


def test_signal_does_not_stop_it() -> None:
    w = world(pages=2)
    trim(w, *w.enclave.data)
    w.call(accept, w.enclave.data)
    signalled(w.host)
    assert remove(w, w.enclave.data[0], 2) == (0, 2)
