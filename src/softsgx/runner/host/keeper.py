"""The keeper: kills what is left of a run whose supervisor has died, and which nobody traced.

What is traced dies with its tracer (PTRACE_O_EXITKILL); other processes would live on, and wait for
an answer for ever. The keeper is a child of the front, in a session of its own, so that SIGKILL to
a whole process group spares it. It waits for the end of the supervisor. Whatever maps a certain
file belongs to the run, and what descends from such a process. No process can say for another that
it is to die with a third: PR_SET_PDEATHSIG is about the parent, and not inherited.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import Final, NoReturn

_ROUND_S: Final = 0.01
_ROUNDS_MAX: Final = 100
_POLL_S: Final = 0.02


def be_keeper(supervisor: int, number: int, shared: memoryview, ready: int, over: int) -> NoReturn:
    """In a child of the front: `number` is the supervisor's descriptor of the file.

    Sets the byte `ready` of `shared`; kills nothing if the byte `over` is set.
    """
    try:
        os.setsid()
        # Not through exec: the file stays open here, so that its inode remains its own.
        file = os.open(f"/proc/{supervisor}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
        void = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for stream in range(3):
            os.dup2(void, stream)
        waiting = _Waiting(supervisor)
        shared[ready] = 1
        waiting.wait()
        if not shared[over]:
            kill_users(file)
    finally:
        os._exit(0)


class _Waiting:
    """For the end of a process that is no child."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pidfd = -1
        with suppress(OSError):  # a filter may refuse it
            self._pidfd = os.pidfd_open(pid)

    def wait(self) -> None:
        """Return when it has ended."""
        if self._pidfd >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll()
        while self._pidfd < 0 and self._pid in _parents():
            time.sleep(_POLL_S)


def kill_users(file: int) -> None:
    """SIGKILL to all processes that map the file, and to their descendants, until none is left.

    One that does not die, as the kernel waits for a device on its behalf, is waited for a second.
    """
    status = os.fstat(file)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    mark = f" {device} {status.st_ino} ".encode()
    spared = {os.getpid()}
    killed: set[int] = set()
    quiet = 0
    while quiet < _ROUNDS_MAX:
        found = _with_descendants(mark) - spared
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            except ProcessLookupError:
                continue
            except PermissionError:
                spared.add(pid)  # it has other credentials than we
        # One that dies loses its memory first, so it maps no file any more.
        if not found and not killed & _parents().keys():
            return
        quiet = 0 if found else quiet + 1
        time.sleep(_ROUND_S)


def _with_descendants(mark: bytes) -> set[int]:
    parents = _parents()
    found = {pid for pid in parents if _maps(pid, mark)}
    more = found
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - found
        found |= more
    return found


def _maps(pid: int, mark: bytes) -> bool:
    """Whether the mark is in /proc/PID/maps; no if that cannot be read."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            return mark in file.read()
    except OSError:
        return False


def _parents() -> dict[int, int]:
    """The parent of each process that has not ended."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, parent, *_ = file.read().rpartition(b")")[2].split()
            if state not in b"ZX":
                found[int(name)] = int(parent)
    return found
