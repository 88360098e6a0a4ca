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
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.host.abi import USER_CS, USER_DS
from softsgx.runner.host.memory_file import memory_file
from softsgx.runner.host.native_code import compare_and_swap
from softsgx.runner.inserted.layout import (
    NATIVE_SLOTS,
    NATIVE_STAGING,
    SLOT_STRIDE,
    SLOTS,
    SLOTS_SIZE,
)
from softsgx.runner.inserted.systrap_layout import SPACE_SLOTS_AT
from softsgx.runner.ways import WAYS
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.registers import R8, RAX, RBP, RBX, RCX, RDI, RDX, RFLAGS, RIP, RSI, RSP
from softsgx.spec.structure import Structure, raw, u32, u64

if TYPE_CHECKING:
    from softsgx.runner.inserted.family import Family

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


class _File:
    """The slots of one file: of an address space, or of all."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.words = view.cast("I")
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(view))
        self.free = list(range(SLOTS - 1, 0, -1))


class Slots:
    """All slots. With ptrace `fd` is what all processes map at NATIVE_SLOTS, MAP_SHARED; without,
    the file of each address space has its own.

    The number of a slot is that of the file, times SLOTS, and its number there.
    """

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self.fd = -1
        self._swap = compare_and_swap()
        if WAYS.traced:
            self.fd = memory_file("softsgx-slots")
            os.ftruncate(self.fd, SLOTS_SIZE)
            self._files[0] = _File(memoryview(mmap.mmap(self.fd, SLOTS_SIZE)))

    def take(self, family: Family | None = None) -> int | None:
        """A slot for one thread; None if all are taken."""
        number = 0 if family is None else family.number
        if family is not None and number not in self._files:
            self._files[number] = _File(family.view[SPACE_SLOTS_AT:][:SLOTS_SIZE])
        free = self._files[number].free
        return number * SLOTS + free.pop() if free else None

    def give(self, slot: int) -> None:
        """Free a slot whose thread is gone."""
        self._files[slot // SLOTS].free.append(slot % SLOTS)

    def closed(self, family: Family | None) -> None:
        """Forget an address space."""
        if family is not None:
            self._files.pop(family.number, None)

    @staticmethod
    def address(slot: int) -> int:
        """The address of a slot in a process."""
        return NATIVE_SLOTS + slot % SLOTS * SLOT_STRIDE

    @staticmethod
    def staging(slot: int) -> int:
        """Where in a process its thread prepares a page of the enclave."""
        return NATIVE_STAGING + slot % SLOTS * PAGE_SIZE

    def _place(self, slot: int) -> tuple[memoryview, int]:
        """The memory of its file, and its offset there."""
        return self._files[slot // SLOTS].view, slot % SLOTS * SLOT_STRIDE

    def _word(self, slot: int, name: str) -> int:
        at = slot % SLOTS * SLOT_STRIDE + SLOT_AT[name]
        return self._files[slot // SLOTS].words[at // 4]

    def _set_word(self, slot: int, name: str, value: int) -> None:
        at = slot % SLOTS * SLOT_STRIDE + SLOT_AT[name]
        self._files[slot // SLOTS].words[at // 4] = value

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
        view, at = self._place(slot)
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
        return self._word(slot, "STAGE")

    def entered(self, slot: int) -> Entered:
        """What native.s has saved on the way in; bases are valid from SAVED on.

        Bases that ptrace would refuse, because the program wrote there, are returned as 0.
        """
        view, at = self._place(slot)
        fs, gs, blocked = _BACK.unpack_from(view, at + SLOT_AT["HOST_FS"])
        if (fs | gs) >> USER_BITS:
            fs, gs = (base if not base >> USER_BITS else 0 for base in (fs, gs))
        return Entered(fs, gs, blocked)

    # Arming

    def arm(self, slot: int, tid: int, again: Again, exits: Sequence[int]) -> None:
        """Write how a thread may enter; `rearm` or `claim` says that it may.

        The rest of the slot stays as at its last entry.

        `exits`: addresses of EEXITs that need not be asked for, either. Only EXITS_MAX are used.
        """
        view, at = self._place(slot)
        tcs, entry, cssa, bases, aep, stack_at = again
        _ENTRY.pack_into(view, at + SLOT_AT["FS"], *bases)
        _ENTRY.pack_into(view, at + SLOT_AT["AEP"], aep, stack_at)
        _EXITS.pack_into(view, at + SLOT_AT["EXITS"], *[*exits, *_NO_EXITS][:EXITS_MAX])
        self._set_word(slot, "MASKED", not WAYS.traced)
        _ENTRY.pack_into(view, tid % TABLE_SIZE * 16, tid, self.address(slot))
        _ARM.pack_into(view, at + SLOT_AT["ARM"], UNARMED, 0, tcs, entry, cssa)

    def claim(self, slot: int) -> None:
        """Make it what it is after an entry: HOST has nothing, but the thread is inside."""
        self._set_word(slot, "KEPT", 1)
        self._set_word(slot, "ARM", CLAIMED)

    def rearm(self, slot: int) -> None:
        """Arm it for the same EENTER again."""
        self._set_word(slot, "KEPT", 0)
        self._set_word(slot, "STAGE", SAVED)
        self._set_word(slot, "ARM", ARMED)

    def armed(self, slot: int) -> int:
        """UNARMED, ARMED or CLAIMED, unless the program wrote something else there."""
        return self._word(slot, "ARM")

    def disarm(self, slot: int) -> bool:
        """Disarm a slot; False if its thread had claimed it, and is inside or about to be."""
        at = self._files[slot // SLOTS].base + slot % SLOTS * SLOT_STRIDE + SLOT_AT["ARM"]
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
        view, at = self._place(slot)
        (count,) = _WORD.unpack_from(view, at + SLOT_AT["SERVED"])
        return int(count)

    def forget(self, tid: int, family: Family | None) -> None:
        """Remove a tid from the table of its file, as it may become another thread's."""
        file = self._files.get(0 if family is None else family.number)
        at = tid % TABLE_SIZE * 16
        if file is not None and _ENTRY.unpack_from(file.view, at)[0] == tid:
            _ENTRY.pack_into(file.view, at, 0, 0)

    def withdraw(self, slot: int) -> None:
        """Undo the claim of a thread that is stopped, or whose EENTER the model has executed."""
        self._set_word(slot, "ARM", UNARMED)

    def kept(self, slot: int) -> bool:
        """Whether HOST has the thread's registers."""
        return self._word(slot, "KEPT") == 1

    def forget_kept(self, slot: int) -> None:
        """The registers in HOST have been used: a thread is inside by what the model says now."""
        self._set_word(slot, "KEPT", 0)

    def host(self, slot: int) -> tuple[int, ...]:
        """Registers of the host at its ENCLU; RAX, RBX, RCX, R11, RFLAGS and RIP are not stored."""
        view, at = self._place(slot)
        return _HOST.unpack_from(view, at + SLOT_AT["HOST"])

    def result(self, slot: int, operation: int) -> int:
        """What an operation returned; valid at stage INSIDE."""
        view, at = self._place(slot)
        at += SLOT_AT["OPERATIONS"] + operation * OPERATION_SIZE + 56
        return int.from_bytes(view[at : at + 8], "little", signed=True)
