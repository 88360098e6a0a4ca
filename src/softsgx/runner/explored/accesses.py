"""The loads and stores of enclave code, each before it is done.

EPC and the copies of host pages are mapped without the right to be read or written, so each access
asks a hook, which can stop the emulator before the instruction has had any effect. When the
instruction is executed again, the accesses that it had already made are not made a second time:
loads give what they gave, stores are left out. So an instruction that loads and stores without LOCK
is not atomic, and one with LOCK is. Adjacent parts of one access (of 16 bytes, or unaligned) count
as one.
"""

from __future__ import annotations

import ctypes
import mmap
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.emulator.blocks import address_of
from softsgx.runner.emulator.physical import SHADOW
from softsgx.runner.emulator.stores import Kind, StoreKinds
from softsgx.runner.emulator.unicorn_api import UC_HOOK_CODE, UC_HOOK_MEM_READ, Uc
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.runner.explored.model_host import ModelHost
    from softsgx.runner.explored.sharing import Sharing
    from softsgx.runner.explored.snapshot_arena import SnapshotArena

# Hooks in machine code. The first counts instructions: add qword ptr [rcx], 1; ret. The second, an
# empty one for loads, makes the emulator ask for each load, and not only for the first of a page.
_COUNT: Final = b"\x48\x83\x01\x01\xc3"
_NOTHING: Final = b"\xc3"


class Access(NamedTuple):
    """An access to `size` bytes at a linear address; one that loads and stores at once is a write.

    `inside`: to the enclave, not to memory of the host.
    """

    address: int
    size: int
    write: bool
    inside: bool


class Done(NamedTuple):
    """An access that was made, and the bytes that it loaded or stored."""

    access: Access
    data: bytes


class Partial(NamedTuple):
    """What the instruction at which the emulator stopped has done; `granted`: its next access."""

    done: tuple[Done, ...] = ()
    granted: bool = False


class Answer(Enum):
    """What becomes of an access that asked."""

    STOP = "not now: the emulator stops before the instruction"
    AGAIN = "it was made before the instruction was interrupted"
    GO = "it is made"


class Accesses:
    """The accesses of one emulator.

    party     who executes, for `sharing`
    stopped   the access before which the emulator has stopped
    changed   whether a store has changed memory since this was last set to False
    pages     linear page of each physical page that was translated
    """

    def __init__(self, memory: SnapshotArena, host: ModelHost, sharing: Sharing) -> None:
        self.sharing = sharing
        self.party = 0
        self.stopped: Access | None = None
        self.changed = False
        self.pages: dict[int, int] = {}
        self._memory = memory
        self._host = host
        self._kinds: StoreKinds | None = None
        self._counter = ctypes.c_uint64(0)
        # The accesses of instruction number `_number`, and how many of them have asked so far.
        self._number = 0
        self._done: list[Done] = []
        self._asked = 0
        self._granted = False
        self._locked: bool | None = None  # None: not known yet
        # Bytes that a load must not see, to be put back: the place, and the bytes.
        self._hidden: tuple[int, bytes] | None = None

    def install(self, uc: Uc, kinds: StoreKinds) -> None:
        """Install the hooks in machine code. `kinds` are those of the emulator's instructions."""
        self._kinds = kinds
        self._code = mmap.mmap(-1, PAGE_SIZE, prot=7)
        self._code[: len(_COUNT)] = _COUNT
        self._code[len(_COUNT) : len(_COUNT + _NOTHING)] = _NOTHING
        code = address_of(self._code)
        uc.hook(UC_HOOK_CODE, code, ctypes.addressof(self._counter))
        uc.hook(UC_HOOK_MEM_READ, code + len(_COUNT))

    def begin(self, partial: Partial | None) -> None:
        """Start a slice with an instruction that has done something, or with a fresh one."""
        self.stopped = None
        self._counter.value = 0
        self._number, self._asked = 1, 0
        self._done = list(partial.done) if partial else []
        self._granted = partial is not None and partial.granted
        self._locked = None

    def end(self) -> None:
        """End a slice: memory is as the accesses have left it."""
        if self._hidden is not None:
            at, data = self._hidden
            self._put(at, data)
            self._hidden = None

    @property
    def partial(self) -> Partial:
        """What the present instruction has done; its next access is granted if it has stopped."""
        if self._counter.value != self._number:
            return Partial()
        if self._locked:  # it does all at once, or nothing
            return Partial((), True)
        return Partial(tuple(self._done), self.stopped is not None)

    def asks(self, at: int, size: int, write: bool, value: int) -> Answer:
        """Decide on an access at a physical address. A store of GO must be carried out."""
        self.end()
        if self._counter.value != self._number:
            self._number, self._asked = self._counter.value, 0
            self._done.clear()
            self._granted, self._locked = False, None
        place = self._asked
        if place < len(self._done):
            self._asked += 1
            known = self._done[place]
            if not write and known.data != self._get(at, size):
                self._hidden = at, self._get(at, size)
                self._put(at, known.data)
            return Answer.AGAIN
        access = self._access(at, size, write)
        if self._stops(access):
            if not self._granted:
                self.stopped = access
                return Answer.STOP
            self._granted = False
        self.sharing.touched(self.party, access.address, size, access.write)
        before = self._get(at, size)
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little") if write else before
        self.changed = self.changed or data != before
        self._done.append(Done(access, data))
        self._asked += 1
        return Answer.GO

    def _access(self, at: int, size: int, write: bool) -> Access:
        assert self._kinds is not None
        if self._locked is None:
            self._locked = self._kinds.current().kind is Kind.LOCKED
        address = self.pages[at >> PAGE_SHIFT] << PAGE_SHIFT | at & PAGE_MASK
        return Access(address, size, write or self._locked, at < SHADOW)

    def _stops(self, access: Access) -> bool:
        if self._done:
            last = self._done[-1].access
            same = last.write == access.write and last.inside == access.inside
            if same and last.address <= access.address <= last.address + last.size:
                return False
        return not access.inside or self.sharing.has_point(access.address, access.size)

    # Memory at the emulator's physical addresses

    def store(self, at: int, size: int, value: int) -> None:
        """Carry out a store to EPC. One that is not aligned comes again, byte by byte."""
        if not at & (size - 1):
            self._put(at, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))

    def _get(self, at: int, size: int) -> bytes:
        if at >= SHADOW:
            return bytes(self._host.shadow[at - SHADOW : at - SHADOW + size])
        offset = at - (self._memory.first << PAGE_SHIFT)
        return bytes(self._memory.view[offset : offset + size])

    def _put(self, at: int, data: bytes) -> None:
        if at >= SHADOW:
            self._host.shadow[at - SHADOW : at - SHADOW + len(data)] = data
            return
        offset = at - (self._memory.first << PAGE_SHIFT)
        self._memory.view[offset : offset + len(data)] = data
