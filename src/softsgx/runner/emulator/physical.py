"""Physical addresses of one emulator: EPC at its own, and three ranges that only it has.

They lie above the EPC and above all linear addresses of programs: the emulator compares linear as
well as physical addresses with the range of the write hook.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

from softsgx.runner.emulator.blocks import address_of
from softsgx.runner.emulator.unicorn_api import UC_PROT_ALL, UC_PROT_EXEC, UC_PROT_READ
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.runner.emulator.unicorn_api import Uc
    from softsgx.runner.process.arena import ArenaMemory
    from softsgx.runner.process.hostmem import HostMemory

SHADOW: Final = 1 << 48  # copies of host pages: stores to them ask the write hook
BOOT: Final = 1 << 49
ABORT: Final = 1 << 50  # a page of ones, never written
DROPPED: Final = ABORT + PAGE_SIZE  # what is stored to the abort page; never read
ASKED: Final = (SHADOW, ABORT + PAGE_SIZE - 1)
"""First and last address of the write hook."""

_BOOT_PAGES: Final = 3


class Physical:
    """What is mapped there; `boot` is the memory at BOOT.

    If `asked`, every load and store in EPC or in copies of host pages asks the hooks.
    """

    def __init__(self, uc: Uc, memory: ArenaMemory, host: HostMemory, asked: bool = False) -> None:
        self.boot = mmap.mmap(-1, _BOOT_PAGES * PAGE_SIZE)
        self._ones = mmap.mmap(-1, PAGE_SIZE)
        self._ones[:] = b"\xff" * PAGE_SIZE
        size, rights = memory.count * PAGE_SIZE, UC_PROT_EXEC if asked else UC_PROT_ALL
        uc.map_memory(memory.first << PAGE_SHIFT, size, memory.address, rights)
        rights = 0 if asked else UC_PROT_READ
        uc.map_memory(SHADOW, host.shadow_size, host.shadow_address, rights)
        uc.map_memory(BOOT, _BOOT_PAGES * PAGE_SIZE, address_of(self.boot))
        uc.map_memory(ABORT, PAGE_SIZE, address_of(self._ones), UC_PROT_READ)
        self._dropped = mmap.mmap(-1, PAGE_SIZE)
        uc.map_memory(DROPPED, PAGE_SIZE, address_of(self._dropped))
