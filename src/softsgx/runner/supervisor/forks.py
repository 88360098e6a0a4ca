"""Processes that fork: each goes on in a memory file of its own.

A forked process begins in the stub, with its maker's file mapped, upon the stack in its record
there, all signals blocked. Before anything of the program runs it makes a call that waits in a
seccomp notification (`moved` in systrap.S). The supervisor copies record, stack and table to the
same places in a new file, and answers with a descriptor of that file, which the process maps.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from softsgx.runner.host.notifications import Listener, Notification
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.process.held import HeldThread
from softsgx.runner.process.own_filters import passing
from softsgx.runner.say import say

if TYPE_CHECKING:
    from softsgx.runner.inserted.family import Family
    from softsgx.runner.process.space import Space
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.supervisor.known import Known

_SENSELESS: Final = "its records make no sense"


class _Refused(Exception):
    """The process cannot get a file: why."""


class Forks:
    """Answers the calls of forked processes.

    `register(record)` finds the thread of a record that has never reported; `watch(pid)` has the
    end of a process told, and raises OSError for a thread that is not the first of one; `born` and
    `fork` are the supervisor's, as of `Systrap`.
    """

    def __init__(
        self,
        known: Known,
        register: Callable[[int], HeldThread | None],
        watch: Callable[[int], None],
    ) -> None:
        self.born: Callable[[Tracee, int, int, Space], Tracee]
        self.fork: Callable[[Tracee, Tracee], None]
        self._known = known
        self._register = register
        self._watch = watch
        self._given: dict[int, int] = {}  # process that still waits -> its descriptor

    @staticmethod
    def asks(note: Notification) -> bool:
        """Whether it is such a call."""
        return note.args[0] == lay.FORKED_CALL

    def serve(self, listener: Listener, note: Notification) -> None:
        """Answer. OSError if it does not wait any more: it was killed, or asks again."""
        fd = self._given.get(note.tid)
        if fd is None:
            try:
                fd = self._given[note.tid] = self._move(listener, note)
            except _Refused as refused:
                say(
                    f"softsgx: run: process {note.tid} cannot go on after fork: {refused}; killed\n"
                )
                listener.refuse(note, errno.EPERM)  # it kills itself
                return
        listener.answer(note, fd)
        del self._given[note.tid]

    def forget(self, pid: int) -> None:
        """A process is gone."""
        self._given.pop(pid, None)

    def _move(self, listener: Listener, note: Notification) -> int:
        """Make its file and give it to it; its descriptor there."""
        _, number, address, stack, serial, _ = note.args
        records = self._known.records
        source = records.families.get(number)
        record = (address - lay.RECORDS) // lay.RECORD_STRIDE
        if source is None or not 0 <= record < lay.RECORDS_MAX:
            raise _Refused(_SENSELESS)
        if note.tid in self._known.tracees or not self._known.belongs(note.tid, source):
            raise _Refused(_SENSELESS)
        try:
            family = records.new_family()
        except OSError as error:
            raise _Refused(f"no memory file: {error.strerror}") from None
        try:
            _copy(source, family, record, stack - source.address(record))
            fd = _give(listener, note, family.fd)
            self._admit(note.tid, source, family, record)
        except BaseException:
            records.drop(family)
            raise
        family.close_file()
        source.registered(record, serial & 0xFFFFFFFF)
        return fd

    def _admit(self, tid: int, source: Family, family: Family, record: int) -> None:
        """From now on the process is known; it has one thread."""
        new = HeldThread(self._known.records, family.first + record, tid, tid)
        parent = self._parent(source, new.maker - family.first + source.first)
        if parent is None:
            raise _Refused("what has made it was killed")
        try:
            self._watch(tid)
        except OSError as error:  # EINVAL: a thread of another process
            raise _Refused(f"its end cannot be seen: {error.strerror}") from None
        self._known.add(new)
        if parent.seccomp.confines:
            new.confine(passing(parent.seccomp))
        t = self.born(parent, tid, tid, parent.space.forked(tid, None))
        t.space.family = family
        if parent.space.mm.vmas:
            self.fork(parent, t)
        new.set_word("KNOWN", not t.space.not_copied)

    def _parent(self, source: Family, record: int) -> Tracee | None:
        """The thread that has made it, or any other of the same address space."""
        known = self._known
        if record >= 0 and record not in known.threads:
            self._register(record)
        t = known.tracee(record)
        if t is not None and t.space.family is source:
            return t
        return next(iter(known.of(source)), None)


def _copy(source: Family, family: Family, record: int, stack: int) -> None:
    """Record and stack of the only thread of a new process, and the table that it has for itself.

    `stack` is the offset in the record from which its stack is in use.
    """
    head = lay.RECORD_AT["STACK"]
    if not head <= stack <= lay.RECORD_STRIDE:
        raise _Refused(_SENSELESS)
    here, there = source.record(record), family.record(record)
    there[:head] = here[:head]
    there[stack:] = here[stack:]
    at = lay.RECORD_AT["TABLE"]
    address = int.from_bytes(there[at : at + 8], "little")
    table, own = source.table(address), family.table(address)
    if table is None or own is None:
        raise _Refused(_SENSELESS)
    own[:] = table
    own[: lay.TABLE_AT["CONFINED"]] = (1).to_bytes(lay.TABLE_AT["CONFINED"], "little")
    at = lay.RECORD_AT["PROCESS"]
    there[at : at + 8] = address.to_bytes(8, "little")
    family.begin(record)


def _give(listener: Listener, note: Notification, fd: int) -> int:
    try:
        return listener.give(note, fd, os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    try:
        with _one_file_more(note.tid):
            return listener.give(note, fd, os.O_CLOEXEC)
    except PermissionError:
        raise _Refused("it has no descriptor left") from None
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise _Refused("it has no descriptor left") from None


@contextmanager
def _one_file_more(pid: int) -> Iterator[None]:
    """Meanwhile a process may open files up to its hard limit, or if it is there, one more."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    more = hard if soft != hard else hard + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (more, max(more, hard)))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
