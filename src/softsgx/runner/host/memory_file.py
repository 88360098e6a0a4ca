"""Memory files: EPC, mailboxes, slots, and the stand-ins for open devices."""

from __future__ import annotations

import errno
import os
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl
from typing import Final

from softsgx.runner.host.abi import MFD_NOEXEC_SEAL
from softsgx.runner.ways import WAYS

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


def shm_file() -> int:
    """An unnamed file in /dev/shm: like a memfd, without seals and with another name in /proc."""
    return os.open(SHM, TMPFILE | os.O_CLOEXEC, 0o600)
