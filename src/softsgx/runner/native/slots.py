"""The slot of shared memory from which native.s loads a thread that enters; one for each thread.

The supervisor fills the slot of a thread and sends the thread to native.s. It must not trust what
it reads here afterwards: the program can write to all of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from softsgx.runner.host.abi import USER_CS, USER_DS
from softsgx.runner.host.memory_file import memory_file
from softsgx.runner.host.native_code import compare_and_swap
from softsgx.runner.inserted.layout import NATIVE_SLOTS, SLOT_STRIDE, SLOTS, SLOTS_SIZE
from softsgx.runner.ways import WAYS
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.registers import R8, RAX, RBP, RBX, RCX, RDI, RDX, RFLAGS, RIP, RSI, RSP
from softsgx.spec.structure import Structure, raw, u32, u64

# STAGE: how far the thread has come.
ENTERING: Final = 0  # FS and GS bases are the host's
SAVED: Final = 1  # they were saved, and may be either
INSIDE: Final = 2  # all operations are done, everything but general registers is loaded

# ARM.
UNARMED: Final = 0
ARMED: Final = 1
CLAIMED: Final = 2
LEAVING: Final = 3  # for a few instructions, on the way from CLAIMED to ARMED
# In place of the first slot, a table of armed threads by the low bits of the tid: tid, address.
TABLE_SIZE: Final = SLOT_STRIDE // 16

USER_BITS: Final = 47  # of an address

OPERATION_SIZE: Final = 64
OPERATIONS_MAX: Final = 128
EXITS_MAX: Final = 8


class SLOT(Structure, size=SLOT_STRIDE, align=PAGE_SIZE):
    """REGISTERS: R15 to R8, RDI, RSI, RBP, RBX, RDX, RCX, RAX, then a frame for IRET.

    OPERATIONS are system calls: number, six arguments, and room for the result. COMPONENTS is the
    mask with which XRSTOR loads XSAVE; 0 leaves the state alone. BLOCKED is the former signal mask.

    A thread that is ARMED may enter at TCS without asking, with ENTRY for RIP and CSSA for RAX. The
    slot is then CLAIMED, and HOST has the thread's registers, in the order of `spec.registers`,
    once KEPT is 1. AEP is the only one with which it may. It stores RSP and RBP at STACK_AT, as
    EENTER does. The stub may carry out an EEXIT at one of EXITS; SERVED counts these. MASKED: no
    signal of an exception is blocked, so the mask need not be changed.
    """

    REGISTERS: bytes = raw(0x000, 20 * 8)
    FS: int = u64(0x0A0)
    GS: int = u64(0x0A8)
    HOST_FS: int = u64(0x0B0)
    HOST_GS: int = u64(0x0B8)
    BLOCKED: int = u64(0x0C0)
    UNBLOCK: int = u64(0x0C8)
    COMPONENTS: int = u64(0x0D0)
    COUNT: int = u32(0x0D8)
    STAGE: int = u32(0x0DC)
    ARM: int = u32(0x0E0)
    KEPT: int = u32(0x0E4)
    TCS: int = u64(0x0E8)
    ENTRY: int = u64(0x0F0)
    CSSA: int = u64(0x0F8)
    HOST: bytes = raw(0x100, 18 * 8)
    AEP: int = u64(0x190)
    STACK_AT: int = u64(0x198)
    SERVED: int = u64(0x1A0)
    EXITS: bytes = raw(0x1A8, 8 * EXITS_MAX)
    MASKED: int = u32(0x1E8)
    XSAVE: bytes = raw(0x1000, PAGE_SIZE)
    OPERATIONS: bytes = raw(0x2000, OPERATION_SIZE * OPERATIONS_MAX)


SLOT_AT: Final = {field.name: field.offset for field in SLOT.FIELDS}
# Native: with "<" the struct module would copy byte by byte.
_HEAD: Final = struct.Struct("27QII")
_BACK: Final = struct.Struct("3Q")
_OPERATION: Final = struct.Struct("8Q")
_ARM: Final = struct.Struct("IIQQQ")
_HOST: Final = struct.Struct("18Q")
_ENTRY: Final = struct.Struct("QQ")
_WORD: Final = struct.Struct("Q")
_EXITS: Final = struct.Struct(f"{EXITS_MAX}Q")
_NO_EXITS: Final = (0,) * EXITS_MAX
_PATIENCE: Final = 1_000_000
assert RBP == RSP + 1
assert _HEAD.size == SLOT_AT["STAGE"] + 4


class Operation(NamedTuple):
    """A system call for native.s to make."""

    number: int
    arguments: tuple[int, int, int, int, int, int]


class Again(NamedTuple):
    """An EENTER that may be repeated, at `aep`. `bases` are FS and GS inside.

    `stack_at` is where it stores RSP and RBP: an address in the process.
    """

    tcs: int
    entry: int
    cssa: int
    bases: tuple[int, int]
    aep: int
    stack_at: int


class Entered(NamedTuple):
    """What native.s saved: the host's FS and GS bases, and the signals that were blocked."""

    fs: int
    gs: int
    blocked: int


class Slots:
    """All slots; `fd` is what processes map at NATIVE_SLOTS, MAP_SHARED."""

    def __init__(self) -> None:
        self.fd: Final = memory_file("softsgx-slots")
        os.ftruncate(self.fd, SLOTS_SIZE)
        self._memory = mmap.mmap(self.fd, SLOTS_SIZE)
        self._view = memoryview(self._memory)
        self._words = self._view.cast("I")
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._arm_at = base + SLOT_AT["ARM"]
        self._swap = compare_and_swap()
        self._free = list(range(SLOTS - 1, 0, -1))

    def take(self) -> int | None:
        """A slot for one thread; None if all are taken."""
        return self._free.pop() if self._free else None

    def give(self, slot: int) -> None:
        """Free a slot whose thread is gone."""
        self._free.append(slot)

    @staticmethod
    def address(slot: int) -> int:
        """The address of a slot in a process."""
        return NATIVE_SLOTS + slot * SLOT_STRIDE

    def fill(
        self,
        slot: int,
        regs: Sequence[int],
        bases: tuple[int, int],
        unblock: int,
        operations: Sequence[Operation],
        xsave: tuple[int, bytes] | None,
    ) -> None:
        """Write everything for one entry. `xsave`: mask of components, and an image with them."""
        at = slot * SLOT_STRIDE
        view = self._view
        for n, (number, arguments) in enumerate(operations):
            place = at + SLOT_AT["OPERATIONS"] + n * OPERATION_SIZE
            _OPERATION.pack_into(view, place, number, *arguments, 0)
        components = 0
        if xsave is not None:
            components, image = xsave
            place = at + SLOT_AT["XSAVE"]
            view[place : place + len(image)] = image
        _HEAD.pack_into(
            view,
            at,
            *regs[R8 + 7 : R8 - 1 : -1],
            *(regs[RDI], regs[RSI], regs[RBP], regs[RBX], regs[RDX], regs[RCX], regs[RAX]),
            *(regs[RIP], USER_CS, regs[RFLAGS], regs[RSP], USER_DS),
            *bases,
            *(0, 0, 0, unblock, components, len(operations), ENTERING),
        )

    def stage(self, slot: int) -> int:
        """ENTERING, SAVED or INSIDE, unless the program wrote something else there."""
        return self._words[(slot * SLOT_STRIDE + SLOT_AT["STAGE"]) // 4]

    def entered(self, slot: int) -> Entered:
        """What native.s has saved on the way in; bases are valid from SAVED on.

        Bases that ptrace would refuse, because the program wrote there, are returned as 0.
        """
        fs, gs, blocked = _BACK.unpack_from(self._view, slot * SLOT_STRIDE + SLOT_AT["HOST_FS"])
        if (fs | gs) >> USER_BITS:
            fs, gs = (base if not base >> USER_BITS else 0 for base in (fs, gs))
        return Entered(fs, gs, blocked)

    # Arming

    def arm(self, slot: int, tid: int, again: Again, exits: Sequence[int]) -> None:
        """Write how a thread may enter; `rearm` or `claim` says that it may.

        The rest of the slot stays as at its last entry.

        `exits`: addresses of EEXITs that need not be asked for, either. Only EXITS_MAX are used.
        """
        at = slot * SLOT_STRIDE
        tcs, entry, cssa, bases, aep, stack_at = again
        _ENTRY.pack_into(self._view, at + SLOT_AT["FS"], *bases)
        _ENTRY.pack_into(self._view, at + SLOT_AT["AEP"], aep, stack_at)
        _EXITS.pack_into(self._view, at + SLOT_AT["EXITS"], *[*exits, *_NO_EXITS][:EXITS_MAX])
        self._words[(at + SLOT_AT["MASKED"]) // 4] = not WAYS.traced
        _ENTRY.pack_into(self._view, tid % TABLE_SIZE * 16, tid, self.address(slot))
        _ARM.pack_into(self._view, at + SLOT_AT["ARM"], UNARMED, 0, tcs, entry, cssa)

    def claim(self, slot: int) -> None:
        """Make it what it is after an entry: HOST has nothing, but the thread is inside."""
        at = slot * SLOT_STRIDE // 4
        self._words[at + SLOT_AT["KEPT"] // 4] = 1
        self._words[at + SLOT_AT["ARM"] // 4] = CLAIMED

    def rearm(self, slot: int) -> None:
        """Arm it for the same EENTER again."""
        at = slot * SLOT_STRIDE // 4
        self._words[at + SLOT_AT["KEPT"] // 4] = 0
        self._words[at + SLOT_AT["STAGE"] // 4] = SAVED
        self._words[at + SLOT_AT["ARM"] // 4] = ARMED

    def armed(self, slot: int) -> int:
        """UNARMED, ARMED or CLAIMED, unless the program wrote something else there."""
        return self._words[(slot * SLOT_STRIDE + SLOT_AT["ARM"]) // 4]

    def disarm(self, slot: int) -> bool:
        """Disarm a slot; False if its thread had claimed it, and is inside or about to be."""
        at = self._arm_at + slot * SLOT_STRIDE
        for _ in range(_PATIENCE):
            was = self._swap.call(at, ARMED, UNARMED)
            if was in (ARMED, UNARMED):
                return True
            if was == CLAIMED and self._swap.call(at, CLAIMED, UNARMED) == CLAIMED:
                return False
            os.sched_yield()
        self.withdraw(slot)  # the program has written there
        return True

    def served(self, slot: int) -> int:
        """How many EEXITs the stub has carried out."""
        (count,) = _WORD.unpack_from(self._view, slot * SLOT_STRIDE + SLOT_AT["SERVED"])
        return int(count)

    def forget(self, tid: int) -> None:
        """Remove a tid from the table, as it may become another thread's."""
        at = tid % TABLE_SIZE * 16
        if _ENTRY.unpack_from(self._view, at)[0] == tid:
            _ENTRY.pack_into(self._view, at, 0, 0)

    def withdraw(self, slot: int) -> None:
        """Undo the claim of a thread that is stopped, or whose EENTER the model has executed."""
        self._words[(slot * SLOT_STRIDE + SLOT_AT["ARM"]) // 4] = UNARMED

    def kept(self, slot: int) -> bool:
        """Whether HOST has the thread's registers."""
        return self._words[(slot * SLOT_STRIDE + SLOT_AT["KEPT"]) // 4] == 1

    def forget_kept(self, slot: int) -> None:
        """The registers in HOST have been used: a thread is inside by what the model says now."""
        self._words[(slot * SLOT_STRIDE + SLOT_AT["KEPT"]) // 4] = 0

    def host(self, slot: int) -> tuple[int, ...]:
        """Registers of the host at its ENCLU; RAX, RBX, RCX, R11, RFLAGS and RIP are not stored."""
        return _HOST.unpack_from(self._view, slot * SLOT_STRIDE + SLOT_AT["HOST"])

    def result(self, slot: int, operation: int) -> int:
        """What an operation returned; valid at stage INSIDE."""
        place = SLOT_AT["OPERATIONS"] + operation * OPERATION_SIZE + 56
        at = slot * SLOT_STRIDE + place
        return int.from_bytes(self._view[at : at + 8], "little", signed=True)
