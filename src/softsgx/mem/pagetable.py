"""Page tables: one entry per linear page, with the bits of x86. SDM 3A, 4.5 "IA-32e Paging".

Two ranges of linear addresses exist. User pages (below 2^47) have entries in an `AddressSpace`. The
kernel reaches all physical memory, EPC included, at DIRECT_MAP + physical address; that range needs
no entries, never faults inside installed memory, and is only for CPL 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

from softsgx.events.cpu import PteChanged
from softsgx.sim.events import Log
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT
from softsgx.spec.translation import (
    PTE_A,
    PTE_D,
    PTE_NX,
    PTE_P,
    PTE_PFN_MASK,
    PTE_U,
    PTE_W,
    pte_text,
)

__all__ = [
    "DIRECT_MAP",
    "DIRECT_MAP_SIZE",
    "PTE_A",
    "PTE_D",
    "PTE_NX",
    "PTE_P",
    "PTE_PFN_MASK",
    "PTE_U",
    "PTE_W",
    "USER_TOP",
    "AddressSpace",
    "direct",
    "pte_text",
]

DIRECT_MAP: Final = 0xFFFF_8880_0000_0000
DIRECT_MAP_SIZE: Final = 1 << 46
USER_TOP: Final = 1 << 47


def direct(physical: int) -> int:
    """The kernel's linear address of a physical address."""
    return DIRECT_MAP + physical


class AddressSpace:
    """The page tables of one process. `ptes` maps linear page number -> x86 PTE word.

    Changing an entry does not touch any TLB; that is the kernel's job, as on a real machine.
    `host_pte` returns the entry of a page that a real process has and the model has not, 0 if there
    is none. A and D are set in it: the model keeps them for its own entries only.
    """

    __slots__ = ("_digest", "digest_stale", "generation", "host_pte", "log", "name", "ptes")

    def __init__(self, name: str = "", log: Log | None = None) -> None:
        self.name = name
        self.log = log if log is not None else Log()
        self.ptes: dict[int, int] = {}
        self.host_pte: Callable[[int], int] | None = None
        self.generation = 0  # counts changes by software; not part of the state
        # Set by whatever writes `ptes`: the digest must be computed again.
        self.digest_stale = True
        self._digest = b""

    def map(
        self,
        address: int,
        pfn: int,
        *,
        write: bool = True,
        execute: bool = False,
        user: bool = True,
    ) -> None:
        """Map the page at linear `address` to frame `pfn`, readable, with the given rights."""
        if address & PAGE_MASK:
            raise ValueError(f"address {address:#x}: not a multiple of 4096")
        if not 0 <= pfn <= PTE_PFN_MASK >> PAGE_SHIFT:
            raise ValueError(f"pfn {pfn:#x}: not a frame number of 40 bits")
        pte = pfn << PAGE_SHIFT | PTE_P
        if write:
            pte |= PTE_W
        if user:
            pte |= PTE_U
        if not execute:
            pte |= PTE_NX
        self.set(address, pte)

    def set(self, address: int, pte: int) -> None:
        """Store an entry word for the page at linear `address`."""
        if address >= USER_TOP or address < 0:
            raise ValueError(f"AddressSpace.set: address {address:#x} is not a user address")
        page = address >> PAGE_SHIFT
        if self.log.on:
            self.log.emit(PteChanged(self.name, page, self.ptes.get(page, 0), pte))
        self.ptes[page] = pte
        self.digest_stale = True
        self.generation += 1

    def unmap(self, address: int) -> int:
        """Remove the entry of the page at linear `address`; return the old word, 0 if none."""
        page = address >> PAGE_SHIFT
        old = self.ptes.pop(page, 0)
        self.digest_stale = True
        self.generation += 1
        if old and self.log.on:
            self.log.emit(PteChanged(self.name, page, old, 0))
        return old

    def lookup(self, address: int) -> int:
        """The entry word of the page at linear `address`; 0 if there is none."""
        return self.ptes.get(address >> PAGE_SHIFT, 0)

    def test_and_clear_accessed(self, address: int) -> bool:
        """Clear the A bit of an entry; return whether it was set."""
        page = address >> PAGE_SHIFT
        pte = self.ptes.get(page, 0)
        if not pte & PTE_A:
            return False
        self.ptes[page] = pte & ~PTE_A
        self.digest_stale = True
        self.generation += 1
        return True

    def snapshot(self) -> dict[int, int]:
        """All entries."""
        return dict(self.ptes)

    def restore(self, image: dict[int, int]) -> None:
        """Go back to a snapshot."""
        self.ptes = dict(image)
        self.digest_stale = True
        self.generation += 1

    def digest(self) -> bytes:
        """16 bytes that stand for all entries; cached until an entry changes."""
        if self.digest_stale:
            entries = b"".join(
                page.to_bytes(8, "little") + pte.to_bytes(8, "little")
                for page, pte in sorted(self.ptes.items())
            )
            self._digest = blake2b(entries, digest_size=16).digest()
            self.digest_stale = False
        return self._digest

    def state_key(self) -> tuple[object, Sequence[object], Sequence[object]]:
        """For `explore`: the entries, the entries of a real process, and where they are kept."""
        return (self.name, self.digest()), (self.host_pte,), (self.ptes,)
