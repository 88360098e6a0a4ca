"""The doorbell, rung as a thread of the program rings it."""

import ctypes

from softsgx.runner.host import futex
from softsgx.runner.inserted.mailboxes import Mailboxes


def ring(mailboxes: Mailboxes) -> None:
    """Make `Mailboxes.wait` return. No other thread may ring at the same time."""
    ctypes.c_uint32.from_address(mailboxes.doorbell).value += 1
    futex.wake(mailboxes.doorbell)
