"""/dev/sgx_enclave: open, release, mmap. Linux 6.12, sgx/driver.c, sgx/encl.c (sgx_mmap)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.linux.errno import EINVAL
from softsgx.linux.mm import Vma
from softsgx.linux.process import Thread
from softsgx.linux.sgx.encl import SgxEncl, sgx_encl_may_map, sgx_encl_mm_add
from softsgx.linux.sgx.ioctl import sgx_ioctl
from softsgx.linux.trace import refused
from softsgx.linux.uapi import MAP_FIXED, MAP_PRIVATE, MAP_TYPE

if TYPE_CHECKING:
    from softsgx.linux.vfs import File
    from softsgx.sim import Steps


def encl_of(file: File) -> SgxEncl:
    """The enclave of an open /dev/sgx_enclave."""
    encl = file.encl
    assert isinstance(encl, SgxEncl)
    return encl


class SgxEnclaveNode:
    """File operations of /dev/sgx_enclave."""

    def release(self, current: Thread, file: File) -> Steps[None]:
        """sgx_release: drain the address spaces that are left, drop the file's reference."""
        encl = encl_of(file)
        while encl.mm_list:
            yield ("mm_list", encl.name, True)
            if not encl.mm_list:
                break
            encl.mm_list.pop(0)
            yield from encl.srcu.synchronize()
            yield from encl.kref_put(current)
        yield from encl.kref_put(current)

    def ioctl(self, current: Thread, file: File, cmd: int, arg: int) -> Steps[int]:
        """sgx_ioctl."""
        return (yield from sgx_ioctl(current, encl_of(file), cmd, arg))

    def get_unmapped_area(self, current: Thread, address: int, length: int, flags: int) -> int:
        """sgx_get_unmapped_area: shared mappings only; no natural alignment."""
        if flags & MAP_TYPE == MAP_PRIVATE:
            return refused(current, EINVAL, "sgx_get_unmapped_area.private")
        if flags & MAP_FIXED:
            return address
        return current.mm.get_unmapped_area(address, length)

    def mmap(self, current: Thread, file: File, vma: Vma) -> Steps[int]:
        """sgx_mmap: check the rights against the caps, register the address space."""
        encl = encl_of(file)
        ret = yield from sgx_encl_may_map(current, encl, vma.start, vma.end, vma.flags)
        if ret:
            return ret
        ret = yield from sgx_encl_mm_add(current, encl, current.mm)
        if ret:
            return ret
        vma.encl = encl
        return 0
