"""Design `ioctl-batched`: the ioctl of Linux 6.x with one ETRACK and one IPI round for the range.

It shows what batching could still gain. encl.lock is held from the first EMODPR to the end of
tracking, as a comment in the driver demands, so faults wait for the whole range, not for one page.
"""

from collections.abc import Callable

from softsgx.lab.designs.base import Design
from softsgx.linux.process import Thread
from softsgx.linux.sgx import edmm
from softsgx.linux.sgx import main as m
from softsgx.linux.sgx.encl import SgxEncl
from softsgx.linux.uapi import SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, SgxEnclaveRestrictPermissions
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE


class IoctlBatched(Design):
    """EMODPR for every page, then ETRACK and IPIs once, also after a failure at page k."""

    name = "ioctl-batched"
    about = "Linux 6.x, but one ETRACK and one IPI round for the whole range"

    def ioctls(self) -> dict[int, Callable[[Thread, SgxEncl, int], Steps[int]]]:
        """RESTRICT_PERMISSIONS with another body."""
        return {SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS: _ioctl}


def _ioctl(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    return (yield from edmm.sgx_ioc_enclave_restrict_permissions(current, encl, arg, _body))


def _body(current: Thread, encl: SgxEncl, modp: SgxEnclaveRestrictPermissions) -> Steps[int]:
    """Pages restricted before a failure are tracked and counted, so that they can be accepted."""
    yield from m.sgx_reclaim_direct(current)
    block = edmm.sgx_rights_operand(current.kernel, modp.permissions)
    ret, done = 0, 0
    with (yield from encl.lock.acquire()):
        while done < modp.length and not ret:
            ret = yield from edmm.sgx_restrict_one(current, encl, modp, done, block.address)
            done += 0 if ret else PAGE_SIZE
        tracked = (yield from edmm.sgx_enclave_etrack(current, encl)) if done else 0
    current.kernel.put_operands(block)
    modp.count = 0 if tracked else done
    return tracked or ret
