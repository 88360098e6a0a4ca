"""Stores to host memory, by the kind of the instruction that makes them.

A locked instruction must work on host memory itself, not on a copy. An ordinary store may wait a
little, as in the store buffer of a processor, so that adjacent stores are written together. A REP
string store is carried out page by page.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.mem.tlb import READ
from softsgx.runner.code.encoding import LEGACY_PREFIXES, LOCK, LONGEST
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.msr import RFLAGS_DF
from softsgx.spec.registers import RAX, RCX, RDI, RFLAGS, RIP, RSI

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.runner.emulator.unicorn_api import Uc
    from softsgx.runner.process.arena import ArenaMemory
    from softsgx.runner.process.hostmem import HostMemory

_REP, _SHORT, _ADDRESS_32 = 0xF3, 0x66, 0x67
_MOVS, _STOS = (0xA4, 0xA5), (0xAA, 0xAB)
_XCHG: Final = (0x86, 0x87)
_RIP_ID, _RCX_ID = 41, 38
_FOUND_MAX: Final = 4096
_PAGES_MAX: Final = 256


class Kind(Enum):
    """How a store is carried out."""

    PLAIN = "may wait for its neighbours"
    LOCKED = "reads and writes at once"
    STRING = "REP MOVS or REP STOS"


class Store(NamedTuple):
    """An instruction that stores; `width` and `length` (in bytes) with Kind.STRING."""

    kind: Kind
    moves: bool = False
    width: int = 1
    length: int = 0


PLAIN: Final = Store(Kind.PLAIN)
LOCKED: Final = Store(Kind.LOCKED)


def classify(code: bytes) -> Store:
    """The kind of the first instruction in `code`. An incomplete instruction counts as locked."""
    at = 0
    while at < len(code) and code[at] in LEGACY_PREFIXES:
        at += 1
    prefixes, rex = code[:at], 0
    if at < len(code) and code[at] & 0xF0 == 0x40:
        rex, at = code[at], at + 1
    if at >= len(code) or LOCK in prefixes or code[at] in _XCHG:
        return LOCKED
    opcode = code[at]
    if _REP in prefixes and opcode in (*_MOVS, *_STOS):
        if any(p in prefixes for p in (_ADDRESS_32, 0x64, 0x65)):
            return PLAIN
        wide = 8 if rex & 8 else 2 if _SHORT in prefixes else 4
        return Store(Kind.STRING, opcode in _MOVS, wide if opcode & 1 else 1, at + 1)
    return PLAIN


class StoreKinds:
    """The kinds of the instructions of one emulator, by RIP.

    `code_at(address, size)` reads instruction bytes; `changing(address)` says whether they may be
    overwritten unnoticed.
    """

    def __init__(
        self, uc: Uc, code_at: Callable[[int, int], bytes], changing: Callable[[int], bool]
    ) -> None:
        self._uc = uc
        self._code_at = code_at
        self._changing = changing
        self._found: dict[int, Store] = {}
        self._word = ctypes.c_uint64()

    def current(self) -> Store:
        """The instruction that is being executed."""
        rip = self._register(_RIP_ID)
        found = self._found.get(rip)
        if found is None:
            found = classify(self._code_at(rip, LONGEST))
            if self._changing(rip):
                return found
            if len(self._found) > _FOUND_MAX:
                self._found.clear()
            self._found[rip] = found
        return found

    def rip(self) -> int:
        """RIP of the emulator."""
        return self._register(_RIP_ID)

    def rcx(self) -> int:
        """RCX as it is while the instruction is being executed."""
        return self._register(_RCX_ID)

    def forget(self) -> None:
        """Forget all kinds: code has changed."""
        self._found.clear()

    def _register(self, number: int) -> int:
        self._uc.read_register(number, self._word)
        return int(self._word.value)


class StringStores:
    """Carries out REP MOVS and REP STOS whose destination is host memory."""

    def __init__(self, memory: ArenaMemory, host: HostMemory) -> None:
        self._memory = memory
        self._host = host

    def run(self, lp: LogicalProcessor, store: Store) -> bool:
        """Store what can be stored page by page; False if not even one element could be stored.

        Faults as the instruction does. The registers always say how far it has come, as on a
        processor.
        """
        regs = lp.regs
        if regs[RFLAGS] & RFLAGS_DF:
            return False
        self._host.drain()
        done = 0
        for _ in range(_PAGES_MAX):
            count = self._count(regs[RCX], regs[RDI], regs[RSI] if store.moves else 0, store.width)
            if not count:
                break
            size = count * store.width
            data = self._source(lp, store, size)
            offset = self._host.translate(regs[RDI], True)
            if not self._host.store_bytes(offset, data):
                break
            regs[RDI] += size
            regs[RSI] += size if store.moves else 0
            regs[RCX] -= count
            done += count
            if not regs[RCX]:
                regs[RIP] += store.length
                break
        return done > 0

    @staticmethod
    def _count(count: int, to: int, source: int, width: int) -> int:
        """How many elements lie in one page of the destination and one of the source."""
        room = min(PAGE_SIZE - (to & PAGE_MASK), PAGE_SIZE - (source & PAGE_MASK))
        return min(count, room // width)

    def _source(self, lp: LogicalProcessor, store: Store, size: int) -> bytes:
        if not store.moves:
            element = (lp.regs[RAX] & ((1 << 8 * store.width) - 1)).to_bytes(store.width, "little")
            return element * (size // store.width)
        address = lp.regs[RSI]
        if lp.elrange_base <= address < lp.elrange_end:
            entry = lp.translate(address, READ)
            return self._memory.read(entry & ~PAGE_MASK | address & PAGE_MASK, size)
        offset = self._host.translate(address, False)
        offset |= address & PAGE_MASK
        return bytes(self._host.shadow[offset : offset + size])
