"""The supervisor's end of the mailboxes: the shared memory, the doorbell, and replies."""

import ctypes
import mmap
import os
from collections.abc import Sequence
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, fcntl
from typing import Final

from softsgx.runner.host import futex
from softsgx.runner.host.memory_file import memory_file
from softsgx.runner.inserted.box import CONTROL_AT, REPLY, Box, Control
from softsgx.runner.inserted.layout import BOX_SIZE, MAILBOXES
from softsgx.runner.ways import WAYS


class Mailboxes:
    """Shared memory of one address layout; `fd` is what processes map at BOX, MAP_SHARED.

    Only one thread of the supervisor may wait. Any thread may reply.
    """

    def __init__(self) -> None:
        self.fd: Final = memory_file("softsgx-mailboxes", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, BOX_SIZE)
        # A program that opens the file must not be able to truncate it under the supervisor.
        if not WAYS.files_in_shm:
            fcntl(self.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
        self._memory = mmap.mmap(self.fd, BOX_SIZE)
        view = memoryview(self._memory)
        self.control: Final = Control(view)
        self.boxes: Final = tuple(Box(view, i) for i in range(MAILBOXES))
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
        box = self.boxes[mailbox]
        box.registers = registers
        if fx is not None:
            box.fx = fx
        self.control.set_state(mailbox, REPLY)
        # Wake always: to know whether the thread sleeps takes a fence, which Python lacks.
        futex.wake(self._states + 4 * mailbox)
