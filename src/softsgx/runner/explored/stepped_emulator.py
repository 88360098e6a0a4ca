"""The emulator for exploration: it stops at every access that misses the model's TLB.

A miss stops the emulator before the instruction has had any effect. The caller lets other tasks
run, then calls `grant` and runs again: now the access is translated, as the processor does, and the
instruction is executed again. An instruction that misses twice stops twice.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from softsgx.cpu.fault import PF
from softsgx.runner.emulator.blocks import Stop, Why
from softsgx.runner.emulator.emulator import Emulator
from softsgx.runner.emulator.unicorn_api import ACCESS
from softsgx.spec.bits import PAGE_SHIFT, canonical

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor, Part
    from softsgx.runner.explored.model_host import ModelHost
    from softsgx.runner.explored.snapshot_arena import SnapshotArena

# Marks a stop at a miss until `_reason` looks; it is never delivered.
_MISS: Final = PF(0, "MISS", 0)


class Silence:
    """A doorbell that never rings."""

    seen = 0

    def __init__(self) -> None:
        self._word = ctypes.c_uint64(0)
        self.address = ctypes.addressof(self._word)


class SteppedEmulator(Emulator):
    """`missed` is the linear page and the access (READ, WRITE, FETCH) of the last Why.MISS."""

    timed = False

    def __init__(self, memory: SnapshotArena, host: ModelHost, part: Part) -> None:
        self.missed = (0, 0)
        self._granted: tuple[int, int] | None = None
        bell: Any = Silence()
        super().__init__(memory, host, bell, part)  # type: ignore[arg-type] # what it asks of it

    def grant(self, page: int, access: int) -> None:
        """Let the next miss pass that is this access to this linear page."""
        self._granted = (page, access)

    def _keep_or_drop(self, lp: LogicalProcessor) -> None:
        """Drop everything: anything may have happened since the last slice."""
        self.host.lp = lp  # type: ignore[attr-defined] # a ModelHost
        self._drop()

    def _fill(self, uc: Any, address: int, kind: int, entry: Any, data: Any) -> bool:
        lp = self._lp
        if lp is not None and canonical(address):
            wanted = (address >> PAGE_SHIFT, ACCESS[kind])
            if not lp.tlb.entries.get(wanted[0], 0) & wanted[1]:
                if wanted != self._granted:
                    self.missed, self._granted = wanted, None
                    self._fault = _MISS
                    return False
                self._granted = None
        return super()._fill(uc, address, kind, entry, data)

    def _reason(self, lp: LogicalProcessor, error: int) -> Stop:
        if self._fault is _MISS:
            self._recover()
            return Stop(Why.MISS)
        return super()._reason(lp, error)
