"""The hook that the emulator calls at the start of each block, and what it knows of blocks.

Only there is the state of the emulator exact, so only there does a slice end: when the doorbell has
rung, the budget is used up, or too many blocks behind a PAUSE were begun. A block that is not in
the table of known ones is shown to the engine before it executes.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Any, Final

from softsgx.runner.unicorn_api import UC_HOOK_BLOCK, BlockHook, Uc
from softsgx.spec.bits import PAGE_SIZE

# In machine code, because every block comes by: rdi emulator, rsi address, rcx Control.
#         mov eax, *doorbell; cmp eax, seen; jne rung; sub budget, 1; js over
#         r8 = table[(address ^ address >> 12) & 0xffff]; cmp r8, address; je known
#         clear bit 63 of r8; cmp r8, address; jne unknown; sub pauses, 1; js spins
# known:  ret
# and then jumps to `unknown`, or to `stop` with the reason.
_HOOK: Final = bytes.fromhex(
    "488b018b003b4108753683690c01783a89f04189f041c1e80c4431c00fb7c04c8b49284d8b04c14939f07410490fba"
    "f03f4939f07507836920017818c3ff6118c7412401000000ff6110c7412402000000ff6110c7412403000000ff6110"
)
_TABLE_BITS: Final = 16
_AFTER_PAUSE: Final = 1 << 63
_SLOT_MASK: Final = (1 << _TABLE_BITS) - 1
_RWX: Final = 7


class Control(ctypes.Structure):
    """What the hook looks at."""

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
    """The hook of one emulator. `unknown` is called as a block hook for blocks not known."""

    def __init__(
        self, uc: Uc, doorbell: int, unknown: Callable[[Any, int, int, Any], None]
    ) -> None:
        self._table = mmap.mmap(-1, 8 << _TABLE_BITS)
        self._known = memoryview(self._table).cast("Q")
        self._code = mmap.mmap(-1, PAGE_SIZE, prot=_RWX)
        self._code[: len(_HOOK)] = _HOOK
        self._unknown = BlockHook(unknown)
        control = self.control = Control()
        control.doorbell = doorbell
        control.stop = ctypes.cast(uc.lib.uc_emu_stop, ctypes.c_void_p).value or 0
        control.unknown = ctypes.cast(self._unknown, ctypes.c_void_p).value or 0
        control.table = address_of(self._table)
        uc.hook(UC_HOOK_BLOCK, address_of(self._code), ctypes.addressof(control))

    def begin(self, seen: int, budget: int, pauses: int) -> None:
        """A slice begins: the doorbell's value, blocks, and blocks behind PAUSE, until it ends."""
        control = self.control
        control.seen, control.budget, control.pauses, control.reason = seen, budget, pauses, 0

    def know(self, address: int, paused: bool) -> None:
        """The block at `address` may execute from now on; `paused`: it begins behind a PAUSE."""
        slot = (address ^ address >> 12) & _SLOT_MASK
        self._known[slot] = address | (_AFTER_PAUSE if paused else 0)

    def forget(self) -> None:
        """Know no block any more."""
        self._table[:] = bytes(len(self._table))


def address_of(memory: mmap.mmap) -> int:
    """Where a mapping lies in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
