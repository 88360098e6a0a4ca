"""Physical memory whose EPC is one mapping, so that an emulator or a process can use it in place.

RAM of the model (operands, backing store) stays a dictionary of pages. EPC pages are pages of a
sparse memfd: a page takes no memory until it is written.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

from softsgx.linux.madvise import MADV_REMOVE
from softsgx.mem.physical import MemoryImage, Page, PhysicalMemory
from softsgx.runner.host.memory_file import memory_file
from softsgx.sim import Unmodelled
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE

# Values of `code` for an EPC page that instructions were fetched from.
FIXED: Final = 1  # the page was not writable: its blocks are known by their address
CHANGING: Final = 2  # it was writable: the bytes of a block are compared whenever it begins


class ArenaMemory(PhysicalMemory):
    """Replaces `ram`, whose frames it takes over. EPC is the `count` frames from `first` on.

    `touched[i]` is 1 once EPC page i may differ from zero. `code[i]` is FIXED or CHANGING if an
    emulator has fetched instructions from it; `code_writes` counts how often a FIXED one was, or
    may have been, written to since. `engine` is the emulator that ran last.
    """

    __slots__ = (
        "address",
        "code",
        "code_writes",
        "count",
        "engine",
        "fd",
        "first",
        "map",
        "touched",
        "view",
    )

    def __init__(self, ram: PhysicalMemory, first: int, count: int) -> None:
        super().__init__()
        # The frames of `ram` that are in use remain in use.
        self.frames, self.pages, self._next = ram.frames, ram.pages, ram._next
        self.first = first
        self.count = count
        self.fd = memory_file("softsgx-epc")
        size = count * PAGE_SIZE
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        self.view = memoryview(self.map)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.touched = bytearray(count)
        self.code = bytearray(count)
        self.code_writes = 0
        self.engine: object = None

    def _index(self, pfn: int) -> int:
        number = pfn - self.first
        return number if 0 <= number < self.count else -1

    def read(self, address: int, size: int) -> bytes:
        """As PhysicalMemory.read."""
        number = (address >> PAGE_SHIFT) - self.first
        offset = address & PAGE_MASK
        if not 0 <= number < self.count or offset + size > PAGE_SIZE:
            return super().read(address, size)
        at = number << PAGE_SHIFT | offset
        return bytes(self.view[at : at + size])

    def read_int(self, address: int, size: int) -> int:
        """As PhysicalMemory.read_int."""
        number = (address >> PAGE_SHIFT) - self.first
        if not 0 <= number < self.count:
            return super().read_int(address, size)
        at = number << PAGE_SHIFT | address & PAGE_MASK
        return int.from_bytes(self.view[at : at + size], "little")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """As PhysicalMemory.write."""
        number = (address >> PAGE_SHIFT) - self.first
        offset = address & PAGE_MASK
        size = len(data)
        if not 0 <= number < self.count or offset + size > PAGE_SIZE:
            super().write(address, data)
            return
        at = number << PAGE_SHIFT | offset
        self.view[at : at + size] = data
        self._wrote(number)

    def writable(self, pfn: int) -> bytearray | memoryview:
        """As PhysicalMemory.writable."""
        number = self._index(pfn)
        if number < 0:
            return super().writable(pfn)
        self._wrote(number)
        at = number << PAGE_SHIFT
        return self.view[at : at + PAGE_SIZE]

    def is_zero(self, pfn: int) -> bool:
        """As PhysicalMemory.is_zero."""
        number = self._index(pfn)
        return super().is_zero(pfn) if number < 0 else not self.touched[number]

    def page_view(self, pfn: int) -> Page:
        """As PhysicalMemory.page_view."""
        number = self._index(pfn)
        return super().page_view(pfn) if number < 0 else self.read_page(pfn)

    def read_page(self, pfn: int) -> bytes:
        """As PhysicalMemory.read_page."""
        number = self._index(pfn)
        if number < 0:
            return super().read_page(pfn)
        if not self.touched[number]:
            return ZERO_PAGE
        at = number << PAGE_SHIFT
        return bytes(self.view[at : at + PAGE_SIZE])

    def write_page(self, pfn: int, data: bytes | bytearray) -> None:
        """As PhysicalMemory.write_page; zeros over zeros cost nothing."""
        number = self._index(pfn)
        if number < 0:
            super().write_page(pfn, data)
            return
        if not self.touched[number] and data == ZERO_PAGE:
            return
        at = number << PAGE_SHIFT
        self.view[at : at + PAGE_SIZE] = data
        self._wrote(number)

    def clear_page(self, pfn: int) -> None:
        """As PhysicalMemory.clear_page: the memory is given back."""
        number = self._index(pfn)
        if number < 0:
            super().clear_page(pfn)
        elif self.touched[number]:
            self.map.madvise(MADV_REMOVE, number << PAGE_SHIFT, PAGE_SIZE)
            self._wrote(number)
            self.touched[number] = 0

    def may_change(self, number: int) -> None:
        """From now on the emulator may write EPC page `number` without calling these methods."""
        self.touched[number] = 1

    def _wrote(self, number: int) -> None:
        self.touched[number] = 1
        if self.code[number] == FIXED:
            self.code[number] = 0
            self.code_writes += 1

    def digest(self) -> int:
        """Not available: real programs are not explored."""
        raise Unmodelled("fingerprint of a machine that runs real programs")

    def snapshot(self) -> MemoryImage:
        """Not available: what the program did outside cannot be undone."""
        raise Unmodelled("snapshot of a machine that runs real programs")

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)
