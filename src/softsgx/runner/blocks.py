"""Blocks of code, as they begin: when a slice ends, and what may not execute.

The emulator calls a hook in machine code (hook.s) at the start of every block, where its state is
exact. It ends the slice when the doorbell has rung, the budget is used up, or too many blocks
behind a PAUSE were begun; it calls back for a block that is not in the table of known ones.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.cpu.fault import UD, Fault
from softsgx.runner.scan import Illegal, Scanner
from softsgx.runner.unicorn_api import UC_HOOK_BLOCK, BlockHook
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.runner.doorbell import Doorbell
    from softsgx.runner.unicorn_api import Uc

SLICE_BLOCKS: Final = 40_000
PAUSES: Final = 64

HOOK: Final = bytes.fromhex(
    "488b018b003b4108753683690c01783a89f04189f041c1e80c4431c00fb7c04c8b49284d8b04c14939f07410490fba"
    "f03f4939f07507836920017818c3ff6118c7412401000000ff6110c7412402000000ff6110c7412403000000ff6110"
)
_TABLE_BITS: Final = 16
_AFTER_PAUSE: Final = 1 << 63
_PAUSE: Final = b"\xf3\x90"


class Why(Enum):
    """Why a slice ended."""

    ENCLU = "an ENCLU instruction is next"
    FAULT = "an exception"
    DOORBELL = "something happened outside"
    BUDGET = "the slice is over"
    PAUSE = "the code spins"
    MISS = "an access misses the TLB"


class Stop(NamedTuple):
    """How a slice ended. `fault` with Why.FAULT; its address is page aligned for #PF."""

    why: Why
    fault: Fault | None = None


_REASONS: Final = {1: Why.DOORBELL, 2: Why.BUDGET, 3: Why.PAUSE}


class Control(ctypes.Structure):
    """What the block hook looks at."""

    _fields_ = (
        ("doorbell", ctypes.c_uint64),
        ("seen", ctypes.c_uint32),
        ("budget", ctypes.c_int32),
        ("stop", ctypes.c_uint64),
        ("unknown", ctypes.c_uint64),
        ("pauses", ctypes.c_int32),
        ("reason", ctypes.c_uint32),
        ("table", ctypes.c_uint64),
    )


class Blocks:
    """The hook of one emulator, and the table of blocks that may execute as they are.

    `code_at(address, size)` reads instruction bytes; `changing(address)` says whether they may be
    written without anyone noticing. `illegal` is a block, by its address, with an instruction that
    must not execute: the emulator stands at its start.
    """

    def __init__(
        self,
        uc: Uc,
        doorbell: Doorbell,
        code_at: Callable[[int, int], bytes],
        changing: Callable[[int], bool],
    ) -> None:
        self._uc = uc
        self._doorbell = doorbell
        self._code_at = code_at
        self._changing = changing
        self._scanner = Scanner()
        self.illegal: tuple[int, Illegal] | None = None
        self._table = mmap.mmap(-1, 8 << _TABLE_BITS)
        self._known = memoryview(self._table).cast("Q")
        self._code = mmap.mmap(-1, PAGE_SIZE, prot=7)
        self._code[: len(HOOK)] = HOOK
        self._unknown = BlockHook(self._unknown_block)
        control = self.control = Control()
        control.doorbell = doorbell.address
        control.stop = ctypes.cast(uc.lib.uc_emu_stop, ctypes.c_void_p).value or 0
        control.unknown = ctypes.cast(self._unknown, ctypes.c_void_p).value or 0
        control.table = address_of(self._table)
        uc.hook(UC_HOOK_BLOCK, address_of(self._code), ctypes.addressof(control))

    def begin(self) -> None:
        """A slice begins."""
        control = self.control
        control.seen = self._doorbell.seen
        control.budget = SLICE_BLOCKS
        control.pauses = PAUSES
        control.reason = 0
        self.illegal = None

    @property
    def why(self) -> Why:
        """Why the hook ended the slice."""
        return _REASONS.get(self.control.reason, Why.DOORBELL)

    def forget(self) -> None:
        """Code has changed: look at all of it again."""
        self._table[:] = bytes(len(self._table))

    def _unknown_block(self, _uc: Any, address: int, size: int, _data: Any) -> None:
        """A block for the first time: may all of it execute?"""
        if self.illegal is not None or self.control.reason:
            return
        code = self._code_at(address, size)
        found = self._scanner.first(code, address)
        if found is not None:
            self.illegal = (address, found)
            self._uc.stop()
            return
        last = address + size - 1
        if self._changing(address) or self._changing(last) or len(code) < size:
            return  # code that can change under our eyes is looked at each time
        paused = address & PAGE_MASK >= 2 and self._code_at(address - 2, 2) == _PAUSE
        slot = (address ^ address >> 12) & 0xFFFF
        self._known[slot] = address | (_AFTER_PAUSE if paused else 0)


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def exception(number: int) -> Fault:
    """An exception that the emulator raised by itself; it does not tell error codes: they are 0."""
    return Fault(number, "CODE.04") if number < 32 else UD("CODE.02")
