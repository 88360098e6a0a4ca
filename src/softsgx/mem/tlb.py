"""The TLB of one logical processor.

An entry stays until the architecture flushes it; neither a changed PTE nor a changed EPCM entry
reaches into it. That is why tracking exists. SDM 3A, 4.10; SDM 3D, 37.3.

An entry is one integer: the physical page address, and in its low bits what the entry permits.
"""

from __future__ import annotations

from typing import Final

from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT

READ: Final = 1 << 0
WRITE: Final = 1 << 1  # writable, and the PTE's D bit is already set
FETCH: Final = 1 << 2
CLEAN: Final = 1 << 3  # writable, but the first write must walk again to set D
ABORT: Final = 1 << 4  # not EPC to this access: reads give ones, writes are dropped
RIGHTS: Final = READ | WRITE | FETCH


def rights_text(entry: int) -> str:
    """Rights of an entry as 'rw-'. A writable page whose D bit is still clear shows as 'w' too."""
    return (
        ("r" if entry & READ else "-")
        + ("w" if entry & (WRITE | CLEAN) else "-")
        + ("x" if entry & FETCH else "-")
    )


class Tlb:
    """Translations of one logical processor: linear page number -> entry word.

    `flushes` counts whole flushes since reset; it is a statistic, not state.
    """

    __slots__ = ("entries", "flushes")

    def __init__(self) -> None:
        self.entries: dict[int, int] = {}
        self.flushes = 0

    def flush(self) -> None:
        """Drop every entry: EENTER, ERESUME, EEXIT, AEX, MOV to CR3."""
        # In place: the fast path of the access check holds a reference to the dictionary.
        self.entries.clear()
        self.flushes += 1

    def invlpg(self, address: int) -> None:
        """Drop the entry of one linear page."""
        self.entries.pop(address >> PAGE_SHIFT, None)

    def holds(self, address: int) -> int:
        """The rights cached for the page at linear `address`: READ, WRITE or CLEAN, FETCH bits."""
        return self.entries.get(address >> PAGE_SHIFT, 0) & PAGE_MASK
