"""The supervisor's end of the mailboxes: the shared memory, the doorbell, and replies."""

import ctypes
import mmap
import os
from collections.abc import Sequence
from typing import Final

from softsgx.runner.host import futex
from softsgx.runner.host.memory_file import sealed_file
from softsgx.runner.inserted.box import CONTROL_AT, REPLY, Box, Control
from softsgx.runner.inserted.layout import BOX_SIZE, MAILBOXES


class Mailboxes:
    """Shared memory of one address layout; `fd` is what processes map at BOX, MAP_SHARED.

    Only one thread of the supervisor may wait, for the doorbell at most `wait_s` (None: for ever).
    Any thread may reply.
    """

    wait_s: Final = None

    def __init__(self) -> None:
        self.fd: Final = sealed_file("softsgx-mailboxes", BOX_SIZE)
        self._memory = mmap.mmap(self.fd, BOX_SIZE)
        view = memoryview(self._memory)
        self.control: Final = Control(view)
        self.boxes: Final = tuple(Box.at(view, i) for i in range(MAILBOXES))
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.doorbell = base + CONTROL_AT["DOORBELL"]
        self._states = base + CONTROL_AT["STATES"]

    def close(self) -> None:
        """Close `fd`; this object and processes that have mapped it keep their mappings."""
        os.close(self.fd)

    def wait(self, timeout: float | None = None) -> list[int]:
        """Take the new requests; if there are none, first sleep at most `timeout` seconds.

        May return early with no request, when something else rang the doorbell.
        """
        control = self.control
        # Read before `take`: a later request changes the word that the kernel compares.
        rung = control.doorbell
        if taken := control.take():
            return taken
        control.sleeping = True
        futex.wait(self.doorbell, rung, timeout)
        control.sleeping = False
        return control.take()

    def reply(self, mailbox: int, registers: Sequence[int], fx: bytes | None = None) -> None:
        """Let a thread go on with these registers; without `fx`, with the image of its request."""
        self.boxes[mailbox].fill(registers, fx)
        self.control.set_state(mailbox, REPLY)
        # Wake always: to know whether the thread sleeps takes a fence, which Python lacks.
        futex.wake(self._states + 4 * mailbox)
