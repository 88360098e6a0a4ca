"""Debugger access to enclave memory: the access hook of SGX areas. Linux 6.12, sgx/encl.c.

The area's rights and the cap of the page are compared as for a fault, and pages are swapped in; but
no page is added in a hole. The length is not limited by the area: pages after it are reached, too.
"""

from __future__ import annotations

from typing import Final

from softsgx.linux.errno import EBUSY, EFAULT, EIO
from softsgx.linux.mm import Vma
from softsgx.linux.process import Thread
from softsgx.linux.sgx.encl import SGX_ENCL_DEBUG, SgxEncl, sgx_encl_load_page_in_vma
from softsgx.linux.sgx.encls import edbgrd, edbgwr
from softsgx.linux.trace import refused
from softsgx.sim import Steps
from softsgx.sim.point import RETRY
from softsgx.spec.bits import PAGE_MASK

_WORD: Final = 8


def sgx_vma_access(
    current: Thread, vma: Vma, address: int, buf: memoryview, write: bool
) -> Steps[int]:
    """Move `buf` to or from enclave memory word by word: bytes moved, or an errno.

    The errno is returned even if earlier words were moved. mmap_lock held for reading.
    """
    encl = vma.encl
    if encl is None:
        # registration failed at fork
        return refused(current, EFAULT, "sgx_vma_access.unregistered", address=address)
    if not encl.flags & SGX_ENCL_DEBUG:
        return refused(current, EFAULT, "sgx_vma_access.production", address=address)
    done = 0
    while done < len(buf):
        count = min(_WORD - (address + done) % _WORD, len(buf) - done)
        part = buf[done : done + count]
        while True:
            ret = yield from _access_word(current, encl, vma, address + done, part, write)
            if ret != -EBUSY:
                break
            yield (RETRY, encl.name, False)  # spins until the reclaimer is done with the page
        if ret:
            return ret
        done += count
    return done


def _access_word(
    current: Thread, encl: SgxEncl, vma: Vma, address: int, part: memoryview, write: bool
) -> Steps[int]:
    """sgx_encl_reserve_page, then one aligned word, of which `part` is read or written."""
    offset = address % _WORD
    with (yield from encl.lock.acquire()):
        entry = yield from sgx_encl_load_page_in_vma(current, encl, address & ~PAGE_MASK, vma.flags)
        if isinstance(entry, int):
            return entry
        assert entry.epc_page is not None
        at = entry.epc_page.address + (address & PAGE_MASK) - offset
        ret, word = yield from edbgrd(current, at)
        if ret:
            return refused(current, EIO, "sgx_vma_access.EDBGRD", address=address)
        data = bytearray(word.to_bytes(_WORD, "little"))
        if not write:
            part[:] = data[offset : offset + len(part)]
            return 0
        data[offset : offset + len(part)] = part
        ret = yield from edbgwr(current, at, int.from_bytes(data, "little"))
    return refused(current, EIO, "sgx_vma_access.EDBGWR", address=address) if ret else 0
