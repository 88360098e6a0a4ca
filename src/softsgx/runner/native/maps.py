"""Enclave pages in a process: which are mapped, with which rights, and what has to change.

A page is mapped when the model has filled a TLB entry for it, with the rights of that entry. It
stays mapped while a walk would find the same: PTE present with A set (and D for W), EPCM entry
usable for this page with these rights. A change of either marks the page as dirty (`lp.py`), and it
is checked again before the next thread enters. `mapped` may contain pages that are no longer
mapped, but it contains every page that is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
)
from softsgx.mem.pagetable import PTE_D, PTE_NX, PTE_PFN_MASK, PTE_W
from softsgx.mem.tlb import FETCH, READ, RIGHTS, WRITE
from softsgx.runner.host import nr
from softsgx.runner.inserted.layout import NATIVE_EPC
from softsgx.runner.native.lp import WatchedEpcm, WatchedSpace
from softsgx.runner.native.slots import OPERATIONS_MAX, Operation
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import USABLE_MASK, USABLE_REG
from softsgx.spec.translation import PTE_READ_DONE

if TYPE_CHECKING:
    from softsgx.cpu.processor import Processor
    from softsgx.linux.mm import Mm
    from softsgx.runner.process.arena import ArenaMemory

_THERE: Final = MREMAP_MAYMOVE | MREMAP_FIXED
# MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE
_NOTHING: Final = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE


class Entry(NamedTuple):
    """Pages that a thread maps and hides on its way in; `hidden` as in NativeMap."""

    mapped: dict[int, None]
    hidden: dict[int, int]


class NativeMap:
    """What is mapped in one address space. Words are TLB entries: physical page and rights."""

    def __init__(self, mm: Mm, processor: Processor, memory: ArenaMemory) -> None:
        assert isinstance(processor.epcm, WatchedEpcm)
        assert isinstance(mm.space, WatchedSpace)
        self.mm = mm
        self.processor = processor
        self.memory = memory
        self.epcm: Final = processor.epcm
        self.mapped: dict[int, int] = {}
        self.dirty: dict[int, None] = {}
        # Pages to be hidden, until a thread has certainly hidden them; values number the requests.
        self.hidden: dict[int, int] = {}
        self._turn = 0
        # Threads on their way in, whose operations are not known to be done.
        self.entries: dict[int, Entry] = {}
        mm.space.user = self

    @property
    def unsettled(self) -> bool:
        """Whether a thread that enters may have to hide pages first."""
        return bool(self.dirty or self.hidden)

    def copy_to(self, child: NativeMap) -> None:
        """At fork: the child has the same mappings, but none of the page table entries."""
        for page, word in self.mapped.items():
            child._note(page, word)
            child.dirty[page] = None

    def close(self) -> None:
        """Forget all pages: the address space is gone."""
        for page in list(self.mapped):
            self.forget(page)

    # Widening

    def map(self, page: int, word: int, staging: int) -> list[Operation]:
        """The calls that map a linear page as the TLB entry `word` says, whatever is there now.

        Calls of other threads come in between. So the page gets its rights at `staging`, an address
        that only this thread uses, and is moved to its place with them: whoever puts something else
        there does it before or after, and never gives rights to what another has put there.
        """
        self.forget(page)
        source = NATIVE_EPC + (self._number(word) << PAGE_SHIFT)
        address = page << PAGE_SHIFT
        self._note(page, word)
        if word & WRITE:
            self.memory.touched[self._number(word)] = 1
        # R, W, X of a TLB entry are PROT_*; W and X bring R along, as in a page table.
        return [
            Operation(nr.MREMAP, (source, 0, PAGE_SIZE, _THERE, staging, 0)),
            Operation(nr.MPROTECT, (staging, PAGE_SIZE, word & RIGHTS, 0, 0, 0)),
            Operation(nr.MREMAP, (staging, PAGE_SIZE, PAGE_SIZE, _THERE, address, 0)),
        ]

    def _number(self, word: int) -> int:
        return (word >> PAGE_SHIFT) - self.memory.first

    def _note(self, page: int, word: int) -> None:
        self.mapped[page] = word & (~PAGE_MASK | RIGHTS)
        self.epcm.users.setdefault(self._number(word), {})[self] = page

    def forget(self, page: int) -> None:
        """Note that a page is not mapped, or may not be."""
        word = self.mapped.pop(page, 0)
        if word:
            number = self._number(word)
            users = self.epcm.users.get(number)
            if users is not None:
                users.pop(self, None)
                if not users:
                    del self.epcm.users[number]

    # Narrowing: a page that must lose a right is hidden; the next permitted access maps it again.

    def look(self) -> dict[int, None]:
        """Check the dirty pages; returns those that must be hidden before any thread enters."""
        changed: dict[int, None] = {}
        for page in self.dirty:
            word = self.mapped.get(page, 0)
            if word and word & RIGHTS & ~self._allowed(page, word):
                changed[page] = None
        self.dirty.clear()
        return changed

    def hide(self, pages: Iterable[int]) -> None:
        """Note pages that must be hidden, or of which it is uncertain what is mapped."""
        for page in pages:
            self.forget(page)
            if self.mm.vma_lookup(page << PAGE_SHIFT) is None:
                # Not enclave memory any more: the program has unmapped it, and may have reused it.
                self.hidden.pop(page, None)
            else:
                self._turn += 1
                self.hidden[page] = self._turn

    def pending(self) -> list[Operation]:
        """The calls that hide all pages not certainly hidden yet, adjacent pages together."""
        if not self.hidden:
            return []
        runs: list[list[int]] = []
        for page in sorted(self.hidden):
            if runs and runs[-1][1] == page:
                runs[-1][1] = page + 1
            else:
                runs.append([page, page + 1])
        if len(runs) > OPERATIONS_MAX // 2:
            # Too many pieces: hide whole areas.
            for page in list(self.mapped):
                self.forget(page)
            runs = [[v.start >> PAGE_SHIFT, v.end >> PAGE_SHIFT] for v in self.mm.vmas if v.sgx]
        return [nothing(at << PAGE_SHIFT, (end - at) << PAGE_SHIFT) for at, end in runs]

    def enter(self, tid: int, maps: Iterable[tuple[int, int]], staging: int) -> list[Operation]:
        """The calls that a thread must make before it enters: hide what is due, map these pages.

        `staging` as in `map`.
        """
        operations = self.pending()
        pages: dict[int, None] = {}
        hidden = dict(self.hidden)
        for page, word in maps:
            operations += self.map(page, word, staging)
            pages[page] = None
        if operations:
            self.entries[tid] = Entry(pages, hidden)
        return operations

    def entered(self, tid: int, certain: bool) -> None:
        """A thread has made all calls of its entry or, if not `certain`, perhaps some."""
        entry = self.entries.pop(tid, None)
        if entry is None:
            return
        if not certain:
            self.hide(entry.mapped)
            return
        for page, turn in entry.hidden.items():
            if self.hidden.get(page) == turn:
                del self.hidden[page]

    def _allowed(self, page: int, word: int) -> int:
        """The rights that a walk without a fault would find now for the page in `word`."""
        pte = self.mm.space.ptes.get(page, 0)
        if pte & PTE_READ_DONE != PTE_READ_DONE or pte & PTE_PFN_MASK != word & ~PAGE_MASK:
            return 0
        number = self._number(word)
        entry = self.epcm.state[number]
        if entry & USABLE_MASK != USABLE_REG or self.epcm.address[number] != page << PAGE_SHIFT:
            return 0
        rights = READ | (0 if pte & PTE_NX else FETCH)
        if pte & PTE_W and pte & PTE_D:
            rights |= WRITE
        return rights & entry


def nothing(address: int, length: int) -> Operation:
    """The call that puts PROT_NONE memory in place of whatever is there."""
    return Operation(nr.MMAP, (address, length, 0, _NOTHING, MASK64, 0))
