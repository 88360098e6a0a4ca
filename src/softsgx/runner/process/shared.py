"""Memory files of the supervisor, mapped in supervised processes."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from softsgx.linux.uapi import MAP_NORESERVE
from softsgx.runner.errors import LoadError
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import AT_FDCWD, SHARED_NOREPLACE
from softsgx.runner.inserted.layout import GATE

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee

_PATH_AT = GATE + 64  # SCRATCH may not be mapped yet


def map_shared(t: Tracee, fd: int, place: int, size: int, rights: int, offset: int = 0) -> None:
    """Map the supervisor's file `fd` at `place`, MAP_SHARED, in the process of a traced thread.

    LoadError if that is refused. With a descriptor that the process was given (`Tracee.given`) it
    works whatever the process's root directory, user and namespaces are; otherwise it opens the
    file in /proc.
    """
    there = t.given.get(fd)
    if there is None:
        path = f"/proc/{os.getpid()}/fd/{fd}\0".encode()
        p.write_code(t.tid, _PATH_AT, path)
        there = t.inject(nr.OPENAT, AT_FDCWD, _PATH_AT, os.O_RDWR | os.O_CLOEXEC)
        if there < 0:
            why = os.strerror(-there)
            raise LoadError(f"process {t.tid}: shared memory cannot be opened: {why}")
    got = t.inject(nr.MMAP, place, size, rights, SHARED_NOREPLACE | MAP_NORESERVE, there, offset)
    if fd not in t.given:
        t.inject(nr.CLOSE, there)
    if got != place:
        why = os.strerror(-got) if got < 0 else errno.errorcode[errno.EEXIST]
        raise LoadError(f"process {t.tid}: {place:#x} cannot be mapped: {why}")
