"""The TLB of one logical processor.

An entry stays until the architecture flushes it; neither a changed PTE nor a changed EPCM entry
reaches into it. That is why tracking exists. SDM 3A, 4.10 "Caching Translation
Information"; SDM 3D, 38.3 "Access-control Requirements".

An entry is one integer, whose bits `spec.translation` names.
"""

from __future__ import annotations

from typing import Final

from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT
from softsgx.spec.translation import (
    ABORT,
    CLEAN,
    FETCH,
    READ,
    SHADOW,
    SHADOW_READ,
    SHADOW_WRITE,
    WRITE,
    rights_text,
)

__all__ = [
    "ABORT",
    "CLEAN",
    "FETCH",
    "READ",
    "RIGHTS",
    "SHADOW",
    "SHADOW_READ",
    "SHADOW_WRITE",
    "WRITE",
    "Tlb",
    "rights_text",
]

RIGHTS: Final = READ | WRITE | FETCH


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
