"""Which ioctl is allowed in which state of the enclave, before its argument is read.

The argument is a bad address, so an ioctl that is allowed returns -EFAULT. Linux 6.12, sgx/ioctl.c.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from softsgx.cpu import Part
from softsgx.linux import uapi
from softsgx.linux.errno import EFAULT, EINVAL, ENODEV, ENOTTY
from softsgx.system import Machine
from tests.linux.building import BAD, Building, created, initialized

STATES: dict[str, Callable[[Machine], Building]] = {
    "fresh": Building,
    "created": created,
    "initialized": initialized,
}
BUILD = {
    # errno when fresh, created, initialized: the same with SGX2 and without.
    uapi.SGX_IOC_ENCLAVE_CREATE: (-EFAULT, -EINVAL, -EINVAL),
    uapi.SGX_IOC_ENCLAVE_ADD_PAGES: (-EINVAL, -EFAULT, -EINVAL),
    uapi.SGX_IOC_ENCLAVE_INIT: (-EINVAL, -EFAULT, -EINVAL),
    uapi.SGX_IOC_ENCLAVE_PROVISION: (-EFAULT, -EFAULT, -EFAULT),
    0xA404: (-ENOTTY, -ENOTTY, -ENOTTY),  # SGX_IOC_VEPC_REMOVE_ALL, for another node
}
SGX2 = (
    uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
    uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES,
    uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES,
)


@pytest.mark.parametrize("sgx2", [True, False])
@pytest.mark.parametrize("linux", ["6.12", "6.1"])
@pytest.mark.parametrize("state", STATES)
def test_gate(state: str, linux: str, sgx2: bool) -> None:
    """SGX2 is tested before the state."""
    b = STATES[state](Machine(epc="1M", linux=linux, part=Part(sgx2=sgx2)))
    number = list(STATES).index(state)
    expected = {cmd: errnos[number] for cmd, errnos in BUILD.items()}
    ready = -EFAULT if state == "initialized" else -EINVAL
    expected |= dict.fromkeys(SGX2, ready if sgx2 else -ENODEV)
    assert {cmd: b.at(cmd, BAD) for cmd in expected} == expected
