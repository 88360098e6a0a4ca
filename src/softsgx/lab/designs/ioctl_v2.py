"""Design `ioctl-v2`: the series of February 2022, which linux/sgx/v2.py models.

It differs from `ioctl` inside the kernel, and a runtime must announce each extension by RELAX.
"""

from typing import Any

from softsgx.lab.designs.base import BY_V2, Design
from softsgx.lab.measured import MeasuredHost
from softsgx.linux.uapi import (
    V2_IOC_ENCLAVE_RELAX_PERMISSIONS,
    V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
    SgxEnclaveRelaxPerm,
    SgxEnclaveRestrictPerm,
)
from softsgx.sim import Steps
from softsgx.spec.paging import SECINFO
from softsgx.system.loaded_enclave import Enclave


class IoctlV2(Design):
    """RESTRICT and RELAX, a mirror of run-time permissions, PTEs zapped at each change."""

    name = "ioctl-v2"
    about = "February 2022: RELAX and RESTRICT, the kernel mirrors rights and zaps PTEs"
    linux = "v2"
    asks = BY_V2

    def restrict(
        self, host: MeasuredHost, enclave: Enclave, address: int, length: int, rights: int
    ) -> Steps[tuple[int, Any]]:
        """RESTRICT_PERMISSIONS with a SECINFO in user memory."""
        cmd, block = V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS, SgxEnclaveRestrictPerm
        return (yield from _change(host, enclave, cmd, block, address, length, rights))

    def relax(
        self, host: MeasuredHost, enclave: Enclave, address: int, length: int, rights: int
    ) -> Steps[tuple[int, Any]]:
        """RELAX_PERMISSIONS."""
        cmd, block = V2_IOC_ENCLAVE_RELAX_PERMISSIONS, SgxEnclaveRelaxPerm
        return (yield from _change(host, enclave, cmd, block, address, length, rights))


def _change(
    host: MeasuredHost,
    enclave: Enclave,
    cmd: int,
    block: type[Any],
    address: int,
    length: int,
    rights: int,
) -> Steps[tuple[int, Any]]:
    secinfo = yield from host.put_operand(SECINFO(FLAGS=rights).pack())
    argument = block(offset=address - enclave.base, length=length, secinfo=secinfo)
    return (yield from host.ioctl_block(enclave.fd, cmd, argument))
