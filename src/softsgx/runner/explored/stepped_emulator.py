"""The emulator for exploration: it stops where other tasks may go on.

It stops at every access that misses the model's TLB; if accesses are `asked`, before those that
have points (`accesses`); and before each instruction of a range, if there is one.

A stop comes before the instruction has had any effect. The caller lets other tasks run, then grants
what was to come, and runs again: now the instruction is executed from its start. One that misses
twice stops twice.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from softsgx.cpu.fault import PF
from softsgx.mem.tlb import FETCH
from softsgx.runner.emulator import physical
from softsgx.runner.emulator.blocks import Stop, Why
from softsgx.runner.emulator.emulator import Emulator
from softsgx.runner.emulator.unicorn_api import (
    ACCESS,
    UC_HOOK_CODE,
    UC_HOOK_MEM_READ_PROT,
    UC_HOOK_MEM_WRITE_PROT,
    UC_MEM_WRITE_PROT,
    BlockHook,
    WriteHook,
)
from softsgx.runner.explored.accesses import Accesses, Answer, Partial
from softsgx.spec.bits import PAGE_SHIFT, canonical

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor, Part
    from softsgx.runner.explored.model_host import ModelHost
    from softsgx.runner.explored.sharing import Sharing
    from softsgx.runner.explored.snapshot_arena import SnapshotArena

# They mark a stop until `_reason` looks; they are never delivered.
_MISS: Final = PF(0, "MISS", 0)
_ASKED: Final = PF(0, "ACCESS", 0)


class Silence:
    """A doorbell that never rings."""

    seen = 0

    def __init__(self) -> None:
        self._word = ctypes.c_uint64(0)
        self.address = ctypes.addressof(self._word)


class SteppedEmulator(Emulator):
    """`missed` is the linear page and the access (READ, WRITE, FETCH) of the last Why.MISS.

    accesses   the loads and stores, if each is asked for
    partial    what the instruction at the start of the next slice has done; afterwards, what the
               one at its end has, and None if its fetch missed
    over       the address of the instruction at the start of the next slice if it may be executed
               although it is in the range; -1 if not
    paused     whether the next slice starts where the last one of the thread ended, after a PAUSE
    """

    timed = False

    def __init__(
        self, memory: SnapshotArena, host: ModelHost, part: Part, sharing: Sharing | None = None
    ) -> None:
        self.missed = (0, 0)
        self.over = -1
        self.paused = False
        self.partial: Partial | None = None
        self.accesses = Accesses(memory, host, sharing) if sharing is not None else None
        self.asked = sharing is not None
        self._granted: tuple[int, int] | None = None
        self._at_instruction = False
        bell: Any = Silence()
        super().__init__(memory, host, bell, part)  # type: ignore[arg-type] # what it asks of it

    def _install_hooks(self, part: Part) -> None:
        super()._install_hooks(part)
        if self.accesses is not None:
            self.accesses.install(self.uc, self._kinds)
            asked = UC_HOOK_MEM_READ_PROT | UC_HOOK_MEM_WRITE_PROT
            self.uc.hook(asked, WriteHook(self._on_access))

    def stop_in(self, begin: int, end: int) -> None:
        """Stop before each instruction at linear addresses [begin, end)."""
        self.uc.hook(UC_HOOK_CODE, BlockHook(self._on_instruction), 0, begin, end - 1)

    def grant(self, page: int, access: int) -> None:
        """Let the next miss pass that is this access to this linear page."""
        self._granted = (page, access)

    def run(self, lp: LogicalProcessor, alone: bool = False) -> Stop:
        """As Emulator.run."""
        self._at_instruction = False
        self.blocks.pauses = int(self.paused)
        accesses = self.accesses
        if accesses is None:
            return super().run(lp, alone)
        accesses.begin(self.partial)
        self.partial = None
        try:
            return super().run(lp, alone)
        finally:
            accesses.end()

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
        filled = super()._fill(uc, address, kind, entry, data)
        if filled and self.accesses is not None:
            self.accesses.pages[entry[0].paddr >> PAGE_SHIFT] = address >> PAGE_SHIFT
        return filled

    def _on_access(self, _uc: Any, kind: int, at: int, size: int, value: int, _data: Any) -> bool:
        """A load, or a store to EPC: stores to host memory ask `_on_write`."""
        assert self.accesses is not None
        write = kind == UC_MEM_WRITE_PROT
        if write and at >= physical.SHADOW:
            return False
        answer = self.accesses.asks(at, size, write, value)
        if answer is Answer.STOP:
            self._fault = _ASKED
            return False
        if write and answer is Answer.GO:
            self.accesses.store(at, size, value)
        return True

    def _on_write(self, uc: Any, kind: int, at: int, size: int, value: int, data: Any) -> bool:
        if self.accesses is not None and at < physical.ABORT:
            answer = self.accesses.asks(at, size, True, value)
            if answer is Answer.STOP:
                self._fault = _ASKED
                return False
            if answer is Answer.AGAIN:
                return True
            self._single = self._kinds.rcx()  # a REP string store is done element by element
        return super()._on_write(uc, kind, at, size, value, data)

    def _on_instruction(self, _uc: Any, address: int, _size: int, _data: Any) -> None:
        if address == self.over:
            self.over = -1
            return
        self._at_instruction = True
        self.uc.stop()

    def _reason(self, lp: LogicalProcessor, error: int) -> Stop:
        if self._fault is _MISS or self._fault is _ASKED:
            self._recover()
            if self.accesses is not None and (self._fault is _ASKED or self.missed[1] != FETCH):
                self.partial = self.accesses.partial
            return Stop(Why.ACCESS if self._fault is _ASKED else Why.MISS)
        if self._at_instruction and self._fault is None and self._intr < 0:
            return Stop(Why.INSTRUCTION)
        return super()._reason(lp, error)
