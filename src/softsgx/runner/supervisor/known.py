"""The threads of programs that are not traced, as far as the supervisor knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.runner.host import ptrace as p
from softsgx.runner.host.proc import status_numbers

if TYPE_CHECKING:
    from softsgx.runner.inserted.family import Family
    from softsgx.runner.inserted.records import Records
    from softsgx.runner.process.held import HeldThread
    from softsgx.runner.process.tracee import Tracee


class Known:
    """`threads` by their record, `tracees` by their number."""

    def __init__(self, records: Records, tracees: dict[int, Tracee]) -> None:
        self.records = records
        self.tracees = tracees
        self.threads: dict[int, HeldThread] = {}

    def held(self, tid: int) -> HeldThread | None:
        """What a thread has reported."""
        record = self.records.control.find(tid)
        return None if record is None else self.threads.get(record)

    def tracee(self, record: int) -> Tracee | None:
        """The thread that has a record."""
        held = self.threads.get(record)
        return None if held is None else self.tracees.get(held.tid)

    def of(self, family: Family) -> list[Tracee]:
        """The threads of an address space."""
        return [t for t in self.tracees.values() if t.space.family is family]

    def belongs(self, tid: int, family: Family) -> bool:
        """Whether a thread that says so has the memory of an address space, at least up to now.

        Of a process that has forbidden to read it (PR_SET_DUMPABLE), who its parent is must do.
        """
        mapped = family.is_mapped_in(tid)
        if mapped is not None:
            return mapped
        status = status_numbers(tid)
        related = {*status.get("Tgid", ()), *status.get("PPid", ())}
        return any(t.pid in related for t in self.of(family))

    def add(self, held: HeldThread) -> None:
        """From now on requests of `host.ptrace` about the thread go to its record."""
        self.threads[held.record] = held
        self.records.control.register(held.tid, held.record)
        p.HELD[held.tid] = held
        held.family.registered(held.local)

    def drop(self, held: HeldThread) -> None:
        """A thread frees its record itself, or has lost it."""
        p.HELD.pop(held.tid, None)
        self.threads.pop(held.record, None)
        self.records.control.remove(held.tid)

    def forget(self, t: Tracee) -> None:
        """A thread is gone: free its record."""
        held = self.held(t.tid)
        if held is not None:
            self.drop(held)
            held.free()
