"""The kernel reads and writes user memory: anonymous, enclave, none. Linux 6.12, lib/usercopy.c."""

import pytest

from softsgx.events.kernel import PageFaultEnded
from softsgx.linux import uapi
from softsgx.linux.errno import EFAULT, EINVAL
from softsgx.linux.uaccess import copy_from_user, copy_to_user, get_user_page_remote
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W, X
from softsgx.system import EnclaveThread
from tests.linux.world import World, world


def read(w: World, address: int, size: int) -> bytes | None:
    return w.do(copy_from_user(w.host.thread, address, size))


def write(w: World, address: int, data: bytes) -> bool:
    return w.do(copy_to_user(w.host.thread, address, data)) == 0


def test_anonymous_memory_across_pages() -> None:
    w = world()
    at = w.do(w.host.alloc(2 * PAGE_SIZE)) + PAGE_SIZE - 3
    assert write(w, at, b"abcdef")
    assert w.do(w.host.load(at, 6)) == b"abcdef"
    assert read(w, at, 6) == b"abcdef"


@pytest.mark.parametrize("address", [0, 0x1000, (1 << 47) - 1, 1 << 47, (1 << 64) - 8], ids=hex)
def test_bad_address_is_efault(address: int) -> None:
    w = world()
    assert read(w, address, 8) is None
    assert not write(w, address, bytes(8))


def test_end_of_memory_in_the_middle_is_efault() -> None:
    w = world()
    at = w.do(w.host.alloc(2 * PAGE_SIZE))
    assert w.do(w.host.munmap(at + PAGE_SIZE, PAGE_SIZE)) == 0
    assert read(w, at + PAGE_SIZE - 4, 8) is None
    assert not write(w, at + PAGE_SIZE - 4, b"abcdefgh")
    assert w.do(w.host.load(at + PAGE_SIZE - 4, 4)) == b"abcd", "some of it is written"


@pytest.mark.parametrize("address", [1 << 47, (1 << 47) + PAGE_SIZE, 1 << 48, 1 << 63], ids=hex)
def test_an_address_outside_user_space_does_not_even_fault(address: int) -> None:
    """access_ok comes first; an address below it that is not mapped is a fault of the kernel."""
    w = world()

    def faults(address: int) -> int:
        with w.machine.processor.log.record() as events:
            assert read(w, address, 8) is None
            assert not write(w, address, bytes(8))
        return sum(isinstance(e, PageFaultEnded) for e in events)

    assert faults((1 << 47) - PAGE_SIZE) == 2
    assert faults(address) == 0


def test_a_copy_faults_only_where_an_access_would() -> None:
    """Not at all once the page is mapped as the copy needs it; a write once more after a read."""
    w = world()
    page = w.enclave.data[0]

    def faults(writing: bool) -> int:
        with w.machine.processor.log.record() as events:
            assert write(w, page, b"x") if writing else read(w, page, 1) is not None
        return sum(isinstance(e, PageFaultEnded) for e in events)

    assert [faults(writing) for writing in (False, False, True, True)] == [1, 0, 0, 0]
    w.mm.space.unmap(page)
    assert [faults(writing) for writing in (True, True, False)] == [1, 0, 0]


class Outside:
    """Memory of a real process: each byte is the low byte of its address."""

    def __init__(self) -> None:
        self.written: dict[int, int] = {}

    def read(self, address: int, size: int) -> bytes | None:
        return bytes(at & 0xFF for at in range(address, address + size))

    def write(self, address: int, data: bytes) -> bool:
        self.written.update(enumerate(data, address))
        return True

    def source_page(self, address: int) -> int:
        raise AssertionError(f"ADD_PAGES from {address:#x}")


def test_an_argument_of_a_real_process_may_lie_half_in_enclave_memory() -> None:
    """Outside is the process's own memory, inside is the abort page; both of one argument."""
    w = world()
    w.mm.user = user = Outside()
    start = w.enclave.base
    assert read(w, start - 6, 8) == bytes(range(0xFA, 0x100)) + b"\xff\xff"
    assert write(w, start - 6, b"abcdefgh")
    assert bytes(user.written[at] for at in sorted(user.written)) == b"abcdef"
    end = max(vma.end for vma in w.mm.vmas if vma.sgx)
    assert read(w, end - 2, 8) == b"\xff\xff" + bytes(range(6))
    user.written.clear()
    assert write(w, end - 2, b"abcdefgh")
    assert user.written == dict(enumerate(b"cdefgh", end))
    assert read(w, start - PAGE_SIZE - 2, 2 * PAGE_SIZE) == (
        Outside().read(start - PAGE_SIZE - 2, PAGE_SIZE + 2) or b""
    ) + b"\xff" * (PAGE_SIZE - 2)


def test_an_area_ends_where_it_ends() -> None:
    """`find_vma` gives the first area that ends above an address: not the one that ends there."""
    w = world()
    at = w.do(w.host.alloc(3 * PAGE_SIZE))
    assert w.do(w.host.munmap(at + PAGE_SIZE, PAGE_SIZE)) == 0
    below, above = w.mm.find_vma(at), w.mm.find_vma(at + 2 * PAGE_SIZE)
    assert below is not None
    assert above is not None
    assert (below.start, below.end, above.start) == (at, at + PAGE_SIZE, at + 2 * PAGE_SIZE)
    for address in (at, at + PAGE_SIZE - 1):
        assert w.mm.find_vma(address) is below
    for address in (at + PAGE_SIZE, at + 2 * PAGE_SIZE - 1, at + 2 * PAGE_SIZE):
        assert w.mm.find_vma(address) is above
    assert w.mm.find_vma(w.mm.vmas[0].start - 1) is w.mm.vmas[0]
    assert w.mm.find_vma(w.mm.vmas[-1].end) is None


@pytest.mark.parametrize(
    ("rights", "readable", "writable"), [(0, False, False), (R, True, False), (R | W, True, True)]
)
def test_rights_of_the_area_count(rights: int, readable: bool, writable: bool) -> None:
    w = world()
    at = w.do(w.host.alloc(PAGE_SIZE))
    assert w.protect(at, rights) == 0
    assert (read(w, at, 8) is not None) is readable
    assert write(w, at, b"x") is writable
    # Once more, now that there may be an entry.
    assert (read(w, at, 8) is not None) is readable
    assert write(w, at, b"x") is writable


def secret(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"secret")


def reveal(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.load(t.args, 6))


def test_enclave_memory_reads_as_ones_and_swallows_writes() -> None:
    w = world()
    data = w.enclave.data[0]
    w.call(secret, data)
    assert read(w, data, 6) == b"\xff" * 6
    assert write(w, data, b"forged")
    assert w.call(reveal, data) == b"secret"


def test_missing_entry_of_enclave_memory_is_repaired() -> None:
    w = world()
    data = w.enclave.data[0]
    assert w.mm.space.lookup(data) == 0
    assert read(w, data, 1) == b"\xff"
    assert w.mm.space.lookup(data) != 0


@pytest.mark.parametrize("writing", [False, True])
def test_hole_is_added_by_the_kernels_own_access(writing: bool) -> None:
    w = world()
    heap = w.enclave.heap
    if writing:
        assert write(w, heap, b"x")
    else:
        assert read(w, heap, 1) == b"\xff"
    assert w.encl.page(heap) is not None


def test_write_to_a_read_only_area_of_the_enclave_is_efault() -> None:
    w = world()
    data = w.enclave.data[0]
    assert w.protect(data, R) == 0
    assert not write(w, data, b"x")
    assert read(w, data, 1) == b"\xff"
    assert not write(w, data, b"x")


def test_sigbus_is_efault() -> None:
    w = world()
    w.kernel.inject = "vmf_insert_pfn".__eq__
    assert read(w, w.enclave.data[0], 1) is None


def test_evicted_page_is_brought_back() -> None:
    w = world(pages=300, hole=4)
    pages = [(a, w.encl.page(a)) for a in w.enclave.data]
    out = next(a for a, page in pages if page is not None and page.epc_page is None)
    assert read(w, out, 2) == b"\xff\xff"


def test_ioctl_argument_in_enclave_memory_is_all_ones() -> None:
    """RESTRICT_PERMISSIONS sees offset 0xFFFF_FFFF_FFFF_FFFF, which is not page aligned."""
    w = world()
    data = w.enclave.data[0]
    request = uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS
    assert w.do(w.host.ioctl(w.enclave.fd, request, data)) == -EINVAL


# Pinning: the source of ADD_PAGES


def test_enclave_memory_cannot_be_pinned() -> None:
    w = world()
    w.call(secret, w.enclave.data[0])
    assert get_user_page_remote(w.mm, w.enclave.data[0]) == -EFAULT


@pytest.mark.parametrize(("rights", "good"), [(0, False), (X, False), (R, True), (R | W, True)])
def test_pinning_needs_an_area_that_can_be_read(rights: int, good: bool) -> None:
    w = world()
    at = w.do(w.host.alloc(PAGE_SIZE))
    assert w.protect(at, rights) == 0
    assert (get_user_page_remote(w.mm, at) > 0) is good
    assert get_user_page_remote(w.mm, 0x1000) == -EFAULT
