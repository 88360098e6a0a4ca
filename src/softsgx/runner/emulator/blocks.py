"""The start of a block of code: whether the slice ends there, and whether the block may execute.

The emulator calls a hook in machine code (hook.s) at the start of every block, where its state is
exact. It ends the slice when the doorbell has rung, when blocks or time are used up, when too many
blocks have begun right after a PAUSE, or when the code spins; it calls Python for a block that is
not known. A block in pages that cannot be written is known by its address. Any other block is known
as long as its bytes are those that were scanned.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.cpu.fault import UD, Fault
from softsgx.runner.code.scan import Illegal, Scanner
from softsgx.runner.emulator import control
from softsgx.runner.emulator.control import AFTER_PAUSE, HookControl
from softsgx.runner.emulator.known import KnownBlocks
from softsgx.runner.emulator.unicorn_api import UC_HOOK_BLOCK, UC_HOOK_INSN_INVALID, BlockHook
from softsgx.runner.inserted.assembled import code_of, labels_of
from softsgx.runner.inserted.machine_code import HOOK_CODE
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.cpu import Part
    from softsgx.runner.emulator.unicorn_api import Uc
    from softsgx.runner.inserted.doorbell import Doorbell

_HOOK: Final = code_of(HOOK_CODE)
_INVALID: Final = labels_of(HOOK_CODE)["invalid"]
_PAUSE: Final = b"\xf3\x90"


class Why(Enum):
    """Why a slice ended."""

    ENCLU = "an ENCLU instruction is next"
    FAULT = "an exception"
    DOORBELL = "something happened outside"
    BUDGET = "the slice is over"
    PAUSE = "the code waits with PAUSE"
    SPIN = "the code repeats the same steps and changes nothing"
    MISS = "an access misses the TLB"
    ACCESS = "an access at which other tasks may go on"
    INSTRUCTION = "an instruction before which the thread is interrupted"


class Stop(NamedTuple):
    """How a slice ended; `fault` is set with Why.FAULT.

    The address of a #PF is page aligned, unless the enclave has MISCSELECT.EXINFO.
    """

    why: Why
    fault: Fault | None = None


_REASONS: Final = {
    control.RUNG: Why.DOORBELL,
    control.USED_UP: Why.BUDGET,
    control.PAUSED: Why.PAUSE,
    control.SPIN: Why.SPIN,
}


class Place(NamedTuple):
    """Where a byte of code lies in this process, and whether it can be written unnoticed."""

    memory: int
    changing: bool


class Blocks:
    """The hook of one emulator, and the blocks that may execute as they are.

    `code_at(address, size)` reads instruction bytes, `place(address)` says where they lie. After a
    stop the emulator may be at the start of `illegal`, a block with an instruction that must not
    execute, or at the start of `again`, a block whose translation may be older than the bytes that
    were scanned.
    """

    def __init__(
        self,
        uc: Uc,
        doorbell: Doorbell,
        code_at: Callable[[int, int], bytes],
        place: Callable[[int], Place | None],
        part: Part,
    ) -> None:
        self._uc = uc
        self._doorbell = doorbell
        self._code_at = code_at
        self._place = place
        self._scanner = Scanner(sgx1=not part.sgx2)
        self.illegal: tuple[int, Illegal] | None = None
        self.again: tuple[int, int] | None = None
        self.scanned = 0  # blocks
        self.pauses = control.PAUSES
        self._known = KnownBlocks()
        self._code = mmap.mmap(-1, PAGE_SIZE, prot=7)
        self._code[: len(_HOOK)] = _HOOK
        self._unknown = BlockHook(self._unknown_block)
        self.control = HookControl(uc)
        self.control.doorbell = doorbell.address
        self.control.unknown = ctypes.cast(self._unknown, ctypes.c_void_p).value or 0
        self.control.known, self.control.changing = self._known.plain, self._known.changing
        code, data = address_of(self._code), ctypes.addressof(self.control)
        uc.hook(UC_HOOK_BLOCK, code, data)
        uc.hook(UC_HOOK_INSN_INVALID, code + _INVALID, data)

    def begin(self, timed: bool) -> None:
        """Start a slice. If `timed`, it also ends when time is up or the code spins.

        If not, it ends after `pauses` blocks that follow a PAUSE.
        """
        now, seen = self.control, self._doorbell.seen
        if timed:
            now.begin(seen, now.unwatched, time.monotonic_ns() + control.SLICE_NS)
        else:
            now.begin(seen, control.SLICE_BLOCKS, control.NO_DEADLINE)
            now.pauses = self.pauses
        self.illegal = self.again = None

    def go_on(self) -> None:
        """Give the slice all its blocks again, but no more time."""
        now = self.control
        now.begin(now.seen, now.unwatched, now.deadline)

    def charge(self, blocks: int) -> None:
        """Charge work done in Python as blocks, so that the hook reads the clock earlier."""
        self.control.quantum -= blocks
        self.control.left += blocks

    @property
    def left(self) -> int:
        """Blocks of the slice that are left."""
        return int(self.control.quantum + self.control.left)

    @property
    def why(self) -> Why:
        """Why the hook ended the slice."""
        return _REASONS.get(self.control.reason, Why.DOORBELL)

    def forget(self) -> None:
        """Code has changed: scan all of it again."""
        self._known.forget()

    def forget_page(self, page: int) -> None:
        """Scan the code of a linear page again, and blocks of the page before it that end there."""
        self._known.forget_page(page)

    def flag(self, address: int, flag: int) -> None:
        """Set the flag of a block to SPINNER (watch it at each visit) or to 0 (do not)."""
        self._known.flag(address, flag)

    def _unknown_block(self, _uc: Any, address: int, size: int, _data: Any) -> None:
        """Scan a block that is new or has new bytes: may all of it execute?"""
        if self.illegal is not None or self.again is not None or self.control.reason:
            return
        self.scanned += 1
        code = self._code_at(address, size)
        found = self._scanner.first(code, address)
        if found is not None:
            self.illegal = (address, found)
            self._uc.stop()
            return
        first, last = self._place(address), self._place(address + size - 1)
        if first is None or last is None or len(code) < size:
            return
        paused = address & PAGE_MASK >= 2 and self._code_at(address - 2, 2) == _PAUSE
        flags = AFTER_PAUSE if paused else 0
        if not (first.changing or last.changing):
            self._known.add(address, flags)
            if flags and self.pauses < control.PAUSES:
                self.again = (address, size)  # so that the first visit counts as any other
                self._uc.stop()
            return
        self._known.add_changing(address, code, first.memory, last.memory, flags)
        # What the emulator is about to execute may have been translated from other bytes.
        self.again = (address, size)
        self._uc.stop()


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def exception(number: int) -> Fault:
    """The fault for an exception that the emulator itself has raised; its error code is 0."""
    return Fault(number, "CODE.04") if number < 32 else UD("CODE.02")
