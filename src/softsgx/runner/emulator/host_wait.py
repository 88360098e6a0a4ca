"""A thread that waits for the host, while no other thread waits for the emulator.

If its slice ended, the next one would follow immediately, but a switch costs about 100 us. So it
stays in the emulator, and its copies of host memory are renewed until they differ, the time of the
slice is over, or the doorbell rings. Code that spins would do the same with the same memory, so it
is not even executed meanwhile.
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
        """After the hook has ended a slice: True once the code is to go on in this slice."""
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
