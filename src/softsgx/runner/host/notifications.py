"""System calls that a seccomp filter holds for another process to answer. man 2 seccomp_unotify.

Linux 6.12, include/uapi/linux/seccomp.h: struct seccomp_notif, seccomp_notif_resp,
seccomp_notif_addfd.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final, NamedTuple

from softsgx.runner.host.abi import (
    SECCOMP_ADDFD_FLAG_SEND,
    SECCOMP_IOCTL_NOTIF_ADDFD,
    SECCOMP_IOCTL_NOTIF_RECV,
    SECCOMP_IOCTL_NOTIF_SEND,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
)

_NOTIF: Final = struct.Struct("=QIIiIQ6Q")
_RESP: Final = struct.Struct("=QqiI")
_ADDFD: Final = struct.Struct("=QIIII")


class Notification(NamedTuple):
    """A call that waits: `tid` is the thread's, as the reader's pid namespace numbers it; `ip` is
    after the instruction."""

    id: int
    tid: int
    number: int
    args: tuple[int, ...]
    ip: int


class Listener:
    """The descriptor that seccomp(2) returned for SECCOMP_FILTER_FLAG_NEW_LISTENER.

    Every method raises OSError; ENOENT: the call is not waiting any more, its thread was killed or
    got a signal.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def receive(self) -> Notification:
        """The next call that waits. Blocks until there is one: poll the descriptor before."""
        block = bytearray(_NOTIF.size)
        _again(self.fd, SECCOMP_IOCTL_NOTIF_RECV, block)
        number, tid, _flags, call, _arch, ip, *args = _NOTIF.unpack(block)
        return Notification(number, tid, call, tuple(args), ip)

    def go_on(self, held: Notification) -> None:
        """Have the kernel execute the call, with the arguments as they then are."""
        answer = _RESP.pack(held.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)
        _again(self.fd, SECCOMP_IOCTL_NOTIF_SEND, bytearray(answer))

    def answer_fd(self, held: Notification, fd: int) -> int:
        """Put a copy of a descriptor of ours into the process: the result of the call.

        Linux 5.14. Returns its number there. It is closed at exec.
        """
        block = bytearray(_ADDFD.pack(held.id, SECCOMP_ADDFD_FLAG_SEND, fd, 0, os.O_CLOEXEC))
        return _again(self.fd, SECCOMP_IOCTL_NOTIF_ADDFD, block)

    def refuse(self, held: Notification, error: int) -> None:
        """Make the call fail with an errno."""
        answer = _RESP.pack(held.id, 0, -error, 0)
        _again(self.fd, SECCOMP_IOCTL_NOTIF_SEND, bytearray(answer))

    def answer(self, held: Notification, value: int) -> None:
        """The result of the call."""
        _again(self.fd, SECCOMP_IOCTL_NOTIF_SEND, bytearray(_RESP.pack(held.id, value, 0, 0)))

    def give(self, held: Notification, fd: int, flags: int = 0) -> int:
        """Put a copy of a descriptor of ours into the process; its number there. `flags`:
        O_CLOEXEC, or exec keeps it.

        OSError also if the process may not open more files.
        """
        block = bytearray(_ADDFD.pack(held.id, 0, fd, 0, flags))
        return _again(self.fd, SECCOMP_IOCTL_NOTIF_ADDFD, block)

    def close(self) -> None:
        """Calls that wait, and later ones, fail with ENOSYS."""
        os.close(self.fd)


def _again(fd: int, request: int, block: bytearray) -> int:
    """ioctl(2), made again when a signal of this process interrupts it: Python does not do that."""
    while True:
        try:
            return int(fcntl.ioctl(fd, request, block))
        except InterruptedError:
            continue
