"""EPC as one mapping with snapshots, for exploring programs in the emulator."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from softsgx.mem.physical import MemoryImage, PhysicalMemory
from softsgx.runner.process.arena import ArenaMemory
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE


class SnapshotArena(ArenaMemory):
    """An ArenaMemory with snapshots. `changed[i]`: EPC page i may differ from the last snapshot."""

    __slots__ = ("changed", "image")

    def __init__(self, ram: PhysicalMemory, first: int, count: int) -> None:
        super().__init__(ram, first, count)
        self.changed = bytearray(count)
        self.image: dict[int, bytes] = {}

    def may_change(self, number: int) -> None:
        """As ArenaMemory.may_change."""
        self.changed[number] = 1
        super().may_change(number)

    def _wrote(self, number: int) -> None:
        self.changed[number] = 1
        super()._wrote(number)

    def snapshot(self) -> MemoryImage:
        """Take a snapshot of all contents. Only the last one is kept."""
        self.image = {number: self._page(number) for number in _ones(self.touched)}
        self.changed[:] = bytes(self.count)
        return PhysicalMemory.snapshot(self)

    def restore(self, image: MemoryImage) -> None:
        """Restore the last snapshot; the cost depends only on the pages that may have changed."""
        PhysicalMemory.restore(self, image)
        for number in _ones(self.changed):
            page = self.image.get(number, ZERO_PAGE)
            if self._page(number) != page:
                at = number << PAGE_SHIFT
                self.view[at : at + PAGE_SIZE] = page
                super()._wrote(number)
            self.touched[number] = number in self.image
        self.changed[:] = bytes(self.count)

    def digest(self) -> int:
        """A 64-bit digest of all contents."""
        found = PhysicalMemory.digest(self)
        for number in _ones(self.touched):
            page = self._page(number)
            if page != ZERO_PAGE:
                salt = number.to_bytes(8, "little")
                raw = blake2b(page, digest_size=8, salt=salt, person=b"EPC").digest()
                found ^= int.from_bytes(raw, "little")
        return found

    def _page(self, number: int) -> bytes:
        at = number << PAGE_SHIFT
        return bytes(self.view[at : at + PAGE_SIZE])


def _ones(flags: Any) -> list[int]:
    """The indices of the flags that are 1, in a bytearray."""
    found, at = [], flags.find(1)
    while at >= 0:
        found.append(at)
        at = flags.find(1, at + 1)
    return found
