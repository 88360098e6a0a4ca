"""The supervisor: starts a program, follows its threads, and passes on their stops.

One thread does everything: it waits for stops and requests, drives the model, and emulates.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from softsgx.linux import syscalls
from softsgx.runner.calls.cpu_timer_calls import hide_sender
from softsgx.runner.calls.table import Calls
from softsgx.runner.errors import LoadError, RunnerError
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.front import ToFront
from softsgx.runner.inserted.box import IDLE
from softsgx.runner.inserted.doorbell import Doorbell
from softsgx.runner.inserted.mailboxes import Mailboxes
from softsgx.runner.inserted.records import AnyMailboxes, Records
from softsgx.runner.inserted.stub import INT80_DONE
from softsgx.runner.options import UNICORN
from softsgx.runner.process import call_filters, forced
from softsgx.runner.process.families import shares_memory, thread_group
from softsgx.runner.process.process_events import emit_end, emit_exec, emit_fork, note_delivered
from softsgx.runner.process.signals import Due, DueSignals, complete_frame, frame_told
from softsgx.runner.process.space import Space
from softsgx.runner.process.tracee import Tracee
from softsgx.runner.process.world import LiveProcess, World
from softsgx.runner.say import say
from softsgx.runner.supervisor import engines
from softsgx.runner.supervisor.child import First
from softsgx.runner.supervisor.early import Early, orphans
from softsgx.runner.supervisor.inside_stub import InsertedCode
from softsgx.runner.supervisor.loading import Loader
from softsgx.runner.traps import ud2
from softsgx.runner.traps.abort_page import AbortPage
from softsgx.runner.traps.host_traps import HostTraps, end_faulting
from softsgx.runner.ways import WAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softsgx.runner.host.inherited import Inherited
    from softsgx.runner.supervisor.systrap import Systrap

_STOPPING: Final = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


class Supervisor:
    """Runs one program and its descendants."""

    def __init__(self, world: World, loader: Loader, engine: str = UNICORN) -> None:
        self.world = world
        self.mailboxes: AnyMailboxes
        if WAYS.traced:
            self.mailboxes = loader.mailboxes = Mailboxes()
        else:
            self.mailboxes = Records()
        self.doorbell = Doorbell(self.mailboxes)
        self.loader = loader
        self.abort_page = AbortPage(world)
        # Threads that ended while one of their stops was awaited, with their wait status.
        self._ends: list[tuple[int, int]] = []
        self.engine = engines.build(
            engine,
            world,
            self.mailboxes,
            self.doorbell,
            loader,
            self.abort_page,
            self._ends,
        )
        self.traps = HostTraps(loader.policy, loader.traps, self.enclu)
        self.inserted = InsertedCode(self.engine, self.mailboxes, loader.vdso, self.enclu)
        self.tracees: dict[int, Tracee] = {}
        self.calls = Calls(
            world,
            self.doorbell,
            self.abort_page,
            self.tracees,
            policy=loader.policy,
            patch=loader.patch,
            others=self.traps.handlers(),
            in_process=self.engine.in_process,
        )
        self.engine.worked = self.calls.cpu_time.worked
        self.calls.served = self.engine.served
        self._early = Early()
        self._threaded: set[int] = set()  # processes that have had more than one thread
        self.first = 0
        self.exit_status: int | None = None
        self.systrap = self._untraced() if isinstance(self.mailboxes, Records) else None
        self._terminated = False  # a signal of ENDING came
        # What waitpid is to tell of children that are not traced.
        self._job_control = 0 if self.systrap is None else os.WUNTRACED | os.WCONTINUED
        self.started = False  # the program has been prepared
        self._unprepared = ""  # why it could not be
        self._first: First | None = None
        self.front = ToFront()
        self.left_behind: Callable[[int], None] | None = None  # called once, at the end of first

    def _untraced(self) -> Systrap:
        from softsgx.runner.supervisor.systrap import Systrap

        assert isinstance(self.mailboxes, Records)
        files = []
        if self.loader.native is not None:
            files = [self.loader.native.memory.fd]
            self.mailboxes.control.set_word("HAS_SLOTS", 1)
        systrap = Systrap(self.world, self.mailboxes, self.tracees, self._ends, files)
        self.mailboxes.control.aep = self.loader.vdso.enclu
        systrap.stopped = self._stop_or_end
        self.calls.seccomp.learn = systrap.learn
        systrap.debugged.allowed = self.calls.seccomp.allowed
        systrap.answers(self._born, self._fork_model, self._new_program, self._executed, self._lost)
        systrap.enclu = self.enclu
        return systrap

    # Starting

    def start(self, path: str, argv: Sequence[str], inherited: Inherited) -> None:
        """Fork, trace, install the filter, execute. RunnerError if ptrace is refused."""
        self.doorbell.install()
        if isinstance(self.mailboxes, Records):
            self.front.keep(self.mailboxes.control.common_fd)
        fprog = call_filters.base_filter(os.getpid(), WAYS.filter_by_prctl)
        self._first = First(path, argv, inherited, fprog, self.front.place)
        self._first.go()
        tid = self._first.tid
        self.first = tid
        space = Space(self.world, tid)
        self.tracees[tid] = Tracee(self.world, tid, tid, space, self._ends)
        self.tracees[tid].seccomp = self._first.seccomp
        if self.systrap is not None:
            self.systrap.start(self._first.listener, tid)

    def run(self) -> int:
        """Serve until every process is gone, and return the wait status of the first.

        A signal of ENDING to the supervisor kills them. RunnerError if the program could not be
        executed.
        """
        doorbell, engine, systrap = self.doorbell, self.engine, self.systrap
        take = self.mailboxes.control.take
        while self.tracees:
            doorbell.look()
            if doorbell.signalled() or self._ends or self._terminated:
                self._signalled()
            if systrap is not None:
                systrap.rung()
                systrap.reports()
            if self.exit_status is not None:
                self._leave_behind()
            for mailbox in take():
                self._request(mailbox)
            if systrap is not None and systrap.later():
                continue
            try:
                if engine.turn():
                    continue
            except p.GONE:
                continue  # killed while it was inside; its exit comes next
            if self.tracees:
                doorbell.wait(self.mailboxes.wait_s)
        if systrap is None or systrap.all_known:
            self.front.over()
        assert self.exit_status is not None
        assert self._first is not None
        self._first.check()
        if self._unprepared:
            raise RunnerError("the program cannot be prepared", self._unprepared)
        return self.exit_status

    def _signalled(self) -> None:
        """A signal came to the supervisor, or there is more to do because of an earlier one."""
        doorbell = self.doorbell
        self._terminated = doorbell.terminated != 0
        if self._terminated:
            self.kill()  # each time: there may be new ones
        if doorbell.stopped() or self._ends:
            self._drain()
        self.engine.rung()
        self.calls.cpu_time.timers.rung()

    def _leave_behind(self) -> None:
        """Tell once that the first process has ended, and others go on."""
        assert self.exit_status is not None
        if self.tracees and self.left_behind is not None:
            self.left_behind(self.exit_status)
            self.left_behind = None

    def kill(self) -> None:
        """End every process; the caller goes on with `run`."""
        for pid in {t.pid for t in self.tracees.values()}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def end(self) -> None:
        """End every process and wait until all are gone; works in any state of this object."""
        self.kill()
        while True:
            try:
                tid, status = os.waitpid(-1, p.WALL)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                with suppress(OSError):
                    os.kill(tid, signal.SIGKILL)  # one that was not known yet
                    p.request(p.PTRACE_CONT, tid)

    # Events

    def _drain(self) -> None:
        while self.tracees:
            try:
                if self._ends:
                    tid, status = self._ends.pop()
                else:
                    tid, status = os.waitpid(-1, p.WALL | os.WNOHANG | self._job_control)
            except ChildProcessError:
                if self.systrap is not None:
                    return  # none of them is a child of this process
                for orphan in list(self.tracees.values()):
                    self._gone(orphan)
                return
            if tid == 0:
                return
            if self._job_control and tid == self.first and self._stopped_untraced(status):
                continue
            t = self.tracees.get(tid)
            if t is None:
                self._early.keep(tid, status)
                continue
            try:
                self._event(t, status)
            except p.GONE:
                continue  # killed meanwhile; its exit comes next

    def _stop_or_end(self, t: Tracee, status: int) -> None:
        try:
            self._event(t, status)
        except p.GONE:
            return  # killed meanwhile; its end comes next

    def _stopped_untraced(self, status: int) -> bool:
        """Whether it tells that the first process, which is not traced, has stopped or goes on."""
        if os.WIFCONTINUED(status):
            self.front.continued()
        elif os.WIFSTOPPED(status) and not status >> 16:
            self.front.stopped(os.WSTOPSIG(status))
        else:
            return False
        return True

    def _event(self, t: Tracee, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self.engine.settle()
            if t.tid == self.first:
                self.exit_status = status
            emit_end(t, status)
            if os.WIFSIGNALED(status) or t.pid in self._threaded:
                self._adopt(t)
            self._gone(t)
            return
        number, event = os.WSTOPSIG(status), status >> 16
        due = t.due.take(number) if not event else None
        if self.engine.stopped(t, number, event):
            return
        if event == p.EVENT_SECCOMP:
            self._seccomp(t)
            return
        if number == signal.SIGTRAP and t.frame is not None and not event:
            complete_frame(t.tid, t.frame)
            t.frame = None
            p.request(p.PTRACE_CONT, t.tid)
            return
        if due is None:
            self.engine.settle()  # a signal that was sent to a thread outside concerns no enclave
        if event in (p.EVENT_FORK, p.EVENT_VFORK, p.EVENT_CLONE):
            self._child_of(t, p.event_message(t.tid))
            p.request(p.PTRACE_CONT, t.tid)
        elif event == p.EVENT_EXEC:
            self._exec(t)
        elif event == p.EVENT_STOP:
            self._stopped(t, number)
        elif number == p.SYSCALL_STOP:
            at_exit, t.at_exit = t.at_exit, None
            try:
                if at_exit is not None:
                    at_exit(t)
            except LoadError as error:
                if self.started:
                    say(f"softsgx: run: {error}\n")
                else:
                    self._unprepared = str(error)
                os.kill(t.pid, signal.SIGKILL)
                return
            p.request(p.PTRACE_CONT, t.tid)
        else:
            t.frame = None
            self._signal(t, number, due)

    def _stopped(self, t: Tracee, number: int) -> None:
        if t.forced is not None:
            self.engine.threads.force_signal(t)
        elif number in _STOPPING and not t.starting:
            if t.tid == self.first and self.started:
                self.front.stopped(number)
            p.request(p.PTRACE_LISTEN, t.tid)
        else:
            t.starting = False
            if t.tid == self.first:
                self.front.continued()
            t.drop_not_copied()
            self.engine.on_the_way(t, p.get_regs(t.tid))
            p.request(p.PTRACE_CONT, t.tid)

    def _signal(self, t: Tracee, number: int, due: Due | None) -> None:
        """At a signal-delivery stop. The handler must not see the thread in the inserted code."""
        if self._served_in_place(t, number) if due is None else self.traps.serve(t, number, due):
            return
        if number == signal.SIGSEGV and due is None:
            refused = self.abort_page.access(t)
            if refused is None:
                return
            number, due = refused
        self.inserted.leave(t)
        note_delivered(t, number, due)
        forced.drop_if_reset(t, number)
        if due is None:
            hide_sender(t, number)
        if due is None or not due.changes_frame or frame_told(t.tid, due):
            p.request(p.PTRACE_CONT, t.tid, 0, number)
            return
        # Step to the first instruction of the handler, where its frame can be completed.
        t.frame = due
        p.request(p.PTRACE_SINGLESTEP, t.tid, 0, number)

    def _served_in_place(self, t: Tracee, number: int) -> bool:
        """Whether the signal came from an instruction that has now been served."""
        return (
            ud2.served(self.traps, t, number, self.loader.vdso.enclu)
            or self.traps.serve(t, number)
            or self.inserted.no_stack(t, number)
        )

    # ENCLU and CPUID of the program

    def _request(self, mailbox: int) -> None:
        if self.systrap is not None:
            t = self.systrap.caller(mailbox)
        else:
            t = self.tracees.get(self.mailboxes.control.tid(mailbox))
        if t is None or not self.engine.waits(t):
            self.mailboxes.control.set_state(mailbox, IDLE)
            return
        try:
            self.engine.request(t, mailbox)
        except p.GONE:
            return

    def _seccomp(self, t: Tracee) -> None:
        regs = p.get_regs(t.tid)
        rip = regs[p.RIP]
        site = t.space.sites.get(rip - 2)
        if rip == INT80_DONE or site == "enclu":
            if self.traps.faulting_ends(t):
                end_faulting(t, regs)
            else:
                self.enclu(t, regs, rip - 2 if site == "enclu" else self.loader.vdso.enclu)
            return
        self.engine.settle()
        if site is not None:
            self.traps.replaced_cpuid(t, regs)
        else:
            self.calls.serve(t, regs)

    def enclu(self, t: Tracee, regs: list[int], rip: int) -> None:
        """Serve the ENCLU at `rip` of a stopped thread; RAX is in orig_rax."""
        # orig_rax has only the low half of RAX, and ENCLU reads only that.
        regs[p.RAX] = regs[p.ORIG_RAX] & 0xFFFFFFFF
        if rip == self.loader.vdso.enclu:
            self.mailboxes.control.insert(t.tid)
        self.engine.trapped(t, regs, rip)

    # Processes

    def _child_of(self, parent: Tracee, tid: int) -> None:
        if tid in self.tracees:
            return  # it was taken for an orphan
        early = self._early.take(tid)
        if early is not None and not os.WIFSTOPPED(early):
            return  # it has ended already
        try:
            pid = thread_group(tid)
            shared = pid == parent.pid or shares_memory(parent, tid)
        except p.GONE:
            pid, shared = tid, False  # one of them was killed already
        space = parent.space if shared else parent.space.forked(tid, None)
        child = self._born(parent, pid, tid, space)
        child.starting = True
        if pid == parent.pid:
            self._threaded.add(pid)
        try:
            if space is not parent.space and parent.space.mm.vmas:
                self._fork_model(parent, child)
            emit_fork(parent, child)
            if early is not None:
                self._event(child, early)
        except p.GONE:
            return  # killed already: its end comes next, and its parent goes on

    def _adopt(self, parent: Tracee) -> None:
        """Children of a process that has ended before it reported them."""
        if self.systrap is not None:
            return  # births are calls there, and wait for an answer
        others = {t.pid for t in self.tracees.values() if t is not parent}
        if parent.pid not in others:
            self._threaded.discard(parent.pid)
            for tid in orphans(self.tracees, others):
                self._child_of(parent, tid)

    def _born(self, parent: Tracee, pid: int, tid: int, space: Space) -> Tracee:
        """A new thread, of the same process or of another."""
        child = Tracee(self.world, pid, tid, space, self._ends)
        child.actions = parent.actions if pid == parent.pid else dict(parent.actions)
        child.cpuid_denied = parent.cpuid_denied
        child.exec_mask = parent.exec_mask
        child.cpuid_faulting = parent.cpuid_faulting
        child.seccomp = parent.seccomp
        child.all_stops = parent.all_stops
        child.watched = parent.watched if child.pid == parent.pid else set(parent.watched)
        self.tracees[tid] = child
        if self.systrap is not None:
            emit_fork(parent, child)
        return child

    def _fork_model(self, parent: Tracee, child: Tracee) -> None:
        self.engine.settle()
        world = self.world
        lp = world.take_lp()
        process = LiveProcess(world, child.tid)
        child.space.process = process
        thread = parent.model()
        body = syscalls.sys_fork(thread, str(child.tid), lp.id, process)
        child.thread = world.run(body, thread.cpu)
        child.space.attach_memory()
        child.thread.switch_in()
        self.engine.forked(parent, child)

    def _exec(self, t: Tracee) -> None:
        """exec leaves only this thread, which may have taken over the number of the leader."""
        former = p.event_message(t.tid)
        if former != t.tid and former in self.tracees:
            t.seccomp = self.tracees[former].seccomp  # of the thread that goes on
            self._gone(self.tracees[former])
        self._new_program(t, t.tid)
        t.actions = forced.actions_after_exec(t.tid)
        t.exec_mask = p.get_sigmask(t.tid)
        t.at_exit = self._executed
        p.request(p.PTRACE_SYSCALL, t.tid)

    def _new_program(self, t: Tracee, tid: int) -> None:
        """A thread has executed another program: it has a new address space, and is the leader."""
        self.engine.gone(t)
        self._leave_space(t)
        self.tracees.pop(t.tid, None)
        t.pid = t.tid = tid
        self.tracees[tid] = t
        t.due = DueSignals(tid)
        t.space = Space(self.world, tid)
        t.space.users += 1
        t.at_exit = None
        self.calls.cpu_time.calls.forget(tid, interval_too=False)
        t.cpuid_denied = t.cpuid_faulting = False

    def _executed(self, t: Tracee) -> None:
        self.loader.executed(t)
        if not self.started:
            self.started = True
            self.front.started(self.first)
        emit_exec(t)

    def _lost(self, t: Tracee) -> None:
        """A thread is gone whose process goes on."""
        self.engine.settle()
        self._gone(t)

    def _gone(self, t: Tracee) -> None:
        if self.systrap is not None:
            self.systrap.known.forget(t)  # first: the engine forgets which record it has
        self.engine.gone(t)
        self.tracees.pop(t.tid, None)
        self.calls.cpu_time.gone(t, last=all(x.pid != t.pid for x in self.tracees.values()))
        self._leave_space(t)
        self.calls.releases.look()

    def _leave_space(self, t: Tracee) -> None:
        space = t.space
        space.users -= 1
        mm = space.process.mm
        t.drop_model()
        if not space.users:
            if mm.vmas or mm.notifiers:
                self.world.run(syscalls.exit_mmap(self.world.machine.ksgxd, mm), 0)
            self.engine.closed(space)
            if self.systrap is not None:
                self.systrap.closed(space)
            space.close()
