"""An address space of supervised threads: what was mapped into it, and which sites were replaced.

An engine keeps its own data about an address space itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softsgx.linux.mm import VM_DONTCOPY
from softsgx.runner.process.hostmem import HostMemory
from softsgx.runner.process.world import LiveProcess, LiveUser, World, enclave_area

if TYPE_CHECKING:
    from softsgx.runner.inserted.family import Family


class Space:
    """One address space. `users` counts its threads; calls on the `traced` ranges stop."""

    def __init__(self, world: World, pid: int) -> None:
        self.world = world
        self.process = LiveProcess(world, pid)
        self.process.mm.exited = False
        self.users = 0
        self.sites: dict[int, str] = {}  # address -> "cpuid" or "enclu", patched in this space
        self.gate_ready = False
        self.filters = 0
        self.traced: list[tuple[int, int]] = []
        self.locks_new = False  # mlockall: new mappings are locked
        # Enclave areas that fork copied and Linux would not have: they must be unmapped before the
        # process runs.
        self.not_copied: list[tuple[int, int]] = []
        self.libraries: list[tuple[int, int]] = []  # code of the C library, start and end
        # By process: the last signal that it got, and the number of its SignalSent, 0 if none.
        self.delivered: dict[int, tuple[int, int]] = {}
        self.host: HostMemory | None = None
        self.family: Family | None = None  # its records, if its threads are not traced

    @property
    def mm(self) -> Any:
        """The model's address space."""
        return self.process.mm

    def attach_memory(self) -> HostMemory:
        """Open the real memory when it is first needed."""
        if self.host is None:
            mm = self.process.mm
            # Not the process's own number: its first thread may have ended.
            self.host = HostMemory(self.process.pid, lambda address: enclave_area(mm, address))
            mm.user = LiveUser(self.world, self.host)
            mm.space.host_pte = self.host.page_table_entry
        return self.host

    def mapped_code(self, start: int, end: int, library: bool) -> None:
        """A file of code was mapped, and has replaced what was there."""
        self.libraries = [
            part
            for low, high in self.libraries
            for part in ((low, min(high, start)), (max(low, end), high))
            if part[0] < part[1]
        ]
        if library:
            self.libraries.append((start, end))

    def in_library(self, rip: int) -> bool:
        """Whether an address is in code of the C library."""
        return any(start <= rip < end for start, end in self.libraries)

    def forked(self, pid: int, process: LiveProcess | None) -> Space:
        """The copy that fork made, for the child `pid`."""
        child = Space(self.world, pid)
        if process is not None:
            child.process = process
        child.sites = dict(self.sites)
        child.gate_ready = self.gate_ready
        child.filters = self.filters
        child.traced = list(self.traced)
        child.not_copied = [
            (vma.start, vma.end) for vma in self.mm.vmas if vma.advised & VM_DONTCOPY
        ]
        child.libraries = list(self.libraries)
        return child

    def close(self) -> None:
        """The last thread is gone."""
        if self.host is not None:
            self.host.close()
            self.host = None
