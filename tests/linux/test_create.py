"""SGX_IOC_ENCLAVE_CREATE: its checks in order, what it creates, nothing if it fails."""

import pytest

from softsgx.events.kernel import CallRefused
from softsgx.linux import uapi
from softsgx.linux.errno import EFAULT, EINTR, EINVAL, EIO, ENOMEM
from softsgx.linux.sgx.encl import SGX_ENCL_CREATED, SGX_ENCL_DEBUG
from softsgx.linux.uapi import PROT_NONE
from softsgx.spec.attributes import ATTR_INIT, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import Machine
from softsgx.system.loader import load
from tests.linux.building import BAD, Building, created, initialized
from tests.linux.world import signalled

CREATE = uapi.SGX_IOC_ENCLAVE_CREATE


def test_create_takes_a_secs_page_and_a_va_page() -> None:
    b = created()
    assert b.epc_used() == 2
    assert (b.encl.base, b.encl.size) == (b.base, b.image.size)
    assert b.encl.flags == SGX_ENCL_CREATED | SGX_ENCL_DEBUG
    assert b.encl.attributes_mask == 0x486
    assert b.close() == 0


def test_debug_is_latched_from_the_attribute() -> None:
    b = Building()
    assert b.create(ATTRIBUTES=ATTR_MODE64BIT) == 0
    assert b.encl.flags == SGX_ENCL_CREATED


def test_only_a_fresh_enclave_can_be_created() -> None:
    assert created().create() == -EINVAL
    assert initialized().create() == -EINVAL
    # The state comes before the argument.
    assert created().at(CREATE, BAD) == -EINVAL


def test_argument_and_secs_must_be_readable() -> None:
    b = Building()
    assert b.at(CREATE, BAD) == -EFAULT
    assert b.ioctl(CREATE, uapi.SgxEnclaveCreate(src=BAD))[0] == -EFAULT


def test_all_4096_bytes_of_the_secs_are_read_from_any_address() -> None:
    b = Building()
    raw = b.image.secs(b.base).pack()
    memory = b.memory(bytes(8) + raw)
    ret, block = b.ioctl(CREATE, uapi.SgxEnclaveCreate(src=memory + 8))
    assert (ret, block.src) == (0, memory + 8)
    b = Building()
    memory = b.memory(bytes(8) + raw)
    b.do(b.host.mprotect(memory + PAGE_SIZE, PAGE_SIZE, PROT_NONE))
    assert b.ioctl(CREATE, uapi.SgxEnclaveCreate(src=memory + 8))[0] == -EFAULT


def test_the_file_holds_all_pages_the_secs_and_their_pcmd() -> None:
    """128 bytes for each page of 4096, as the explanation of a size too large for a file says."""
    b = Building()
    with b.machine.processor.log.record() as events:
        assert b.create(SIZE_=1 << 63) == -EINVAL
    (told,) = [dict(e.fields)["size"] for e in events if isinstance(e, CallRefused)]
    assert told == ((1 << 51) + 1) * (PAGE_SIZE + 128)


@pytest.mark.parametrize("size", [0, 3, 3 * PAGE_SIZE, 1 << 63])
def test_size_must_be_a_power_of_two_that_a_file_can_have(size: int) -> None:
    b = Building()
    assert b.create(SIZE_=size) == -EINVAL
    assert b.epc_used() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"SIZE_": 1},
        {"SIZE_": PAGE_SIZE},
        {"SSAFRAMESIZE": 0},
        {"XFRM": 0},
        {"XFRM": 1 << 62},
        {"MISCSELECT": 1 << 31},
        {"ATTRIBUTES": ATTR_MODE64BIT | ATTR_INIT},
        {"ATTRIBUTES": ATTR_MODE64BIT | 1 << 63},
    ],
)
def test_what_ecreate_refuses_is_eio_and_undone(fields: dict[str, int]) -> None:
    b = Building()
    assert b.create(**fields) == -EIO
    assert (b.epc_used(), b.encl.flags, b.encl.page_cnt) == (0, 0, 0)
    assert b.create() == 0  # on the same descriptor
    assert b.close() == 0


def test_base_alignment_is_for_ecreate_to_judge() -> None:
    b = Building()
    assert b.create(BASEADDR=b.base + PAGE_SIZE) == -EIO


def test_create_needs_no_mapping() -> None:
    b = Building()
    b.do(b.host.munmap(b.base, b.image.size))
    assert b.create() == 0


@pytest.mark.parametrize("failing", [1, 2])  # the VA page, the SECS
def test_exhausted_epc(failing: int) -> None:
    b = Building()
    calls = []

    def inject(site: str) -> bool:
        calls.append(site)
        return site == "sgx_alloc_epc_page" and calls.count(site) == failing

    b.machine.kernel.inject = inject
    assert b.create() == -ENOMEM
    assert b.epc_used() == 0
    assert b.encl.page_cnt == 0
    b.machine.kernel.inject = None
    assert b.create() == 0
    assert b.close() == 0


def test_exhausted_epc_and_a_signal() -> None:
    b = Building(Machine(epc="1M"))
    b.machine.run(load(b.machine.thread(cpu=1), pages=300), cpu=1)
    b.machine.kernel.inject = lambda site: site == "sgx_alloc_epc_page"
    signalled(b.host)
    assert b.create() == -EINTR
    b.machine.kernel.inject = None
    assert b.create() == 0


def test_a_signal_alone_does_not_matter() -> None:
    b = Building()
    signalled(b.host)
    assert b.create() == 0
