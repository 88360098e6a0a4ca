"""A thread that waits for the host, and is the only one that wants the emulator.

To end its slice would bring it back at once, a hundred microseconds later. So it stays where it is,
and its copies of host memory are made fresh until they differ, the slice is over by time, or
something else happens. Code that spins does the same with the same memory: then it need not even
be executed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from softsgx.runner.emulator.blocks import Why

if TYPE_CHECKING:
    from softsgx.runner.emulator.blocks import Blocks
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.process.hostmem import HostMemory


class Lonely:
    """`looks` counts how often the copies were made fresh within a slice."""

    def __init__(self, blocks: Blocks, host: HostMemory, doorbell: Doorbell) -> None:
        self._blocks = blocks
        self._host = host
        self._doorbell = doorbell
        self.looks = 0

    def may_go_on(self) -> bool:
        """The hook has ended the slice: whether the code may go on where it stands."""
        control = self._blocks.control
        why = self._blocks.why if control.reason else None
        if why not in (Why.PAUSE, Why.SPIN):
            return False
        while not self._doorbell.rung and time.monotonic_ns() < control.deadline:
            self.looks += 1
            differs = self._host.renew()
            if differs is None:
                return False
            if differs or why is Why.PAUSE:
                self._blocks.go_on()
                return True
        return False
