"""The doorbell, rung as a thread of the program rings it."""

import ctypes

from softsgx.runner.host import futex
from softsgx.runner.inserted.mailboxes import Mailboxes


def ring(mailboxes: Mailboxes) -> None:
    """Make `Mailboxes.wait` return. Nobody else rings meanwhile."""
    ctypes.c_uint32.from_address(mailboxes.doorbell).value += 1
    futex.wake(mailboxes.doorbell)
