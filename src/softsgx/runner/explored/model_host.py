"""Host memory of a process that exists only in the model, as the emulator reaches it.

The emulator works on copies of frames of RAM, made anew for every slice; a store goes to the frame
and to its copy. Nothing else runs during a slice, so a copy is never stale. Addresses are
translated by the TLB and the page tables of the logical processor that executes.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING, Final

from softsgx.cpu.fault import PF, Fault
from softsgx.mem.tlb import READ, WRITE
from softsgx.runner.process.hostmem import OutOfCopies, Stored
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.faults import PFEC_U, PFEC_W

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.mem.physical import PhysicalMemory

_COPIES: Final = 64


class ModelHost:
    """Host memory as `runner.emulator.emulator` uses it. `lp` is the processor that executes."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self.memory = memory
        self.lp: LogicalProcessor | None = None
        self.shadow_size = _COPIES * PAGE_SIZE
        self.shadow = mmap.mmap(-1, self.shadow_size)
        self.shadow_address = ctypes.addressof(ctypes.c_char.from_buffer(self.shadow))
        self._slots: dict[int, int] = {}  # frame -> slot
        self._frames: list[int] = []  # slot -> frame

    def is_enclave(self, address: int) -> bool:
        """Whether EPC is mapped at `address`: outside its own enclave it is the abort page."""
        assert self.lp is not None
        pte = self.lp.space.lookup(address)
        return self.lp.processor.epc.index(pte >> PAGE_SHIFT & (1 << 40) - 1) >= 0

    def translate(self, address: int, write: bool) -> int:
        """Where the copy of the byte at `address` is, as an offset; faults as the access would."""
        assert self.lp is not None
        frame = self.lp.translate(address, WRITE if write else READ) >> PAGE_SHIFT
        slot = self._slots.get(frame)
        if slot is None:
            slot = len(self._frames)
            if slot == _COPIES:
                raise OutOfCopies
            at = slot * PAGE_SIZE
            self.shadow[at : at + PAGE_SIZE] = self.memory.read_page(frame)
            self._slots[frame] = slot
            self._frames.append(frame)
        return slot * PAGE_SIZE | address & PAGE_MASK

    def store(self, offset: int, data: bytes) -> Stored:
        """Store to the copy at `offset`, within one page, and to its frame."""
        self.store_bytes(offset, data)
        return Stored.DONE

    store_locked = store

    def store_bytes(self, offset: int, data: bytes) -> bool:
        """As `store`; always True, as it cannot fail."""
        frame = self._frames[offset >> PAGE_SHIFT]
        self.memory.write(frame << PAGE_SHIFT | offset & PAGE_MASK, data)
        self.shadow[offset : offset + len(data)] = data
        return True

    def address_of(self, offset: int) -> int:
        """The physical address of which the byte at `offset` is a copy."""
        return self._frames[offset >> PAGE_SHIFT] << PAGE_SHIFT | offset & PAGE_MASK

    def refusal(self, address: int) -> Fault:
        """The fault of a refused store."""
        return PF(address & ~PAGE_MASK, "HOST.02", PFEC_U | PFEC_W)

    def drain(self) -> None:
        """Nothing to do: no store is delayed."""

    reads = None
    """Nothing to refresh: no copy is kept for another slice."""

    def begin_slice(self) -> bool:
        """True: copies and the emulator's TLB must be dropped."""
        return True

    def drop_copies(self) -> None:
        """Forget the copies."""
        self._slots.clear()
        self._frames.clear()
