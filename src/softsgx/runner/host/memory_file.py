"""Memory files: EPC, mailboxes, slots, and the stand-ins for open devices."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from contextlib import suppress
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl
from typing import Final

from softsgx.runner.host.abi import (
    F_SEAL_FUTURE_WRITE,
    MFD_NOEXEC_SEAL,
    PRIVATE_NORESERVE,
    PROT_RW,
    SHARED_FIXED,
)
from softsgx.runner.ways import WAYS

_mmap: Final = ctypes.PyDLL(None, use_errno=True).mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int),
    *(ctypes.c_int, ctypes.c_long),
)

SHM: Final = "/dev/shm"
TMPFILE: Final = os.O_TMPFILE | os.O_RDWR


def memory_file(name: str, flags: int = 0) -> int:
    """A descriptor of a new memory file, closed at exec.

    With vm.memfd_noexec=2 the kernel refuses files that execve could execute. Files that it cannot
    execute may still be mapped executable.
    """
    if WAYS.files_in_shm:
        return shm_file()
    flags |= os.MFD_CLOEXEC
    try:
        return os.memfd_create(name, flags | WAYS.memfd)
    except OSError as error:
        if error.errno != errno.EACCES or WAYS.memfd:
            raise
    fd = os.memfd_create(name, flags | MFD_NOEXEC_SEAL)
    WAYS.memfd = MFD_NOEXEC_SEAL
    return fd


def sealed_file(name: str, size: int) -> int:
    """A memory file whose size nobody can change: not a program that opens it, either."""
    fd = memory_file(name, os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if not WAYS.files_in_shm:
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
    return fd


def read_only_file(name: str, size: int) -> tuple[mmap.mmap, int]:
    """A memory file that is mapped here, and a descriptor by which nobody can write to it.

    Nor can who opens it again from there, unless the kernel is too old for F_SEAL_FUTURE_WRITE.
    """
    fd = memory_file(name, os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    if not WAYS.files_in_shm:
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)
        with suppress(OSError):
            fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL)
    reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    return memory, reader


def mapped(fd: int, size: int) -> mmap.mmap:
    """A file mapped MAP_SHARED without a descriptor of its own, which mmap.mmap would keep.

    OSError if there is no address space left for it.
    """
    memory = mmap.mmap(-1, size, flags=PRIVATE_NORESERVE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _mmap(at, size, PROT_RW, SHARED_FIXED, fd, 0) != at:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return memory


def shm_file() -> int:
    """An unnamed file in /dev/shm: like a memfd, without seals and with another name in /proc."""
    return os.open(SHM, TMPFILE | os.O_CLOEXEC, 0o600)
