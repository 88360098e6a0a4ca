"""A design in the lab: hooks in the driver, and how a host asks for a restriction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.linux.errno import EAGAIN, EBUSY, EIO
from softsgx.linux.sgx.design import PermissionDesign
from softsgx.linux.sgx.edmm import sgx_emodpr, sgx_enclave_etrack
from softsgx.linux.sgx.encl import SgxEncl, sgx_encl_load_page
from softsgx.linux.uapi import SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, SgxEnclaveRestrictPermissions
from softsgx.linux.version import VERSION_DEFAULT
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_REG, R, W

if TYPE_CHECKING:
    from softsgx.lab.measured import MeasuredHost
    from softsgx.linux.process import Thread
    from softsgx.system.loaded_enclave import Enclave

# How a host restricts pages; the orders of the runtimes are adapted to this.
BY_IOCTL: Final = "ioctl"  # to the wanted rights, by an ioctl; mprotect() changes only the VMA
BY_V2: Final = "ioctl-v2"  # the same, and RELAX for every extension
BY_MPROTECT: Final = "mprotect, wanted rights"  # mprotect() restricts the EPCM to the same rights
TO_READ: Final = "mprotect, to R"  # mprotect() leaves R, now or at the next fault


class Design(PermissionDesign):
    """One design. `linux` is the kernel it is built into, `asks` how a host restricts.

    `driver` is the driver object that the kernel runs on, if it is not the driver in Python.
    """

    name: str
    about: str
    linux: str = VERSION_DEFAULT
    asks: str = BY_IOCTL
    driver: str | None = None

    def restrict(
        self, host: MeasuredHost, enclave: Enclave, address: int, length: int, rights: int
    ) -> Steps[tuple[int, Any]]:
        """The call that restricts: the errno, and the argument block if there is one."""
        argument = SgxEnclaveRestrictPermissions(
            offset=address - enclave.base, length=length, permissions=rights
        )
        cmd = SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS
        return (yield from host.ioctl_block(enclave.fd, cmd, argument))


class MprotectDesign(Design):
    """A design in which mprotect() restricts: the caller learns only an errno."""

    def restrict(
        self, host: MeasuredHost, enclave: Enclave, address: int, length: int, rights: int
    ) -> Steps[tuple[int, Any]]:
        """mprotect(2)."""
        return (yield from host.mprotect(address, length, rights)), None


def restrict_in_mprotect(
    current: Thread, encl: SgxEncl, start: int, end: int, rights: int
) -> Steps[int]:
    """EMODPR, ETRACK and IPIs for every page of [start, end) that exists; mmap_lock held.

    The loop is that of the ioctl, so that the designs do not differ in it. Holes and pages that are
    not PT_REG are skipped, as mprotect() must do. No direct reclaim: it would take mmap_lock again.
    """
    if rights & (R | W) == W:
        rights |= R  # x86 cannot map W without R either
    for address in range(start, end, PAGE_SIZE):
        with (yield from encl.lock.acquire()):
            if encl.page(address) is None:
                continue
            entry = yield from sgx_encl_load_page(current, encl, address)
            if isinstance(entry, int):
                return -EAGAIN if entry == -EBUSY else -EIO
            if entry.type != PT_REG:
                continue
            if (yield from sgx_emodpr(current, entry, rights)):
                return -EIO
            if (yield from sgx_enclave_etrack(current, encl)):
                return -EIO
    return 0
