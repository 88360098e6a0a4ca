"""stat(2) of a device node: the fields that differ from those of /dev/null."""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING, Final

from softsgx.linux.syscalls import SGX_ENCLAVE, SGX_PROVISION
from softsgx.runner.host import ptrace as p

if TYPE_CHECKING:
    from softsgx.linux.vfs import File
    from softsgx.runner.process.tracee import Tracee

MINORS: Final = {SGX_ENCLAVE: 125, SGX_PROVISION: 126}
_MISC_MAJOR: Final = 10

_STAT_INO, _STAT_MODE, _STAT_RDEV = 8, 24, 40
_STATX_MODE, _STATX_INO, _STATX_RDEV = 28, 32, 128


def patch_stat(t: Tracee, place: int, file: File) -> None:
    """Set inode, mode and device of the node in the struct stat at `place`."""
    mode = stat.S_IFCHR | 0o666
    rdev = os.makedev(_MISC_MAJOR, MINORS[file.path])
    p.write_memory(t.tid, place + _STAT_INO, struct.pack("<Q", file.inode))
    p.write_memory(t.tid, place + _STAT_MODE, struct.pack("<I", mode))
    p.write_memory(t.tid, place + _STAT_RDEV, struct.pack("<Q", rdev))


def patch_statx(t: Tracee, place: int, file: File) -> None:
    """Set inode, mode and device of the node in the struct statx at `place`."""
    mode = stat.S_IFCHR | 0o666
    p.write_memory(t.tid, place + _STATX_INO, struct.pack("<Q", file.inode))
    p.write_memory(t.tid, place + _STATX_MODE, struct.pack("<H", mode))
    rdev = struct.pack("<II", _MISC_MAJOR, MINORS[file.path])
    p.write_memory(t.tid, place + _STATX_RDEV, rdev)
