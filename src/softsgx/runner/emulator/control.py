"""The data that the block hook of one emulator (hook.s) works on, and its constants.

A slice is counted in blocks. Every QUANTUM_BLOCKS the hook reads the clock and checks whether the
code spins. Work that Python does for the code counts as a number of blocks (`charge`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Final

from softsgx.runner.emulator.unicorn_api import function_address
from softsgx.spec.bits import MASK64

if TYPE_CHECKING:
    from softsgx.runner.emulator.unicorn_api import Uc

SLICE_BLOCKS: Final = 40_000
QUANTUM_BLOCKS: Final = 2048
SLICE_NS: Final = 4_000_000
PAUSES: Final = 64
NO_DEADLINE: Final = MASK64

# How often a watched block is compared with its last visit before it is no longer watched.
REVISITS_MAX: Final = 2
REVISITS_SPINNER: Final = 8
RESTING_VISITS: Final = 512

# Reasons why the hook ended a slice.
RUNG, USED_UP, PAUSED, SPIN = 1, 2, 3, 4

# Flags of a known block, above its address.
AFTER_PAUSE: Final = 1 << 63
SPINNER: Final = 1 << 62
KNOWN_BITS: Final = 16
CHANGING_BITS: Final = 14
_CHANGING_SHIFT: Final = 6

# RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8.., RFLAGS of the emulator
_REGISTERS: Final = (35, 38, 40, 37, 44, 36, 43, 39, *range(106, 114), 253)
_CLOCK_MONOTONIC: Final = 1


# What is set when a slice begins; `_BEGIN` has their formats.
_OF_SLICE: Final = (
    ("seen", ctypes.c_uint32),
    ("quantum", ctypes.c_int32),
    ("pauses", ctypes.c_int32),
    ("reason", ctypes.c_uint32),
    ("left", ctypes.c_int32),
    ("unwatched", ctypes.c_int32),
    ("deadline", ctypes.c_uint64),
    ("watched", ctypes.c_uint64),
    ("revisits", ctypes.c_int32),
    ("resting", ctypes.c_int32),
    ("invalid", ctypes.c_uint64),
)
_BEGIN: Final = Struct("=IiiIiiQQiiQ")
_QUANTUM: Final = min(SLICE_BLOCKS, QUANTUM_BLOCKS)


class Control(ctypes.Structure):
    """`doorbell`, `stop`, `unknown`, tables and functions are addresses.

    `quantum` and `left` count blocks; `deadline` is in nanoseconds of CLOCK_MONOTONIC. No block is
    watched for `unwatched` quanta. `invalid` is 1 once the emulator has met an instruction that it
    does not have: ENCLU is one. `watched` is the address of the watched block, `revisits` how
    many comparisons are left for it.
    """

    _fields_ = (
        ("doorbell", ctypes.c_uint64),
        *_OF_SLICE,
        ("stop", ctypes.c_uint64),
        ("unknown", ctypes.c_uint64),
        ("known", ctypes.c_uint64),
        ("changing", ctypes.c_uint64),
        ("clock", ctypes.c_uint64),
        ("time", ctypes.c_int64 * 2),
        ("read", ctypes.c_uint64),
        ("ids", ctypes.c_uint64),
        ("pointers", ctypes.c_uint64),
        ("now", ctypes.c_uint64 * len(_REGISTERS)),
        ("was", ctypes.c_uint64 * len(_REGISTERS)),
    )


class Changing(ctypes.Structure):
    """A block in pages that can be written: `size` bytes at `memory`, `tail` more at `second`.

    The bytes that were scanned are at `saved`.
    """

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("memory", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
        ("saved", ctypes.c_uint64),
        ("size", ctypes.c_uint32),
        ("tail", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("_", ctypes.c_uint64 * 2),
    )


class HookControl(Control):
    """A Control that calls functions of `uc` and of libc."""

    def __init__(self, uc: Uc) -> None:
        super().__init__()
        self._ids = (ctypes.c_int * len(_REGISTERS))(*_REGISTERS)
        first = ctypes.addressof(self) + Control.now.offset
        places = (first + 8 * n for n in range(len(_REGISTERS)))
        self._places = (ctypes.c_void_p * len(_REGISTERS))(*places)
        self.ids, self.pointers = ctypes.addressof(self._ids), ctypes.addressof(self._places)
        self.stop = function_address(uc.lib.uc_emu_stop)
        self.read = function_address(uc.lib.uc_reg_read_batch)
        self.clock = function_address(ctypes.CDLL(None).clock_gettime)
        self._memory = memoryview(self).cast("B")[Control.seen.offset :]

    def begin(self, seen: int, unwatched: int, deadline: int) -> None:
        """Give a slice all its blocks."""
        left = SLICE_BLOCKS - _QUANTUM
        _BEGIN.pack_into(
            self._memory, 0, seen, _QUANTUM, PAUSES, 0, left, unwatched, deadline, 0, 0, 0, 0
        )


HOOK_SYMBOLS: Final[Mapping[str, int]] = {
    **{name.upper(): getattr(Control, name).offset for name, *_ in Control._fields_},
    **{f"CHANGING_{n.upper()}": getattr(Changing, n).offset for n, *_ in Changing._fields_[:-1]},
    "CHANGING_MASK": (1 << CHANGING_BITS) - 1,
    "CHANGING_SHIFT": _CHANGING_SHIFT,
    **{name: globals()[name] for name in ("QUANTUM_BLOCKS", "REVISITS_MAX", "REVISITS_SPINNER")},
    **{name: globals()[name] for name in ("RESTING_VISITS", "RUNG", "USED_UP", "PAUSED", "SPIN")},
    "REGISTERS": len(_REGISTERS),
    "CLOCK_MONOTONIC": _CLOCK_MONOTONIC,
}
