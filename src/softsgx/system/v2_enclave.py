"""A loaded enclave under the V2 series, whose ioctls take a SECINFO in user memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from softsgx.linux import uapi
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_SHIFT
from softsgx.spec.paging import SECINFO
from softsgx.spec.structure import Structure
from softsgx.system.host import HostThread
from softsgx.system.loaded_enclave import Enclave

_OPERAND: Final = PAGE_SIZE // 2


class V2Enclave(Enclave):
    """As `Enclave`, with RELAX as well as RESTRICT."""

    REMOVE_PAGES: ClassVar[int] = uapi.V2_IOC_ENCLAVE_REMOVE_PAGES

    def relax(
        self, host: HostThread, address: int, length: int, rights: int
    ) -> Steps[tuple[int, Any]]:
        """RELAX_PERMISSIONS: tells the kernel that the enclave has extended to `rights`."""
        cmd, block = uapi.V2_IOC_ENCLAVE_RELAX_PERMISSIONS, uapi.SgxEnclaveRelaxPerm
        return (yield from self._change(host, cmd, block, address, length, rights))

    def restrict(
        self, host: HostThread, address: int, length: int, rights: int
    ) -> Steps[tuple[int, Any]]:
        """RESTRICT_PERMISSIONS."""
        cmd, block = uapi.V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS, uapi.SgxEnclaveRestrictPerm
        return (yield from self._change(host, cmd, block, address, length, rights))

    def modify_types(
        self, host: HostThread, address: int, length: int, page_type: int
    ) -> Steps[tuple[int, Any]]:
        """MODIFY_TYPE."""
        cmd, block = uapi.V2_IOC_ENCLAVE_MODIFY_TYPE, uapi.SgxEnclaveRestrictPerm
        flags = page_type << PT_SHIFT
        return (yield from self._change(host, cmd, block, address, length, flags))

    def _change(
        self,
        host: HostThread,
        cmd: int,
        block: Callable[..., Structure],
        address: int,
        length: int,
        flags: int,
    ) -> Steps[tuple[int, Any]]:
        """An ioctl whose block points to a SECINFO with these FLAGS, later in the same page."""
        place = yield from host.alloc(PAGE_SIZE)
        argument = block(offset=address - self.base, length=length, secinfo=place + _OPERAND)
        yield from host.store(place, argument.pack())
        yield from host.store(place + _OPERAND, SECINFO(FLAGS=flags).pack())
        ret = yield from host.ioctl(self.fd, cmd, place)
        raw = yield from host.load(place, argument.SIZE)
        yield from host.munmap(place, PAGE_SIZE)
        return ret, type(argument).unpack(raw)
