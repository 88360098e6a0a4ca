"""Programs that are not traced: what a stub in each process reports, and what else happens.

Calls that concern enclaves, and exceptions, are signals that the stub handles, or reports through
its record. exec waits in a seccomp notification until the supervisor traces the thread, which it
does only until the new program is prepared. The end of a process is seen by a descriptor of it.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from softsgx.runner.errors import LoadError
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import (
    CLONE_THREAD,
    CLONE_VM,
)
from softsgx.runner.host.ended import wait_status
from softsgx.runner.host.notifications import Listener, Notification
from softsgx.runner.host.robust import mark_death
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.inserted.systrap import address
from softsgx.runner.process.families import thread_group, thread_here, tid_here, tracer_of
from softsgx.runner.process.held import HeldThread, KeptByExec
from softsgx.runner.process.own_filters import passing
from softsgx.runner.process.tracee import Tracee
from softsgx.runner.say import say
from softsgx.runner.supervisor.inserting import begin, exec_failed, insert
from softsgx.runner.supervisor.makers import abandoned, dead_threads, maker
from softsgx.runner.supervisor.planted import Debugged, Planted, prepared
from softsgx.runner.supervisor.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softsgx.runner.inserted.records import Records
    from softsgx.runner.process.space import Space
    from softsgx.runner.process.world import World

_SWEEP: Final = 64  # ends of processes between two looks for records of the dead
_OPTIONS: Final = p.PTRACE_O_TRACESYSGOOD | p.PTRACE_O_TRACEEXEC


class Systrap:
    """Threads by their records, exec, and the ends of processes.

    The callbacks are the supervisor's: `stopped(t, status)` handles a stop or an end,
    `born(parent, pid, tid, space)` a new process or thread, `fork(parent, child)` copies the model
    of a process. `executed(t, tid)` leaves the former program of a thread, which is now `tid`;
    `prepare(t)` prepares the new one. `gone(t)` leaves a thread whose process goes on.
    `enclu(t, regs, rip)` executes an ENCLU.
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
        self.threads: dict[int, HeldThread] = {}  # by record
        self.stopped: Callable[[Tracee, int], None]
        self.gone: Callable[[Tracee], None]
        self.born: Callable[[Tracee, int, int, Space], Tracee]
        self.fork: Callable[[Tracee, Tracee], None]
        self.executed: Callable[[Tracee, int], None]
        self.prepare: Callable[[Tracee], None]
        self.enclu: Callable[[Tracee, list[int], int], None]
        self._ends = ends
        self._shared = (*shared, records.fd)
        self._watcher: Watcher | None = None
        self._listener: Listener | None = None
        self._processes: dict[int, int] = {}  # descriptor of a process -> its pid
        self._notes: deque[Notification] = deque()  # calls that wait
        self.debugged = Debugged(records, self.threads, tracees, self._report)
        records.awaited = self.debugged.awaited
        self._dead: list[int] = []  # processes that had ended before they could be watched
        self._ended_processes = 0
        records.control.spin = 200
        memory = records.control.memory
        at = lay.SHARED_AT["SUPERVISOR"]
        memory[at : at + 8] = os.getpid().to_bytes(8, "little")
        mark_death(records.address("OWNER"), threading.get_native_id())

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
                with suppress(OSError):  # its thread has gone on for another reason
                    self._notes.append(self._listener.receive())
                self._notified(self._listener)
                watcher.again(fd)
            elif fd in self._processes:
                self._ended(self._processes.pop(fd), fd)
                os.close(fd)
        while self._dead:
            self._ended(self._dead.pop(), -1)

    def _ended(self, pid: int, fd: int) -> None:
        """A process has ended: so have its threads, with its status."""
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
        """Whether no record belongs to a thread that has never reported."""
        return all(record in self.threads for record in self.records.taken())

    def _sweep(self) -> None:
        """Free the records of threads that were killed before they reported anything."""
        for new in abandoned(self.records, self.threads):
            self.records.put_tables(new.long("TABLE"), new.long("PROCESS"))
            self.records.give_record(new.record)

    def _exit_code(self, threads: Sequence[Tracee]) -> int:
        """What one of them has passed to exit_group, if the stub served that; else 0."""
        helds = [self._held(t.tid) for t in threads]
        return max((held.word("EXITCODE") & 0xFF for held in helds if held is not None), default=0)

    def forget(self, t: Tracee) -> None:
        """A thread is gone: free its record."""
        held = self._held(t.tid)
        if held is not None:
            self._drop(t, held)
            self.records.put_tables(held.long("TABLE"), held.long("PROCESS"))
            self.records.give_record(held.record)

    def _drop(self, t: Tracee, held: HeldThread) -> None:
        p.HELD.pop(t.tid, None)
        self.threads.pop(held.record, None)
        self.records.control.remove(t.tid)

    # Reports

    def thread(self, record: int) -> Tracee | None:
        """The thread that has a record; None if it makes no sense."""
        held = self.threads.get(record) or self._register(record)
        return None if held is None else self.tracees.get(held.tid)

    def reports(self) -> None:
        """Serve the new reports."""
        for record in self.records.control.take_reports():
            t = self.thread(record)
            if t is not None:
                with suppress(*p.GONE):  # killed meanwhile: its end comes next
                    self._report(t, self.threads[record])

    def _report(self, t: Tracee, held: HeldThread) -> None:
        status = held.taken()
        if self.debugged.noted(t, held):
            return
        if held.kind == lay.KIND_NEW:
            held.go()
        elif held.kind == lay.KIND_ENDING and held.long("SYSCALL_NR") == nr.EXIT_GROUP:
            held.go()  # its process ends
        elif held.kind == lay.KIND_ENDING:
            self._drop(t, held)  # it frees its record itself, for the next thread at once
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

    def _register(self, record: int) -> HeldThread | None:
        """A thread reports for the first time: note whose it is."""
        new = HeldThread(self.records, record, 0, 0)
        try:
            return self._admit(new)
        except p.GONE:  # killed already; `Watcher` tells its end
            return None

    def _admit(self, new: HeldThread) -> HeldThread | None:
        flags = new.long("CHILD_FLAGS")
        thread = bool(flags & CLONE_THREAD)
        if thread:
            # Not by the thread that made it: that may have ended.
            pids = {t.pid for t in self.tracees.values()}
            new.tid = thread_here(new.word("TID"), pids, self.tracees.keys()) or 0
            made_by = self.threads.get(new.word("PARENT"))
            parent = maker(new, made_by, self.tracees) if new.tid else None
        else:
            parent = self._parent(new)
            new.tid = (tid_here(new.word("TID"), parent.pid) or 0) if parent else 0
        if parent is None or not new.tid:
            return None
        new.pid = parent.pid if thread else thread_group(new.tid)
        self._add(new)
        if parent.seccomp.confines:
            new.confine(passing(parent.seccomp))
        shares = thread or bool(flags & CLONE_VM)
        space = parent.space if shares else parent.space.forked(new.tid, None)
        t = self.born(parent, new.pid, new.tid, space)
        if not thread:
            self._watch_process(new.pid)
        if not shares and parent.space.mm.vmas:
            new.taken()
            self.fork(parent, t)
            t.drop_not_copied()
        return new

    def learn(self, pid: int) -> None:
        """Register the threads of a process that have never reported, and leave the dead ones."""
        for record in self.records.taken():
            if record not in self.threads:
                self._register(record)
        for t in dead_threads(self.tracees.values(), pid):
            self.gone(t)

    def _parent(self, new: HeldThread) -> Tracee | None:
        """The thread that has made a new process."""
        number = new.word("PARENT")
        held = self.threads.get(number) or (
            self._register(number) if number != new.record else None
        )
        return None if held is None else self.tracees.get(held.tid)

    def _add(self, held: HeldThread) -> None:
        self.threads[held.record] = held
        self.records.control.register(held.tid, held.record)
        p.HELD[held.tid] = held
        self.records.registered(held.record)

    # exec

    def _notified(self, listener: Listener) -> None:
        while self._notes:
            note = self._notes.popleft()
            with suppress(OSError):  # its thread has gone on for another reason
                (self._begun if note.number == nr.BRK else self._exec)(listener, note)

    def _exec(self, listener: Listener, note: Notification) -> None:
        """A thread waits at exec: let it, and if that succeeds, prepare the new program."""
        tid = note.tid
        t = self.tracees.get(tid) or self._unknown(tid)
        if self.debugged.begins(self._held(tid), note):
            return
        if t is None or tracer_of(tid):
            listener.go_on(note)
            return
        if t.seccomp.traces(note.number, note.ip, note.args):
            listener.refuse(note, errno.ENOSYS)
            return
        try:
            given = {fd: listener.give(note, fd) for fd in self._shared}
            p.HELD.pop(tid, None)
            p.request(p.PTRACE_SEIZE, tid, 0, _OPTIONS)
        except OSError as error:
            say(f"softsgx: run: process {t.pid}: exec cannot be followed: {error.strerror}\n")
            listener.refuse(note, errno.EPERM)
            return
        held = self._held(tid)
        listener.go_on(note)
        try:
            with suppress(p.NoSuchTracee):  # the program is there already, as the thread `t.pid`
                p.request(p.PTRACE_INTERRUPT, tid)
            self._follow(t, held, given)
        except p.GONE:
            return  # killed: its end comes next

    def _unknown(self, tid: int) -> Tracee | None:
        """A thread that has never reported."""
        for record in self.records.taken():
            if record not in self.threads and self._register(record) and tid in self.tracees:
                return self.tracees[tid]
        return None

    def _held(self, tid: int) -> HeldThread | None:
        record = self.records.control.find(tid)
        return None if record is None else self.threads.get(record)

    def _follow(self, t: Tracee, held: HeldThread | None, given: dict[int, int]) -> None:
        """From the start of exec to the first instruction of the new program."""
        while True:
            tid, status = os.waitpid(-1, p.WALL)
            if not os.WIFSTOPPED(status):
                self._ends.append((tid, status))
                if tid in (t.tid, t.pid):
                    return
                continue
            event, number = status >> 16, os.WSTOPSIG(status)
            if event == p.EVENT_EXEC:
                break
            if event == p.EVENT_STOP and tid == t.tid:  # exec has failed
                exec_failed(t, given, held is not None)
                p.request(p.PTRACE_DETACH, tid)
                if held is not None:
                    p.HELD[t.tid] = held
                return
            p.request(p.PTRACE_CONT, tid, 0, number if not event else 0)
        signals = self._leave_program(t, tid)
        while True:  # the interrupt may come before the exit stop of execve
            p.request(p.PTRACE_SYSCALL, t.tid)
            if os.WSTOPSIG(t.wait()) == p.SYSCALL_STOP:
                break
        t.given = given
        try:
            self.prepare(t)
            self._insert(t, signals)
        except LoadError as error:
            say(f"softsgx: run: {error}\n")
            os.kill(t.pid, signal.SIGKILL)
            p.request(p.PTRACE_DETACH, t.tid)
        t.given = {}

    def _insert(self, t: Tracee, signals: KeptByExec) -> None:
        """Let the stub begin before the program."""
        held = insert(t, self.records, signals)
        begin(t, held)
        self._add(held)

    def _begun(self, listener: Listener, note: Notification) -> None:
        """brk(NULL): if it is the first call of a new program, nobody has prepared that yet."""
        t = self.tracees.get(note.tid)
        if t is None or p.read_memory(note.tid, lay.SYSTRAP_CODE, 8) is not None:
            listener.go_on(note)
            return
        signals = self._leave_program(t, note.tid)
        with prepared(
            t, Planted(listener, note, self._notes, self.reports), self._shared
        ) as planted:
            self.prepare(t)
            held = insert(t, self.records, signals)
            held.set_long("ENTRY", planted.entry)
            planted.end(address("init"), held.address)
            self._add(held)

    def _leave_program(self, t: Tracee, tid: int) -> KeptByExec:
        """exec has succeeded: only this thread is left, as `tid`."""
        for other in [x for x in self.tracees.values() if x.pid == t.pid and x is not t]:
            self.gone(other)
        held = self._held(t.tid)
        signals = held.kept_by_exec() if held is not None else KeptByExec()
        self.forget(t)
        self.executed(t, tid)
        return signals
