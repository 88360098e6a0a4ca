"""The two tables of known blocks that hook.s reads.

Each address has one slot in a table, so blocks may evict each other; an evicted block is scanned
again. A block of a page that can be written is kept with its bytes, which the hook compares.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import defaultdict
from typing import Final

from softsgx.runner.emulator.control import CHANGING_BITS, KNOWN_BITS, SPINNER, Changing
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

_SAVED_SIZE: Final = 1 << 22
_KNOWN_MASK: Final = (1 << KNOWN_BITS) - 1
_CHANGING_MASK: Final = (1 << CHANGING_BITS) - 1
_ADDRESS: Final = SPINNER - 1
_PLACES_OF_PAGE: Final = bytes(8 * PAGE_SIZE)


class KnownBlocks:
    """Both tables; `plain` and `changing` are their addresses."""

    def __init__(self) -> None:
        self._plain_memory = mmap.mmap(-1, 8 << KNOWN_BITS)
        self._plain = memoryview(self._plain_memory).cast("Q")
        self.plain = _address(self._plain_memory)
        self._changing = (Changing * (1 << CHANGING_BITS)).from_buffer(
            mmap.mmap(-1, ctypes.sizeof(Changing) << CHANGING_BITS)
        )
        self.changing = ctypes.addressof(self._changing)
        self._saved = mmap.mmap(-1, _SAVED_SIZE)
        self._saved_address = _address(self._saved)
        self._used = 0
        self._by_page: defaultdict[int, set[int]] = defaultdict(set)  # linear page -> slots

    def add(self, address: int, flags: int) -> None:
        """Add a block of pages that cannot be written."""
        self._plain[_place(address) & _KNOWN_MASK] = address | flags

    def add_changing(self, address: int, code: bytes, first: int, last: int, flags: int) -> None:
        """Add a block that can change; its first byte lies at `first`, its last one at `last`."""
        if self._used + len(code) > _SAVED_SIZE:
            self._forget_changing()
        at = self._used
        self._saved[at : at + len(code)] = code
        self._used += len(code)
        size = min(len(code), PAGE_SIZE - (address & PAGE_MASK))
        tail = len(code) - size
        place = _place(address) & _CHANGING_MASK
        entry = self._changing[place]
        entry.address = address
        entry.memory = first
        entry.second = last - tail + 1
        entry.saved = self._saved_address + at
        entry.size, entry.tail = size, tail
        entry.flags = flags
        for page in {address >> PAGE_SHIFT, address + len(code) - 1 >> PAGE_SHIFT}:
            self._by_page[page].add(place)
        # The hook looks here first, and would find the entry made before the pages were writable.
        if self._plain[_place(address) & _KNOWN_MASK] & _ADDRESS == address:
            self._plain[_place(address) & _KNOWN_MASK] = 0

    def flag(self, address: int, flag: int) -> None:
        """Set SPINNER of a known block to `flag`."""
        place = _place(address)
        plain = self._plain[place & _KNOWN_MASK]
        if plain & _ADDRESS == address:
            self._plain[place & _KNOWN_MASK] = plain & ~SPINNER | flag
        entry = self._changing[place & _CHANGING_MASK]
        if entry.address == address:
            entry.flags = entry.flags & ~SPINNER | flag

    def forget(self) -> None:
        """Forget all blocks."""
        self._plain_memory[:] = bytes(len(self._plain_memory))
        self._forget_changing()

    def forget_page(self, page: int) -> None:
        """Forget the blocks of a linear page, and those of the page before that may end in it."""
        for one in (page - 1, page):
            # The slots of a page are contiguous.
            first = 8 * (_place(one << PAGE_SHIFT) & _KNOWN_MASK & ~PAGE_MASK)
            self._plain_memory[first : first + len(_PLACES_OF_PAGE)] = _PLACES_OF_PAGE
        for place in self._by_page.pop(page, ()):
            self._changing[place].address = 0

    def _forget_changing(self) -> None:
        for places in self._by_page.values():
            for place in places:
                self._changing[place].address = 0
        self._by_page.clear()
        self._used = 0


def _place(address: int) -> int:
    return address ^ address >> 12


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
