"""A new program that another process traces, for example gdb or strace inside the run.

The supervisor cannot trace it as well. Its first call is brk(NULL), by ld.so and by the start code
of static programs alike, and waits in a seccomp notification. /proc/PID/mem can be written without
tracing: where the call returns, code is planted that makes system calls for the supervisor and
reports each result by another brk(NULL), until the stub is there.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, cast

from softsgx.runner.errors import LoadError
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import CLONE_VFORK, SYSCALL_LENGTH, USER_CS
from softsgx.runner.host.notifications import Listener, Notification
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.inserted.assembled import code_of, labels_of
from softsgx.runner.inserted.box import REQUEST, TAKEN
from softsgx.runner.inserted.layout import GATE, VDSO
from softsgx.runner.inserted.machine_code import PLANTED_CODE
from softsgx.runner.process.families import tracer_of
from softsgx.runner.say import say
from softsgx.runner.supervisor.loading import maps

if TYPE_CHECKING:
    from softsgx.runner.process.held import HeldThread
    from softsgx.runner.process.tracee import Tracee

_CODE: Final = code_of(PLANTED_CODE)
_AT: Final = labels_of(PLANTED_CODE)
_IN_GATE: Final = GATE + 0x800
_COMMAND: Final = struct.Struct("<9Q")  # its number, where to go on, the call, its arguments
_FIRST: Final = 0x5347_5847_0000_0000  # numbers of commands: no program passes them to brk
_POLL_MS: Final = 10  # between looks at what other threads report
_START_STACK: Final = 25  # field 28 of /proc/PID/stat, of those behind the name


class Planted:
    """Answers what preparing a program asks of a thread: system calls, and two registers."""

    def __init__(
        self,
        listener: Listener,
        note: Notification,
        others: deque[Notification],
        meanwhile: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._note = note
        self._others = others  # notifications of other threads
        self._meanwhile = meanwhile  # serves their reports: one of them may be the tracer
        self._tid = note.tid
        self._pidfd = os.pidfd_open(note.tid)
        self._poll = select.poll()
        self._poll.register(listener.fd, select.POLLIN)
        self._poll.register(self._pidfd, select.POLLIN)
        self._mem = os.open(f"/proc/{note.tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._home = _return_address(note.tid)
        self._place = self._home
        self._were = os.pread(self._mem, len(_CODE), self._home)
        self._sequence = _FIRST
        self._write(self._home, self._code(self._block(0, 0, ())))
        self._resume()

    def give(self, fd: int) -> int:
        """As Listener.give."""
        return self._listener.give(self._note, fd)

    def get_regs(self) -> list[int]:
        """As ptrace.get_regs, as they were when the program began; only RSP and CS."""
        regs = [0] * 27
        stat = _proc(self._tid, "stat").rpartition(") ")[2].split()
        regs[p.CS], regs[p.RSP] = USER_CS, int(stat[_START_STACK])
        return regs

    def call(self, number: int, args: tuple[int, ...]) -> int:
        """As Held.call."""
        self._command(self._block(self._place + _AT["serve"], number, args))
        result = self._note.args[1]
        if number == nr.MPROTECT and args[0] == GATE:
            self._to_gate()
        return result - (1 << 64) if result >> 63 else result

    def _to_gate(self) -> None:
        """Go on with a copy in the gate, whose calls the filters let pass."""
        block = self._block(_IN_GATE + _AT["serve"], nr.GETPID, ())
        self._write(_IN_GATE, self._code(block))
        self._command(block)
        self._place = _IN_GATE
        self._write(self._home, self._were)

    @property
    def entry(self) -> int:
        """Where the stub has to begin the program."""
        return _IN_GATE + _AT["unplanted"]

    def end(self, rip: int, rdi: int) -> None:
        """Go on at an address of the stub, with an argument."""
        self._forget_vdso()
        block = self._block(rip, nr.GETPID, (rdi,))
        self._write(self._place + _AT["command"], block)
        self._answer(self._note)

    def _forget_vdso(self) -> None:
        """Where ld.so or the C library has noted the real vDSO already, put ours."""
        areas = _writable(self._tid)
        real = _vdso(self._tid).to_bytes(8, "little")
        for start, end in areas:
            data = os.pread(self._mem, end - start, start)
            at = data.find(real)
            while at >= 0:
                if at % 8 == 0:
                    self._write(start + at, VDSO.to_bytes(8, "little"))
                at = data.find(real, at + 1)

    def close(self) -> None:
        """Give up the descriptors."""
        os.close(self._mem)
        os.close(self._pidfd)

    def _write(self, address: int, data: bytes) -> None:
        try:
            os.pwrite(self._mem, data, address)
        except OSError as error:
            why = error.strerror or str(error)
            raise LoadError(f"process {self._tid}: {address:#x} cannot be written: {why}") from None

    def _block(self, following: int, number: int, args: tuple[int, ...]) -> bytes:
        """The next command: make a call, and go on at an address."""
        self._sequence += 1
        words = [self._sequence, following, number, *(x & p.MASK64 for x in args)]
        return _COMMAND.pack(*words, *[0] * (9 - len(words)))

    def _code(self, block: bytes) -> bytes:
        return _CODE[: _AT["command"]] + block

    def _command(self, block: bytes) -> None:
        self._write(self._place + _AT["command"], block)
        self._resume()

    def _answer(self, note: Notification) -> None:
        with suppress(FileNotFoundError):  # interrupted: it waits again, with another notification
            self._listener.go_on(note)

    def _resume(self) -> None:
        """Answer the call that waits, and wait until the command is done."""
        self._answer(self._note)
        while True:
            ready = [fd for fd, _ in self._poll.poll(_POLL_MS)]
            if self._listener.fd in ready:
                with suppress(FileNotFoundError):
                    note = self._listener.receive()
                    if (note.tid, note.number) != (self._tid, nr.BRK):
                        self._others.append(note)
                        self._meanwhile()
                    elif note.args[3] == self._sequence:
                        self._note = note
                        return
                    else:
                        self._answer(note)
            elif self._pidfd in ready:
                raise p.NoSuchTracee
            else:
                self._meanwhile()


@contextmanager
def prepared(t: Tracee, planted: Planted, shared: Sequence[int]) -> Iterator[Planted]:
    """While a planted program is prepared: it has the supervisor's files. Kill it if it fails."""
    try:
        t.given = {fd: planted.give(fd) for fd in shared}
        p.HELD[t.tid] = cast(p.Held, planted)
        yield planted
    except LoadError as error:
        say(f"softsgx: run: {error}\n")
        os.kill(t.pid, signal.SIGKILL)
    finally:
        if p.HELD.get(t.tid) is cast(p.Held, planted):
            del p.HELD[t.tid]
        planted.close()
        t.given = {}


class Debugged:
    """Debuggers inside the run, and the threads that they trace.

    PTRACE_TRACEME after vfork, as gdb starts programs, is made at exec: until then the parent
    waits, and could not let the child go on when the stub's signals stop it.
    """

    def __init__(
        self,
        threads: dict[int, HeldThread],
        tracees: dict[int, Tracee],
        report: Callable[[Tracee, HeldThread], None],
    ) -> None:
        # Whether the program's filters let the call at whose stop a thread is go on.
        self.allowed: Callable[[Tracee, list[int]], bool] = lambda _t, _regs: True
        self._tids: set[int] = set()
        self._threads = threads
        self._tracees = tracees
        self._report = report

    def awaited(self, tid: int) -> None:
        """A thread does not report: its debugger may have stopped it, and waits for an answer."""
        tracer = tracer_of(tid)
        if not tracer:
            return
        for held in list(self._threads.values()):
            t = self._tracees.get(held.tid)
            if t and tracer in (t.tid, t.pid) and held.family.report(held.local) == REQUEST:
                held.family.set_report(held.local, TAKEN)
                self._report(t, held)

    def noted(self, t: Tracee, held: HeldThread) -> bool:
        """Whether the thread has called PTRACE_TRACEME, and goes on."""
        if held.kind != lay.KIND_SYSCALL:
            return False
        regs = held.get_regs()
        if (regs[p.ORIG_RAX], regs[p.RDI]) != (nr.PTRACE, p.PTRACE_TRACEME):
            return False
        if not self.allowed(t, regs):
            return True
        if held.long("CHILD_FLAGS") & CLONE_VFORK:
            self._tids.add(held.tid)
            regs[p.RAX], regs[p.ORIG_RAX] = 0, p.MASK64
            held.set_regs(regs)
        p.request(p.PTRACE_CONT, held.tid)
        return True

    def begins(self, held: HeldThread | None, note: Notification) -> bool:
        """Whether the exec that waits will be made once more, by a thread that is then traced."""
        if held is None or held.tid not in self._tids:
            return False
        self._tids.discard(held.tid)
        held.request(p.PTRACE_INTERRUPT, 0)
        held.wait()
        regs = held.get_regs()
        if regs[p.RAX] == -errno.EINTR & p.MASK64:
            regs[p.RAX] = note.number
            regs[p.RIP] -= SYSCALL_LENGTH
            held.set_regs(regs)
        held.call(nr.PTRACE, (p.PTRACE_TRACEME,))
        held.go()
        return True


def _proc(tid: int, name: str) -> str:
    with open(f"/proc/{tid}/{name}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _return_address(tid: int) -> int:
    """Where the call returns in which a thread waits."""
    return int(_proc(tid, "syscall").split()[-1], 16)


def _vdso(tid: int) -> int:
    return next(start for start, _, _, _, path in maps(tid) if path == "[vdso]")


def _writable(tid: int) -> list[tuple[int, int]]:
    """Private writable memory of files, and what follows it."""
    return [
        (start, end)
        for start, end, rights, _, path in maps(tid)
        if rights == "rw-p"
        and not path.startswith("[")
        and start not in range(GATE, GATE + (1 << 37))
    ]
