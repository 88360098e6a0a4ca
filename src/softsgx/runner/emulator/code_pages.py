"""EPC pages as one emulator uses them: what is code, and how it can change.

Blocks of a page that cannot be written are known by their address (FIXED in `ArenaMemory.code`).
Once the page can be written, the bytes of a block are compared whenever it begins (CHANGING).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.emulator.blocks import Place
from softsgx.runner.emulator.unicorn_api import UC_PROT_EXEC, UC_PROT_READ, UC_PROT_WRITE
from softsgx.runner.process.arena import CHANGING, FIXED
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.runner.process.arena import ArenaMemory


class CodePages:
    """Code pages of one emulator; `lp` is the processor that executes.

    `forget(page)` is called when the code of a linear page has changed. `writes` is the value of
    `memory.code_writes` when this emulator last forgot all code.
    """

    def __init__(self, memory: ArenaMemory, forget: Callable[[int], None]) -> None:
        self._memory = memory
        self._forget = forget
        self._frames: dict[int, int] = {}  # linear pages of code -> EPC page they were in
        self.lp: LogicalProcessor | None = None
        self.writes = memory.code_writes

    def read(self, rip: int, size: int) -> bytes:
        """Up to `size` instruction bytes at RIP, as far as the TLB has its pages for fetching."""
        assert self.lp is not None
        entries = self.lp.tlb.entries
        offset = rip & PAGE_MASK
        if offset + size <= PAGE_SIZE:
            entry = entries.get(rip >> PAGE_SHIFT, 0)
            return self._memory.read(entry & ~PAGE_MASK | offset, size) if entry & FETCH else b""
        out = b""
        while len(out) < size:
            at = rip + len(out)
            entry = entries.get(at >> PAGE_SHIFT, 0)
            if not entry & FETCH:
                break
            length = min(size - len(out), PAGE_SIZE - (at & PAGE_MASK))
            out += self._memory.read(entry & ~PAGE_MASK | at & PAGE_MASK, length)
        return out

    def place(self, address: int) -> Place | None:
        """Where a byte of code lies; None if the TLB has no EPC page there."""
        assert self.lp is not None
        memory = self._memory
        number = (self.lp.tlb.entries.get(address >> PAGE_SHIFT, 0) >> PAGE_SHIFT) - memory.first
        if not 0 <= number < memory.count:
            return None
        at = memory.address + (number << PAGE_SHIFT) + (address & PAGE_MASK)
        return Place(at, memory.code[number] == CHANGING)

    def changing(self, address: int) -> bool:
        """Whether instructions at an address can be overwritten unnoticed."""
        place = self.place(address)
        return place is None or place.changing

    def rights(self, page: int, word: int, access: int, writes: bool = True) -> int:
        """Rights of a linear page in the emulator's TLB, from the model's `word`; W if `writes`.

        X is given only once the emulator has fetched from the page as it is now, so that no page
        becomes code unnoticed. Stores to a page with X are slow: the emulator treats it as code.
        """
        number = (word >> PAGE_SHIFT) - self._memory.first
        rights = UC_PROT_READ if word & READ else 0
        if word & WRITE and writes:
            rights |= UC_PROT_WRITE
            self._writable(number, page)
        if access == FETCH:
            self._fetched(number, page, CHANGING if word & WRITE else FIXED)
        if word & FETCH and self._memory.code[number] and self._frames.get(page) == number:
            rights |= UC_PROT_EXEC
        return rights

    def _fetched(self, number: int, page: int, kind: int) -> None:
        """Note that code is about to be fetched from an EPC page."""
        if not self._memory.code[number]:
            self._memory.code[number] = kind
        if self._frames.get(page) != number:
            self._frames[page] = number
            self._forget(page)

    def _writable(self, number: int, page: int) -> None:
        """Note that from now on the enclave can write an EPC page unnoticed."""
        self._memory.may_change(number)
        if self._memory.code[number] == FIXED:
            self._memory.code[number] = CHANGING
            self._memory.code_writes += 1
            self.writes += 1  # other emulators have to forget all their code
            self._forget(page)
