"""SGX_IOC_ENCLAVE_PROVISION: which descriptor it takes, and at which time."""

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EACCES, EFAULT, EINVAL
from softsgx.spec.attributes import ATTR_MODE64BIT, ATTR_PROVISIONKEY
from softsgx.spec.bits import MASK32
from tests.linux.building import BAD, Building, created, filled, initialized

ATTRIBUTES = ATTR_MODE64BIT | ATTR_PROVISIONKEY
PATH = "/dev/sgx_provision"


def test_provision_between_create_and_init() -> None:
    b = filled(attributes=ATTRIBUTES)
    assert b.init() == -EACCES
    assert b.provision(b.do(b.host.open(PATH))) == 0
    assert b.encl.attributes_mask == 0x496
    assert b.init() == 0


def test_provision_before_create_is_forgotten() -> None:
    b = Building(attributes=ATTRIBUTES)
    assert b.provision(b.do(b.host.open(PATH))) == 0
    assert b.create() == 0
    assert b.encl.attributes_mask == 0x486
    b.fill()
    assert b.init() == -EACCES


def test_provision_after_init_is_accepted() -> None:
    b = initialized()
    assert b.provision(b.do(b.host.open(PATH))) == 0


def test_argument_must_be_readable() -> None:
    assert created().at(uapi.SGX_IOC_ENCLAVE_PROVISION, BAD) == -EFAULT


@pytest.mark.parametrize("fd", [99, MASK32])
def test_descriptor_that_is_not_open(fd: int) -> None:
    assert created().provision(fd) == -EINVAL


def test_descriptor_of_something_else() -> None:
    b = created()
    assert b.provision(b.fd) == -EINVAL
    assert b.encl.attributes_mask == 0x486


def test_descriptor_is_truncated_to_32_bits() -> None:
    b = created()
    assert b.provision(b.do(b.host.open(PATH)) | 0xABCD << 32) == 0
