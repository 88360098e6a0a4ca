"""How a process has ended, for one that need not be its parent. man 2 waitpid, pidfd_open."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

from softsgx.runner.host.proc import stat_fields
from softsgx.runner.host.ptrace import WALL

# Linux, include/uapi/linux/pidfd.h: struct pidfd_info with its mask and, last, exit_code.
_PIDFD_GET_INFO: Final = 0xC040_FF0B
_PIDFD_INFO_EXIT: Final = 1 << 3
_SIZE: Final = 64
_MASK: Final = struct.Struct("<Q")
_EXIT_CODE: Final = struct.Struct("<i")
_EXIT_CODE_AT: Final = 60


def wait_status(pid: int, pidfd: int) -> int | None:
    """The wait status of a process that has ended, with its descriptor, or -1; None if unknown.

    A child is waited for. Otherwise the kernel tells while nobody has waited for it (/proc), and
    from then on if it can (PIDFD_GET_INFO with PIDFD_INFO_EXIT, since 2025).
    """
    with suppress(ChildProcessError):
        waited, status = os.waitpid(pid, os.WNOHANG | WALL)
        if not waited and _of_zombie(pid) is not None:  # it has ended in between
            waited, status = os.waitpid(pid, os.WNOHANG | WALL)
        if waited:
            return status
    found = _of_zombie(pid)
    return _of_descriptor(pidfd) if found is None and pidfd >= 0 else found


def _of_zombie(pid: int) -> int | None:
    fields = stat_fields(pid)
    return int(fields[-1]) if fields and fields[0] == "Z" else None


def _of_descriptor(pidfd: int) -> int | None:
    info = bytearray(_SIZE)
    _MASK.pack_into(info, 0, _PIDFD_INFO_EXIT)
    with suppress(OSError):
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
        if _MASK.unpack_from(info)[0] & _PIDFD_INFO_EXIT:
            return int(_EXIT_CODE.unpack_from(info, _EXIT_CODE_AT)[0])
    return None
