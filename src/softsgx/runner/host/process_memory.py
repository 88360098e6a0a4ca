"""Memory of another process, as its own loads and stores would find it.

By process_vm_readv and process_vm_writev; if they are refused, as some container runtimes do, by
/proc/PID/mem. That file ignores the rights of areas, so these are looked up in /proc/PID/maps.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from softsgx.runner.host import nr
from softsgx.runner.ways import WAYS
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_readv = _libc.process_vm_readv
_readv.argtypes = (
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong),
    *(ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong),
)
_readv.restype = ctypes.c_ssize_t
_READV_ADDRESS: Final = ctypes.cast(_readv, ctypes.c_void_p).value or 0

_DENIED: Final = (errno.EPERM, errno.ENOSYS, errno.EACCES)
_ONE: Final = ctypes.c_ulong(1)
_NONE: Final = ctypes.c_ulong(0)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def read_memory(pid: int, address: int, size: int) -> bytes | None:
    """`size` bytes of another process, as its own loads would see them; None on a fault."""
    buffer = ctypes.create_string_buffer(size)
    done = read_into(pid, address, ctypes.addressof(buffer), size)
    return buffer.raw if done == size else None


def read_into(pid: int, address: int, target: int, size: int) -> int:
    """Copy into memory of this process at `target`; returns the bytes copied, -1 if none."""
    if not WAYS.memory_by_file:
        done = _move(nr.PROCESS_VM_READV, pid, _Iovec(target, size), address)
        if done >= 0 or not _denied():
            return done
    data = by_file(pid, address, size, "r", lambda mem, length: os.pread(mem, length, address))
    ctypes.memmove(target, data, len(data))
    return len(data) or -1


class PageReads:
    """A call of process_vm_readv that copies pages, given by number, to `target` one by one.

    `function` and `arguments` are for who makes the call as one of several (`call_list`). It
    returns `size` if all were copied.
    """

    def __init__(self, pid: int, pages: tuple[int, ...], target: int) -> None:
        self.size = len(pages) * PAGE_SIZE
        self._local = _Iovec(target, self.size)
        self._remote = (_Iovec * len(pages))(
            *(_Iovec(page << PAGE_SHIFT, PAGE_SIZE) for page in pages)
        )
        local, remote = ctypes.addressof(self._local), ctypes.addressof(self._remote)
        self.function = _READV_ADDRESS
        self.arguments = (pid, local, 1, remote, len(pages), 0)


@lru_cache(maxsize=64)
def page_reads(pid: int, pages: tuple[int, ...], target: int) -> PageReads:
    """The call for these pages; cached, as a thread that polls reads the same pages."""
    return PageReads(pid, pages, target)


def read_pages_into(pid: int, pages: list[int], target: int) -> bool:
    """Copy pages, given by number, one after the other to `target`; False if not all."""
    if not WAYS.memory_by_file:
        reads = page_reads(pid, tuple(pages), target)
        done = _readv(*reads.arguments)
        if done >= 0 or not _denied():
            return bool(done == reads.size)
    places = range(target, target + len(pages) * PAGE_SIZE, PAGE_SIZE)
    return all(
        read_into(pid, page << PAGE_SHIFT, place, PAGE_SIZE) == PAGE_SIZE
        for page, place in zip(pages, places, strict=True)
    )


def write_memory(pid: int, address: int, data: bytes) -> bool:
    """Write to another process as its own stores would; False on a fault, perhaps after a part."""
    if not WAYS.memory_by_file:
        local = _Iovec(ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))
        done = _move(nr.PROCESS_VM_WRITEV, pid, local, address)
        if done >= 0 or not _denied():
            return done == len(data)

    def write(mem: int, length: int) -> bytes:
        return data[: os.pwrite(mem, data[:length], address)]

    return len(by_file(pid, address, len(data), "w", write)) == len(data)


def try_vm_calls() -> None:
    """Read and write this process by both calls. OSError if one is refused."""
    word = ctypes.c_uint64(1)
    for call in (nr.PROCESS_VM_READV, nr.PROCESS_VM_WRITEV):
        local = _Iovec(ctypes.addressof(word), 8)
        if _move(call, os.getpid(), local, ctypes.addressof(word)) != 8:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def by_file(
    pid: int, address: int, size: int, right: str, move: Callable[[int, int], bytes]
) -> bytes:
    """The result of `move(descriptor of /proc/PID/mem, length)` for the accessible part."""
    try:
        length = min(size, _accessible(pid, address, right))
        if length <= 0:
            return b""
        mem = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            return move(mem, length)
        finally:
            os.close(mem)
    except OSError:
        return b""  # the process is gone, or that page is past the end of its file


def _accessible(pid: int, address: int, right: str) -> int:
    """How many bytes from `address` on are in areas that have the right."""
    at = address
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            start, end = (int(x, 16) for x in line.split(" ", 1)[0].split("-"))
            if end <= at:
                continue
            if start > at or end > 1 << 63 or right not in line.split(" ", 2)[1]:
                break
            at = end
    return at - address


def _move(call: int, pid: int, local: _Iovec, address: int) -> int:
    remote = _Iovec(address, local.length)
    return int(_syscall(call, pid, ctypes.byref(local), _ONE, ctypes.byref(remote), _ONE, _NONE))


def _denied() -> bool:
    """Whether the call that failed is refused for any process, not only for this one."""
    if ctypes.get_errno() not in _DENIED:
        return False
    try:
        try_vm_calls()
    except OSError:
        WAYS.memory_by_file = True
    return WAYS.memory_by_file
