"""Descriptors that the supervisor waits for beside the doorbell."""

from __future__ import annotations

import ctypes
import select
import signal
import threading
from collections import deque
from typing import Final

from softsgx.runner.host import futex
from softsgx.runner.host.native_code import MachineCode

_RING: Final = bytes.fromhex("f0ff07c3")  # lock inc dword [rdi]; ret


class Watcher:
    """Waits for descriptors in a thread of its own, and rings the doorbell when one is ready.

    `ready` has the descriptors that are; each is waited for again after `again`.
    """

    def __init__(self, doorbell: int) -> None:
        self.ready: deque[int] = deque()
        self._doorbell = doorbell
        self._ring = MachineCode(_RING, None, ctypes.c_void_p)
        self._epoll = select.epoll()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._thread.start()

    def add(self, fd: int) -> None:
        """Wait for a descriptor."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def again(self, fd: int) -> None:
        """Wait for a descriptor again."""
        self._epoll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            for fd, _events in self._epoll.poll():
                self.ready.append(fd)
            self._ring.call(self._doorbell)
            futex.wake(self._doorbell)
