"""A thread that waits for the host, while no other thread waits for the emulator.

If its slice ended, the next one would follow immediately, but a switch costs about 100 us. So the
thread stays in the emulator, and its copies of host memory are renewed until they differ, the time
of the slice is over, or the doorbell rings. Code that spins would repeat its steps while memory is
the same, so it is not executed until then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from softsgx.runner.emulator.blocks import Why

if TYPE_CHECKING:
    from softsgx.runner.emulator.blocks import Blocks
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.process.hostmem import HostMemory


class HostWait:
    """`looks` counts how often copies were renewed within a slice."""

    def __init__(self, blocks: Blocks, host: HostMemory, doorbell: Doorbell) -> None:
        self._blocks = blocks
        self._host = host
        self._doorbell = doorbell
        self.looks = 0

    def over(self) -> bool:
        """Called when the hook has ended a slice. If the code waits, wait until it may go on.

        True if it may go on in this slice, False if the slice is over.
        """
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
