"""Access to the memory of another process. Linux 6.12, mm/memory.c, kernel/ptrace.c,
fs/proc/base.c (mem_rw), mm/process_vm_access.c.

Enclave memory cannot be pinned; a debugger reaches it by the access hook of its area, and
process_vm_readv does not reach it at all. Who may trace whom is not modelled: any process may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EFAULT, EIO, ESRCH
from softsgx.linux.mm import anonymous_page
from softsgx.linux.trace import refused, refused_call, trace_call
from softsgx.linux.uaccess import get_user_page_remote
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.events.kernel import Fields
    from softsgx.linux.mm import Mm, Vma
    from softsgx.linux.process import Process, Thread
    from softsgx.sim import Steps

_WORD: Final = 8


Elsewhere = Callable[[int, memoryview, bool], int]
"""Moves memory that is in no area of the model: address, buffer, whether to write; bytes moved."""


def access_process_vm(
    current: Thread,
    process: Process,
    address: int,
    buf: memoryview,
    write: bool,
    elsewhere: Elsewhere | None = None,
) -> Steps[int]:
    """Move bytes to or from another address space, whatever the rights of its areas.

    Returns the number of bytes moved: fewer than asked for if memory is not mapped, or an enclave
    page cannot be read or written.
    """
    mm = process.mm
    if mm.exited:
        refused(current, EIO, "access_process_vm.exited")
        return 0
    done = 0
    with (yield from mm.mmap_lock.acquire_read()):
        while done < len(buf):
            vma = mm.vma_lookup(address + done)
            if vma is None:
                moved = 0
                if elsewhere is not None:
                    hole = _up_to(mm, address + done, buf[done:])
                    moved = elsewhere(address + done, hole, write)
                if moved <= 0:
                    refused(current, EIO, "access_process_vm.hole", address=address + done)
                    break
            elif vma.sgx:
                access = mm.kernel.driver.access
                moved = yield from access(current, vma, address + done, buf[done:], write)
                if moved <= 0:
                    break
            else:
                moved = _copy(mm, vma, address + done, buf[done:], write)
            done += moved
    return done


def _up_to(mm: Mm, address: int, buf: memoryview) -> memoryview:
    """The part of `buf` that lies below the next area that the model has."""
    following = mm.find_vma(address)
    return buf if following is None else buf[: following.start - address]


def _copy(mm: Mm, vma: Vma, address: int, buf: memoryview, write: bool) -> int:
    """Move anonymous memory up to the end of a page. FOLL_FORCE: the area's rights do not count."""
    offset = address & PAGE_MASK
    count = min(len(buf), PAGE_SIZE - offset)
    physical = anonymous_page(mm, vma, address - offset) << PAGE_SHIFT | offset
    memory = mm.kernel.processor.memory
    if write:
        memory.write(physical, bytes(buf[:count]))
    else:
        buf[:count] = memory.read(physical, count)
    return count


def _traced(current: Thread, name: str, fields: Fields, steps: Steps[int]) -> Steps[int]:
    """Run a call, between the events of its begin and end if there is a listener."""
    on = current.kernel.processor.log.on
    return trace_call(current, name, fields, steps) if on else steps


def ptrace_peekdata(current: Thread, tracee: Process, address: int) -> Steps[int]:
    """PTRACE_PEEKDATA: the word, or -EIO if fewer than 8 bytes could be moved."""
    steps = _peek(current, tracee, address)
    return (yield from _traced(current, "PTRACE_PEEKDATA", (("address", address),), steps))


def _peek(current: Thread, tracee: Process, address: int) -> Steps[int]:
    word = bytearray(_WORD)
    moved = yield from access_process_vm(current, tracee, address, memoryview(word), False)
    return int.from_bytes(word, "little") if moved == _WORD else -EIO


def ptrace_pokedata(current: Thread, tracee: Process, address: int, word: int) -> Steps[int]:
    """PTRACE_POKEDATA: 0, or -EIO if fewer than 8 bytes could be moved."""
    steps = _poke(current, tracee, address, word)
    return (yield from _traced(current, "PTRACE_POKEDATA", (("address", address),), steps))


def _poke(current: Thread, tracee: Process, address: int, word: int) -> Steps[int]:
    data = bytearray(word.to_bytes(_WORD, "little"))
    moved = yield from access_process_vm(current, tracee, address, memoryview(data), True)
    return 0 if moved == _WORD else -EIO


def mem_rw(
    current: Thread,
    process: Process,
    address: int,
    buf: memoryview,
    write: bool,
    elsewhere: Elsewhere | None = None,
) -> Steps[int]:
    """read(2) and write(2) of /proc/<pid>/mem: bytes moved, page by page; -EIO if none were.

    0 if the address space is gone.
    """
    name = "write of /proc/PID/mem" if write else "read of /proc/PID/mem"
    fields = (("address", address), ("length", len(buf)))
    steps = _mem_rw(current, process, address, buf, write, elsewhere)
    return (yield from _traced(current, name, fields, steps))


def _mem_rw(
    current: Thread,
    process: Process,
    address: int,
    buf: memoryview,
    write: bool,
    elsewhere: Elsewhere | None,
) -> Steps[int]:
    if process.mm.exited:
        return 0
    done = 0
    while done < len(buf):
        chunk = buf[done : done + PAGE_SIZE]
        moved = yield from access_process_vm(
            current, process, address + done, chunk, write, elsewhere
        )
        if not moved:
            return done or -EIO
        done += moved
    return done


def process_vm_readv(
    current: Thread, process: Process, address: int, size: int
) -> Steps[bytes | int]:
    """process_vm_readv(2) of one range: what could be read up to the first bad page, or -EFAULT."""
    mm = process.mm
    name = "process_vm_readv"
    if mm.exited:
        return refused_call(current, name, ESRCH, "process_vm_rw.exited", address=address)
    out = b""
    with (yield from mm.mmap_lock.acquire_read()):
        while len(out) < size:
            offset = (address + len(out)) & PAGE_MASK
            pfn = get_user_page_remote(mm, address + len(out) - offset)
            if pfn < 0 and not out:
                rule, at = "process_vm_rw.pages", address + len(out)
                return refused_call(current, name, EFAULT, rule, address=at)
            if pfn < 0:
                return out
            count = min(size - len(out), PAGE_SIZE - offset)
            out += mm.kernel.processor.memory.read(pfn << PAGE_SHIFT | offset, count)
    return out
