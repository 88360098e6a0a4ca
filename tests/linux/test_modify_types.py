"""SGX_IOC_ENCLAVE_MODIFY_TYPES, row by row: errno, result, count, caps and PTEs."""

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EFAULT, EINVAL, EPERM
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_SECS, PT_TCS, PT_TRIM, PT_VA, RWX, R, W, X
from softsgx.spec.status import SGX_PAGE_NOT_MODIFIABLE
from softsgx.system import EnclaveThread
from tests.linux.building import BAD
from tests.linux.world import World, unmapped, world

MODIFY = uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES


def modify(w: World, address: int, pages: int, page_type: int) -> tuple[int, int, int]:
    """errno, result, count in pages."""
    ret, block = w.do(w.enclave.modify_types(w.host, address, pages * PAGE_SIZE, page_type))
    return ret, block.result, block.count // PAGE_SIZE


def cap(w: World, address: int) -> int:
    page = w.encl.page(address)
    assert page is not None
    return page.vm_max_prot_bits


def write(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def test_argument_must_be_readable() -> None:
    w = world()
    assert w.do(w.host.ioctl(w.enclave.fd, MODIFY, BAD)) == -EFAULT


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": 8},
        {"length": 0},
        {"offset": (1 << 64) - PAGE_SIZE, "length": 2 * PAGE_SIZE},
        {"page_type": 0x100},
        {"page_type": 1 << 63 | PT_TRIM},
        {"result": 5},
        {"count": 5},
    ],
)
def test_validation_is_einval_and_writes_nothing_back(fields: dict[str, int]) -> None:
    w = world()
    block = uapi.SgxEnclaveModifyTypes(**{"length": PAGE_SIZE, "page_type": PT_TRIM} | fields)
    ret, after = w.do(w.enclave.ioctl(w.host, MODIFY, block))
    assert (ret, after.pack()) == (-EINVAL, block.pack())


@pytest.mark.parametrize("page_type", [PT_SECS, PT_REG, PT_VA, 5, 0xFF])
def test_other_types_are_einval(page_type: int) -> None:
    w = world()
    assert modify(w, w.enclave.data[0], 1, page_type) == (-EINVAL, 0, 0)


def test_trim_keeps_ptes_and_cap() -> None:
    w = world()
    page = w.enclave.data[0]
    w.call(write, page)
    pte = w.mm.space.lookup(page)
    assert modify(w, page, 1, PT_TRIM) == (0, 0, 1)
    assert (w.mm.space.lookup(page), cap(w, page)) == (pte, R | W)
    assert w.fault(write, page) == (14, 0x8007, page)


def test_tcs_zaps_the_pte_and_narrows_the_cap() -> None:
    w = unmapped(rights=RWX)
    page = w.enclave.data[0]
    assert modify(w, page, 1, PT_TCS) == (0, 0, 1)
    assert cap(w, page) == R | W
    w = world()
    w.call(write, w.enclave.data[0])
    assert w.mm.space.lookup(w.enclave.data[0]) != 0
    assert modify(w, w.enclave.data[0], 1, PT_TCS) == (0, 0, 1)
    assert w.mm.space.lookup(w.enclave.data[0]) == 0


@pytest.mark.parametrize("rights", [0, R, X, R | X])
def test_tcs_needs_a_cap_of_r_and_w(rights: int) -> None:
    w = unmapped(rights=rights)
    assert modify(w, w.enclave.data[0], 1, PT_TCS) == (-EPERM, 0, 0)
    assert cap(w, w.enclave.data[0]) == rights


def test_tcs_can_only_become_trim() -> None:
    w = world()
    assert modify(w, w.enclave.tcs[0], 1, PT_TCS) == (-EINVAL, 0, 0)
    assert modify(w, w.enclave.tcs[0], 1, PT_TRIM) == (0, 0, 1)


@pytest.mark.parametrize("page_type", [PT_TCS, PT_TRIM])
def test_trim_can_become_nothing(page_type: int) -> None:
    w = world(pages=2)
    assert modify(w, w.enclave.data[1], 1, PT_TRIM) == (0, 0, 1)
    assert modify(w, w.enclave.data[0], 2, page_type) == (-EINVAL, 0, 1)


@pytest.mark.parametrize("page_type", [PT_TCS, PT_TRIM])
def test_hole_is_efault(page_type: int) -> None:
    w = world()
    assert modify(w, w.enclave.data[0], 2, page_type) == (-EFAULT, 0, 1)


def test_pending_page_is_result_20_and_keeps_its_cap() -> None:
    w = world()
    heap = w.enclave.heap
    assert w.fault(write, heap) == (14, 0x8007, heap)
    assert modify(w, heap, 1, PT_TCS) == (-EFAULT, SGX_PAGE_NOT_MODIFIABLE, 0)
    assert cap(w, heap) == RWX


def test_no_vma_is_needed() -> None:
    w = unmapped(pages=2)
    assert modify(w, w.enclave.data[0], 2, PT_TRIM) == (0, 0, 2)


def test_modified_page_is_result_20() -> None:
    w = world()
    page = w.enclave.data[0]
    assert modify(w, page, 1, PT_TCS) == (0, 0, 1)
    # The enclave has not accepted its new type yet.
    assert modify(w, page, 1, PT_TRIM) == (-EFAULT, SGX_PAGE_NOT_MODIFIABLE, 0)
