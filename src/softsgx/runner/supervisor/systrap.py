"""Programs that are not traced: what a stub in each process reports, and what else happens.

Calls that concern enclaves, and exceptions, are signals that the stub handles, or reports through
its record. exec (execs.py) and forked processes (forks.py) wait in a seccomp notification. The end
of a process is seen by a descriptor of it.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import CLONE_THREAD
from softsgx.runner.host.ended import wait_status
from softsgx.runner.host.notifications import Listener
from softsgx.runner.host.robust import mark_death
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.inserted.systrap_layout import RECORDS_MAX
from softsgx.runner.process.families import thread_group, thread_here, tid_here
from softsgx.runner.process.held import HeldThread
from softsgx.runner.process.own_filters import passing
from softsgx.runner.supervisor.execs import Execs
from softsgx.runner.supervisor.forks import Forks
from softsgx.runner.supervisor.known import Known
from softsgx.runner.supervisor.makers import abandoned, dead_threads, maker
from softsgx.runner.supervisor.planted import Debugged
from softsgx.runner.supervisor.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from softsgx.runner.inserted.records import Records
    from softsgx.runner.process.space import Space
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.process.world import World

# What a thread can report whose enclave call the emulator executes.
_WHILE_IT_WAITS: Final = (lay.KIND_SIGNAL, lay.KIND_INTERRUPT)
_SWEEP: Final = 64  # ends of processes between two looks for records of the dead


class Systrap:
    """Threads by their records, exec, and the ends of processes.

    The callbacks are the supervisor's: `stopped(t, status)` handles a stop or an end,
    `enclu(t, regs, rip)` executes an ENCLU, and those of `answers`.
    """

    def __init__(
        self,
        world: World,
        records: Records,
        tracees: dict[int, Tracee],
        ends: list[tuple[int, int]],
        shared: Sequence[int],
    ) -> None:
        self.world = world
        self.records = records
        self.tracees = tracees
        self.known = Known(records, tracees)
        self.threads = self.known.threads
        self.stopped: Callable[[Tracee, int], None]
        self.born: Callable[[Tracee, int, int, Space], Tracee]
        self.enclu: Callable[[Tracee, list[int], int], None]
        self._watcher: Watcher | None = None
        self._listener: Listener | None = None
        self._processes: dict[int, int] = {}  # descriptor of a process -> its pid
        self.debugged = Debugged(self.threads, tracees, self._report)
        records.awaited = self.debugged.awaited
        control = records.control
        files = (control.common_fd, control.doorbell_fd, *shared)
        self.execs = Execs(self.known, self.debugged, ends, files, self._meanwhile)
        self.forks = Forks(self.known, self._register, self._watch_process)
        self._dead: list[int] = []  # processes that had ended before they could be watched
        self._ended_processes = 0
        control.spin = 0  # an answer takes longer than any spinning that pays: docs/decisions.md
        control.set_word("SUPERVISOR", os.getpid())
        mark_death(control.address("OWNER"), threading.get_native_id())

    def answers(
        self,
        born: Callable[[Tracee, int, int, Space], Tracee],
        fork: Callable[[Tracee, Tracee], None],
        executed: Callable[[Tracee, int], None],
        prepare: Callable[[Tracee], None],
        gone: Callable[[Tracee], None],
    ) -> None:
        """Who serves what: `born(parent, pid, tid, space)` a new process or thread, `fork(parent,
        child)` copies the model of a process, `executed(t, tid)` leaves the former program of a
        thread, which is now `tid`, `prepare(t)` prepares the new one, and `gone(t)` leaves a thread
        whose process goes on."""
        self.born = self.forks.born = born
        self.forks.fork = fork
        self.execs.executed, self.execs.prepare, self.execs.gone = executed, prepare, gone

    def start(self, listener: int, first: int) -> None:
        """Begin to serve: the notifications of the filter, and the first process."""
        self._listener = Listener(listener)
        self._watcher = Watcher(self.records.doorbell)
        self._watcher.add(listener)
        self._watch_process(first)

    def _watch_process(self, pid: int) -> None:
        assert self._watcher is not None
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._dead.append(pid)
            return
        self._processes[fd] = pid
        self._watcher.add(fd)

    # What the watcher saw

    def rung(self) -> None:
        """Serve what the watcher has seen."""
        watcher = self._watcher
        if watcher is None:
            return
        while watcher.ready:
            fd = watcher.ready.popleft()
            if self._listener is not None and fd == self._listener.fd:
                self._receive(self._listener)
                watcher.again(fd)
            elif fd in self._processes:
                if self._listener is not None:
                    self._receive(self._listener)  # its child may have asked for something before
                self._ended(self._processes.pop(fd), fd)
                os.close(fd)
        while self._dead:
            self._ended(self._dead.pop(), -1)

    def _receive(self, listener: Listener) -> None:
        poll = select.poll()
        poll.register(listener.fd, select.POLLIN)
        while any(events & select.POLLIN for _, events in poll.poll(0)):
            with suppress(OSError):  # its thread has gone on for another reason
                self.execs.notes.append(listener.receive())
            self._notified(listener)

    def closed(self, space: Space) -> None:
        """Forget an address space."""
        if space.family is not None:
            self.records.drop(space.family)

    def _ended(self, pid: int, fd: int) -> None:
        """A process has ended: so have its threads, with its status."""
        self.forks.forget(pid)
        self.execs.forget(pid)
        self._ended_processes += 1
        if self._ended_processes % _SWEEP == 0:
            self._sweep()
        gone = [t for t in self.tracees.values() if t.pid == pid]
        gone.sort(key=lambda t: t.tid == pid)
        status = wait_status(pid, fd)
        if status is None:
            status = self._exit_code(gone) << 8
        for t in gone:
            self.stopped(t, status)

    @property
    def all_known(self) -> bool:
        """Whether there is nobody that has never reported, and lives on: nobody has our filter."""
        assert self._listener is not None
        poll = select.poll()
        poll.register(self._listener.fd, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def _sweep(self) -> None:
        """Free the records of threads that were killed before they reported anything."""
        for new in abandoned(self.records, self.threads):
            new.free()

    def _exit_code(self, threads: Sequence[Tracee]) -> int:
        """What one of them has passed to exit_group, if the stub served that; else 0."""
        helds = [self.known.held(t.tid) for t in threads]
        return max((held.word("EXITCODE") & 0xFF for held in helds if held is not None), default=0)

    # Reports

    def thread(self, record: int) -> Tracee | None:
        """The thread that has a record; None if it makes no sense."""
        held = self.threads.get(record) or self._register(record)
        return None if held is None else self.tracees.get(held.tid)

    def caller(self, record: int) -> Tracee | None:
        """The thread whose mailbox has a request; None if it cannot have made one."""
        t = self.thread(record)
        return None if t is None or self.threads[record].kind else t

    def reports(self) -> None:
        """Serve the new reports."""
        for record in self.records.control.take_reports():
            t = self.thread(record)
            if t is not None:
                with suppress(*p.GONE):  # killed meanwhile: its end comes next
                    self._report(t, self.threads[record])

    def _report(self, t: Tracee, held: HeldThread) -> None:
        status = held.taken()
        if t.mailbox is not None and held.kind not in _WHILE_IT_WAITS:
            raise held.senseless()
        if self.debugged.noted(t, held):
            return
        if held.kind == lay.KIND_NEW:
            t.drop_not_copied()
            held.go()
        elif held.kind == lay.KIND_ENDING and held.long("SYSCALL_NR") == nr.EXIT_GROUP:
            held.go()  # its process ends
        elif held.kind == lay.KIND_ENDING:
            self.known.drop(held)  # it frees its record itself, for the next thread at once
            held.go()
            if t.tid != t.pid:  # otherwise its process may go on without it
                self.stopped(t, 0)
        elif held.kind == lay.KIND_ENCLU_TRAP:
            regs = held.get_regs()
            regs[p.ORIG_RAX] = regs[p.RAX]
            self.enclu(t, regs, regs[p.RIP])
        elif status:
            self.stopped(t, status)
            if t.space.mm.vmas:
                self.records.control.set_word("HAS_ENCLAVE", 1)

    def later(self) -> bool:
        """Serve a stop that needs no report of the stub; False if there is none."""
        while self.records.later:
            held = self.threads.get(self.records.later.popleft())
            t = None if held is None else self.tracees.get(held.tid)
            if held is not None and t is not None and held.later:
                self.stopped(t, held.later.popleft())
                return True
        return False

    def _register(self, record: int, of_process: bool = False) -> HeldThread | None:
        """A thread reports for the first time: note whose it is. `of_process`: if it is not the
        first of a process."""
        if record // RECORDS_MAX not in self.records.families:
            return None
        new = HeldThread(self.records, record, 0, 0)
        thread = bool(new.long("CHILD_FLAGS") & CLONE_THREAD)
        try:
            return self._admit(new, thread) if thread or not of_process else None
        except p.GONE:  # killed already; `Watcher` tells its end
            return None

    def _admit(self, new: HeldThread, thread: bool) -> HeldThread | None:
        """A thread of a process that is known, or a process that shares the memory of one."""
        family, seen = new.family, new.word("TID")
        if thread:
            # Not by the thread that made it: that may have ended.
            pids = {t.pid for t in self.known.of(family)}
            new.tid = thread_here(seen, pids, self.tracees.keys()) or 0
            parent = maker(new, self.threads.get(new.maker), self.tracees) if new.tid else None
        else:
            parent = self._parent(new)
            new.tid = (tid_here(seen, parent.pid) or 0) if parent else 0
        if parent is None or not new.tid or new.tid in self.tracees:
            return None
        if parent.space.family is not family or not self.known.belongs(new.tid, family):
            return None  # the program has written there
        new.pid = parent.pid if thread else thread_group(new.tid)
        self.known.add(new)
        if parent.seccomp.confines:
            new.confine(passing(parent.seccomp))
        self.born(parent, new.pid, new.tid, parent.space)
        if not thread:
            self._watch_process(new.pid)
        return new

    def learn(self, pid: int) -> None:
        """Register the threads of a process that have never reported, and leave the dead ones."""
        for record in self._unknown(pid):
            self._register(record)
        for t in dead_threads(self.tracees.values(), pid):
            self.execs.gone(t)

    def _unknown(self, pid: int) -> Iterator[int]:
        """The records of threads that may be of a process, and have never reported."""
        spaces = {t.space for t in self.tracees.values() if t.pid == pid}
        for family in [space.family for space in spaces if space.family is not None]:
            for record in family.taken():
                if family.first + record not in self.threads:
                    yield family.first + record

    def _parent(self, new: HeldThread) -> Tracee | None:
        """The thread that has made a new process."""
        number = new.maker
        held = self.threads.get(number)
        if held is None and number not in (new.record, -1):
            held = self._register(number, of_process=True)
        return None if held is None else self.tracees.get(held.tid)

    def _notified(self, listener: Listener) -> None:
        """Serve the calls that wait."""
        notes = self.execs.notes
        while notes:
            note = notes.popleft()
            with _unless_gone():
                if note.number != nr.BRK:
                    self.execs.serve(listener, note, self._executing(note.tid))
                elif self.forks.asks(note):
                    self.forks.serve(listener, note)
                else:
                    self.execs.begun(listener, note)

    def _meanwhile(self) -> None:
        """What cannot wait while a program is prepared: a debugger may report, or fork."""
        self.reports()
        notes, listener = self.execs.notes, self._listener
        assert listener is not None
        for note in [note for note in notes if note.number == nr.BRK and self.forks.asks(note)]:
            notes.remove(note)
            with _unless_gone():
                self.forks.serve(listener, note)

    def _executing(self, tid: int) -> Tracee | None:
        """A thread that executes a program; it may never have reported."""
        if tid not in self.tracees:
            with suppress(OSError):
                for record in self._unknown(thread_group(tid)):
                    self._register(record)
                    if tid in self.tracees:
                        break
        return self.tracees.get(tid)


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Whoever waits for an answer may have gone on for another reason, or have been killed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EINPROGRESS):
            raise
