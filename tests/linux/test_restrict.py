"""SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, row by row: errno, result, count; VMAs and PTEs stay."""

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EFAULT, EINVAL, ENODEV
from softsgx.sim import Steps
from softsgx.spec.bits import MASK64, PAGE_SIZE
from softsgx.spec.epcm import PR, RWX, R, W, X
from softsgx.spec.status import SGX_PAGE_NOT_MODIFIABLE
from softsgx.system import EnclaveThread, Machine
from tests.linux.building import BAD, created
from tests.linux.world import World, signalled, unmapped, world

RESTRICT = uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS
Answer = tuple[int, int, int]


def restrict(w: World, address: int, pages: int, rights: int) -> Answer:
    """errno, result, count in pages."""
    ret, block = w.do(w.enclave.restrict(w.host, address, pages * PAGE_SIZE, rights))
    return ret, block.result, block.count // PAGE_SIZE


def raw(w: World, **fields: int) -> tuple[int, int, int]:
    """errno; result and count as they stand in user memory."""
    block = uapi.SgxEnclaveRestrictPermissions(**{"length": PAGE_SIZE, "permissions": R} | fields)
    ret, block = w.do(w.enclave.ioctl(w.host, RESTRICT, block))
    return ret, block.result, block.count


def accept_r(t: EnclaveThread) -> Steps[None]:
    for address in t.args:
        assert (yield from t.accept_restricted(address, R)) == 0


def touch(t: EnclaveThread) -> Steps[None]:
    for address in t.args:
        yield from t.store(address, b"touched!")


def write(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def test_without_sgx2_it_is_enodev_in_any_state() -> None:
    from softsgx.cpu.part import SGX1_PART

    b = created(Machine(epc="1M", part=SGX1_PART), miscselect=0)
    for cmd in (RESTRICT, uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES, uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES):
        assert b.at(cmd, BAD) == -ENODEV


def test_before_init_it_is_einval() -> None:
    for cmd in (RESTRICT, uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES, uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES):
        assert created().at(cmd, BAD) == -EINVAL


def test_argument_must_be_readable() -> None:
    w = world()
    assert w.do(w.host.ioctl(w.enclave.fd, RESTRICT, BAD)) == -EFAULT


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": 1},
        {"length": 0},
        {"length": PAGE_SIZE + 1},
        {"offset": (1 << 64) - PAGE_SIZE, "length": 2 * PAGE_SIZE},
        {"offset": 1 << 32},
        {"permissions": 8},
        {"permissions": R | 1 << 63},
        {"permissions": W},
        {"permissions": W | X},
        {"result": 1},
        {"count": 1},
    ],
)
def test_validation_is_einval_and_writes_nothing_back(fields: dict[str, int]) -> None:
    w = world()
    before = fields.get("result", 0), fields.get("count", 0)
    assert raw(w, **fields) == (-EINVAL, *before)


def test_k11_range_that_wraps_meets_no_page() -> None:
    w = world(Machine(epc="1M", races={"range_overflow": True}))
    fields = {"offset": (1 << 64) - PAGE_SIZE, "length": 2 * PAGE_SIZE}
    assert raw(w, **fields) == (-EFAULT, 0, 0)


def test_restrict_leaves_vmas_and_ptes_and_the_cap() -> None:
    w = world(pages=3)
    w.call(touch, w.enclave.data)
    areas = w.areas(w.enclave.base, w.enclave.size)
    ptes = [w.mm.space.lookup(address) for address in w.enclave.data]
    assert restrict(w, w.enclave.data[0], 3, R) == (0, 0, 3)
    assert w.areas(w.enclave.base, w.enclave.size) == areas
    assert [w.mm.space.lookup(address) for address in w.enclave.data] == ptes
    w.call(accept_r, w.enclave.data)
    assert w.fault(write, w.enclave.data[2]) == (14, 0x8007, w.enclave.data[2])
    page = w.encl.page(w.enclave.data[0])
    assert page is not None
    assert page.vm_max_prot_bits == R | W


@pytest.mark.parametrize("rights", [0, R, X, R | X, R | W, RWX])
def test_rights_accepted(rights: int) -> None:
    w = world()
    assert restrict(w, w.enclave.data[0], 1, rights) == (0, 0, 1)


@pytest.mark.parametrize("rights", [0, X])
def test_rule_of_v3_and_v4(rights: int) -> None:
    w = world(Machine(epc="1M", restrict_requires_read=True))
    assert restrict(w, w.enclave.data[0], 1, rights) == (-EINVAL, 0, 0)
    assert restrict(w, w.enclave.data[0], 1, R | rights) == (0, 0, 1)


def test_tcs_page_is_einval() -> None:
    w = world()
    assert restrict(w, w.enclave.tcs[0], 3, R) == (-EINVAL, 0, 0)


def test_trim_page_is_einval_after_the_pages_before_it() -> None:
    w = world(pages=4)
    assert w.do(w.enclave.trim(w.host, w.enclave.data[2], PAGE_SIZE))[0] == 0
    assert restrict(w, w.enclave.data[0], 4, R) == (-EINVAL, 0, 2)
    # The pages before it are restricted, the one after it is not.
    w.call(accept_r, w.enclave.data[:2])
    assert w.fault(write, w.enclave.data[1]) == (14, 0x8007, w.enclave.data[1])


def test_hole_is_efault_without_result() -> None:
    w = world(pages=2)
    assert w.enclave.heap == w.enclave.data[1] + PAGE_SIZE
    assert restrict(w, w.enclave.data[0], 4, R) == (-EFAULT, 0, 2)


def test_pending_page_is_result_20() -> None:
    w = world()
    assert w.fault(write, w.enclave.heap) == (14, 0x8007, w.enclave.heap)
    assert restrict(w, w.enclave.data[0], 2, R) == (-EFAULT, SGX_PAGE_NOT_MODIFIABLE, 1)


def test_page_under_modification_does_not_hinder_a_second_restriction() -> None:
    w = world()
    assert restrict(w, w.enclave.data[0], 1, R) == (0, 0, 1)
    assert restrict(w, w.enclave.data[0], 1, R) == (0, 0, 1)


def test_swapped_out_pages_come_back() -> None:
    w = world(Machine(epc="128K"), pages=40)
    pages = [w.encl.page(address) for address in w.enclave.data]
    out = [page for page in pages if page is not None and page.epc_page is None]
    assert len(out) > 0
    done = 0
    while done < 40:  # -EAGAIN while EPC is short
        ret, result, count = restrict(w, w.enclave.data[done], 40 - done, R)
        assert (ret, result) in [(0, 0), (-11, 0)]
        done += count
    w.call(accept_r, w.enclave.data)
    assert w.fault(write, w.enclave.data[0]) == (14, 0x8007, w.enclave.data[0])


def test_no_vma_is_needed() -> None:
    w = unmapped()
    assert restrict(w, w.enclave.data[0], 1, R) == (0, 0, 1)


def test_narrower_vma_does_not_matter() -> None:
    w = world()
    assert w.protect(w.enclave.data[0], 0) == 0
    assert restrict(w, w.enclave.data[0], 1, R) == (0, 0, 1)


def test_signal_does_not_stop_it() -> None:
    w = world(pages=3)
    signalled(w.host)
    assert restrict(w, w.enclave.data[0], 3, R) == (0, 0, 3)


def test_answer_that_cannot_be_written_back_is_efault() -> None:
    w = world()
    offset = w.enclave.data[0] - w.enclave.base
    block = uapi.SgxEnclaveRestrictPermissions(offset=offset, length=PAGE_SIZE, permissions=R)
    address = w.do(w.host.alloc(PAGE_SIZE))
    w.do(w.host.store(address, block.pack()))
    assert w.protect(address, 1) == 0
    assert w.do(w.host.ioctl(w.enclave.fd, RESTRICT, address)) == -EFAULT
    w.call(accept_r, [w.enclave.data[0]])  # it was done


def test_range_goes_before_permissions_and_state_before_all() -> None:
    w = world()
    assert raw(w, offset=MASK64, permissions=MASK64, result=3, count=4) == (-EINVAL, 3, 4)


@pytest.mark.parametrize(("asked", "left"), [(RWX, R | W), (R | X, R), (X, 0), (0, 0)])
def test_nothing_is_ever_granted(asked: int, left: int) -> None:
    """A page of RW: permissions that it lacks are not granted. It succeeds either way."""
    w = world()
    page = w.encl.page(w.enclave.data[0])
    assert page is not None
    assert page.epc_page is not None
    assert restrict(w, w.enclave.data[0], 1, asked) == (0, 0, 1)
    word = w.machine.processor.epcm.state[page.epc_page.number]
    assert word & (RWX | PR) == left | PR
