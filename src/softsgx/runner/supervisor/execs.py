"""exec in programs that are not traced.

It waits in a seccomp notification. The supervisor traces the thread from there until the new
program is prepared, unless somebody else traces it: then it waits for its first call (planted.py).
"""

from __future__ import annotations

import errno
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.errors import LoadError
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.notifications import Listener, Notification
from softsgx.runner.host.proc import alive
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.inserted.systrap import address
from softsgx.runner.process.families import tracer_of
from softsgx.runner.process.held import HeldThread
from softsgx.runner.process.kept_by_exec import KeptByExec
from softsgx.runner.say import say
from softsgx.runner.supervisor.inserting import begin, exec_failed, insert
from softsgx.runner.supervisor.planted import Debugged, Planted, prepared

if TYPE_CHECKING:
    from softsgx.runner.inserted.family import Family
    from softsgx.runner.process.tracee import Tracee
    from softsgx.runner.supervisor.known import Known

_OPTIONS: Final = p.PTRACE_O_TRACESYSGOOD | p.PTRACE_O_TRACEEXEC
_INTERRUPTED: Final = (errno.ENOENT, errno.ESRCH)  # also while it is given a descriptor


class _Begun(NamedTuple):
    """An exec of a process: the file of its new program, and the descriptors that it was given."""

    pid: int
    family: Family
    given: dict[int, int]


class Execs:
    """Follows threads that execute a program.

    `shared` are the memory files that every program gets; `meanwhile` serves others while one is
    waited for. The callbacks are the supervisor's, as of `Systrap`.
    """

    def __init__(
        self,
        known: Known,
        debugged: Debugged,
        ends: list[tuple[int, int]],
        shared: Sequence[int],
        meanwhile: Callable[[], None],
    ) -> None:
        self.gone: Callable[[Tracee], None]
        self.executed: Callable[[Tracee, int], None]
        self.prepare: Callable[[Tracee], None]
        self._known = known
        self._debugged = debugged
        self._ends = ends
        self._shared = shared
        self._meanwhile = meanwhile
        self.notes: deque[Notification] = deque()  # calls that wait
        # By thread: what one has been given whose call a signal has interrupted. It is made again.
        self._begun: dict[int, _Begun] = {}

    def forget(self, pid: int) -> None:
        """A process is gone."""
        for tid in [tid for tid, begun in self._begun.items() if begun.pid == pid]:
            self._known.records.drop(self._begun.pop(tid).family)

    def serve(self, listener: Listener, note: Notification, t: Tracee | None) -> None:
        """A thread waits at exec: let it, and if that succeeds, prepare the new program."""
        tid = note.tid
        if self._debugged.begins(self._known.held(tid), note):
            return
        if t is None or tracer_of(tid):
            listener.go_on(note)
            return
        if t.seccomp.traces(note.number, note.ip, note.args):
            listener.refuse(note, errno.ENOSYS)
            return
        records = self._known.records
        begun = self._begun.pop(tid, None)
        try:
            if begun is None:
                begun = _Begun(t.pid, records.new_family(), {})
            family, given = begun.family, begun.given
            for fd in (*self._shared, family.fd):
                if fd not in given:
                    given[fd] = listener.give(note, fd)
            p.HELD.pop(tid, None)
            p.request(p.PTRACE_SEIZE, tid, 0, _OPTIONS)
        except OSError as error:
            if begun is not None and error.errno in _INTERRUPTED and alive(tid):
                self._begun[tid] = begun
                return
            if begun is not None:
                records.drop(begun.family)
            if alive(tid):
                say(f"softsgx: run: process {t.pid}: exec cannot be followed: {error.strerror}\n")
                listener.refuse(note, errno.EPERM)
            return
        try:
            with suppress(FileNotFoundError):  # interrupted: as one that fails
                listener.go_on(note)
            with suppress(p.NoSuchTracee):  # the program is there already, as the thread `t.pid`
                p.request(p.PTRACE_INTERRUPT, tid)
            self._follow(t, given, family, note.ip)
        except p.GONE:
            return  # killed: its end comes next
        finally:
            family.close_file()
            if t.space.family is not family:
                records.drop(family)

    def _follow(self, t: Tracee, given: dict[int, int], family: Family, ip: int) -> None:
        """From the start of exec, called before `ip`, to the first instruction of the program."""
        held = self._known.held(t.tid)
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
                exec_failed(t, given, held is not None, ip)
                p.request(p.PTRACE_DETACH, tid)
                if held is not None:
                    p.HELD[t.tid] = held
                return
            p.request(p.PTRACE_CONT, tid, 0, number if not event else 0)
        signals = self._leave_program(t, tid, family)
        while True:  # the interrupt may come before the exit stop of execve
            p.request(p.PTRACE_SYSCALL, t.tid)
            if os.WSTOPSIG(t.wait()) == p.SYSCALL_STOP:
                break
        t.given = given
        try:
            self.prepare(t)
            new = insert(t, self._known.records, signals)
            begin(t, new)
            self._known.add(new)
        except LoadError as error:
            say(f"softsgx: run: {error}\n")
            os.kill(t.pid, signal.SIGKILL)
            p.request(p.PTRACE_DETACH, t.tid)
        t.given = {}

    def begun(self, listener: Listener, note: Notification) -> None:
        """brk(NULL): if it is the first call of a new program, nobody has prepared that yet."""
        records = self._known.records
        t = self._known.tracees.get(note.tid)
        if t is None or p.read_memory(note.tid, lay.SYSTRAP_CODE, 8) is not None:
            listener.go_on(note)
            return
        family = records.new_family()
        try:
            signals = self._leave_program(t, note.tid, family)
            planted = Planted(listener, note, self.notes, self._meanwhile)
            with prepared(t, planted, (*self._shared, family.fd)):
                self.prepare(t)
                held: HeldThread = insert(t, records, signals)
                held.set_long("ENTRY", planted.entry)
                planted.end(address("init"), held.address)
                self._known.add(held)
        finally:
            family.close_file()

    def _leave_program(self, t: Tracee, tid: int, family: Family) -> KeptByExec:
        """exec has succeeded: only this thread is left, as `tid`."""
        for other in [x for x in self._known.tracees.values() if x.pid == t.pid and x is not t]:
            self.gone(other)
        held = self._known.held(t.tid)
        signals = KeptByExec.of(held) if held is not None else KeptByExec()
        self._known.forget(t)
        self.executed(t, tid)
        t.space.family = family
        return signals
