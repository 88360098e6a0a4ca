"""The hardware of the native engine: parts of the model that report what happens to them.

A logical processor whose interrupt must first stop a real thread; an EPCM and page tables that
notify every process with the page mapped when an entry changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from softsgx.cpu.epcm import Epcm
from softsgx.cpu.lp import LogicalProcessor
from softsgx.mem.pagetable import AddressSpace
from softsgx.runner.process.world import Hardware
from softsgx.spec.bits import PAGE_SHIFT

if TYPE_CHECKING:
    from softsgx.cpu.aex import Delivered
    from softsgx.cpu.processor import Processor
    from softsgx.sim.events import Log


class Watcher(Protocol):
    """A process with enclave pages mapped, by linear page; `dirty`: must be checked again."""

    mapped: dict[int, int]
    dirty: dict[int, None]


class NativeLp(LogicalProcessor):
    """A logical processor that a real thread may be running on: `catch` stops it."""

    __slots__ = ("catch",)

    def __init__(self, processor: Processor, number: int, space: AddressSpace) -> None:
        super().__init__(processor, number, space)
        self.catch: Callable[[], None] | None = None

    def interrupt(self, vector: int = 0xFB) -> Delivered:
        """As LogicalProcessor.interrupt, with the state in which the thread really is."""
        if self.secs is not None and self.catch is not None:
            self.catch()
        return super().interrupt(vector)


class WatchedEpcm(Epcm):
    """An EPCM that marks a page as dirty wherever it is mapped when its entry changes."""

    __slots__ = ("users",)

    def __init__(self, pages: int, log: Log) -> None:
        super().__init__(pages, log)
        self.users: dict[int, dict[Watcher, int]] = {}  # EPC page -> where it is mapped

    def put(self, page: int, word: int) -> None:
        """As Epcm.put."""
        if page in self.users:
            self._tell(page)
        super().put(page, word)

    def free(self, page: int) -> None:
        """As Epcm.free."""
        if page in self.users:
            self._tell(page)
        super().free(page)

    def _tell(self, page: int) -> None:
        for user, linear in self.users[page].items():
            user.dirty[linear] = None


class WatchedSpace(AddressSpace):
    """Page tables that mark a mapped page as dirty when its entry changes."""

    __slots__ = ("user",)

    def __init__(self, name: str, log: Log) -> None:
        super().__init__(name, log)
        self.user: Watcher | None = None

    def _tell(self, page: int) -> None:
        if self.user is not None and page in self.user.mapped:
            self.user.dirty[page] = None

    def set(self, address: int, pte: int) -> None:
        """As AddressSpace.set."""
        self._tell(address >> PAGE_SHIFT)
        super().set(address, pte)

    def unmap(self, address: int) -> int:
        """As AddressSpace.unmap."""
        self._tell(address >> PAGE_SHIFT)
        return super().unmap(address)

    def test_and_clear_accessed(self, address: int) -> bool:
        """As AddressSpace.test_and_clear_accessed."""
        self._tell(address >> PAGE_SHIFT)
        return super().test_and_clear_accessed(address)


WATCHED: Final = Hardware(NativeLp, WatchedEpcm, WatchedSpace)
