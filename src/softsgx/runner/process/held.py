"""Threads that are held by the stub in their own process: it answers what ptrace would.

A thread that reports waits in the stub's signal handler. Its registers are in the frame that the
kernel made for the handler, which lies in its record: reading and changing them takes no system
call. What the stub reports appears here as the wait status that a tracer would get.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from typing import Final

from softsgx.linux.errno import ERESTARTSYS
from softsgx.runner.host import futex
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.proc import alive
from softsgx.runner.inserted import systrap_layout as lay
from softsgx.runner.inserted.box import REPLY, REQUEST, TAKEN
from softsgx.runner.process.by_stub import BY_STUB
from softsgx.runner.process.held_state import Gone, HeldState
from softsgx.runner.process.overdue import Overdue
from softsgx.spec.bits import MASK64

_DOZE_S: Final = 0.05  # between looks whether a thread that is waited for still exists

_SIGNO: Final = struct.Struct("<i")
SIGTRAP_STOP: Final = signal.SIGTRAP << 8 | 0x7F
_SECCOMP: Final = p.EVENT_SECCOMP << 16 | SIGTRAP_STOP
_STOPPED: Final = p.EVENT_STOP << 16 | SIGTRAP_STOP
_EXIT: Final = p.SYSCALL_STOP << 8 | 0x7F
_STATUS: Final = {
    lay.KIND_SYSCALL: _SECCOMP,
    lay.KIND_EXIT: _EXIT,
    lay.KIND_STEPPED: SIGTRAP_STOP,
    lay.KIND_INTERRUPT: _STOPPED,
}
# Of a report; KIND_CALLED is only the answer to a command.
_KINDS: Final = frozenset(
    (*_STATUS, lay.KIND_SIGNAL, lay.KIND_NEW, lay.KIND_ENDING, lay.KIND_ENCLU_TRAP, lay.KIND_JUDGE)
)


class HeldThread(HeldState):
    """What answers the requests of `host.ptrace` about a thread that has a record."""

    # Reports

    def taken(self) -> int:
        """The stub has reported: the wait status; 0 if it is none that a tracer would get."""
        if self.kind:  # the last report has not been answered
            raise self.senseless()
        self.kind = self.word("KIND")
        if self.kind not in _KINDS or (self.kind == lay.KIND_SIGNAL and not self._signal()):
            raise self.senseless()
        self._judged = self.kind == lay.KIND_JUDGE
        if self._judged:
            self.kind = lay.KIND_SYSCALL
        self._regs = None
        self._changed = False
        self._frame = 0
        return self.status()

    def status(self) -> int:
        """The wait status of the present stop."""
        if self.kind == lay.KIND_SIGNAL:
            return self._signal() << 8 | 0x7F
        return _STATUS.get(self.kind, 0)

    def _signal(self) -> int:
        """The number of the signal that is reported, or 0."""
        number = self.word("SIGNAL")
        return number if number <= lay.SIGNALS else 0

    def wait(self) -> int:
        """As ptrace.wait; a status with WIFEXITED if the thread is gone."""
        if self.later:
            return self.later.popleft()
        return self.taken() if self._reports() else 0

    def _reports(self) -> bool:
        """Wait for a report; False if the thread is gone."""
        overdue = Overdue(self.tid)
        while not self._await():
            if not alive(self.tid):
                return False
            if overdue.look():
                raise self.senseless()
        return True

    def _await(self) -> bool:
        """Wait for a report; True if there is one."""
        records, family, local = self.records, self.family, self.local
        control = records.control
        end = time.monotonic() + _DOZE_S
        while time.monotonic() < end:
            rung = control.doorbell
            if family.report(local) == REQUEST:
                family.set_report(local, TAKEN)
                return True
            control.sleeping = True
            if family.report(local) != REQUEST:
                futex.wait(records.doorbell, rung, _DOZE_S)
            control.sleeping = False
        records.awaited(self.tid)
        return False

    # Going on

    def at_seccomp_stop(self) -> bool:
        """As ptrace.at_seccomp_stop."""
        return self.kind == lay.KIND_SYSCALL

    def serve(self) -> bool:
        """As Held.serve: it asks first if a filter of the program has to judge the call."""
        if not self._judged or self.get_regs()[p.ORIG_RAX] not in BY_STUB:
            return False
        self._go(lay.COMMAND_SERVE)
        return True

    def request(self, what: int, data: int) -> int:
        """As ptrace.request, for the requests that continue or interrupt a thread."""
        if what == p.PTRACE_INTERRUPT:
            self._interrupt()
        elif not self.kind:
            raise Gone
        elif what == p.PTRACE_CONT:
            self._continue(data, lay.COMMAND_DELIVER)
        elif what == p.PTRACE_SYSCALL:
            self._to_exit()
        elif what == p.PTRACE_SINGLESTEP and data:
            self._continue(data, lay.COMMAND_DELIVER_STOP)
        elif what == p.PTRACE_SINGLESTEP:
            self._go(lay.COMMAND_STEP)
        else:
            raise AssertionError(f"request {what:#x} of a thread that is not traced")
        return 0

    def _interrupt(self) -> None:
        if self.kind:
            return  # it is stopped already
        self.set_word("INTERRUPT", 1)
        info = bytearray(lay.INFO_SIZE)
        struct.pack_into("<iii", info, 0, lay.INTERRUPT_SIGNAL, 0, -1)
        struct.pack_into("<iiQ", info, 16, os.getpid(), os.getuid(), lay.INTERRUPT_VALUE)
        p.tgsigqueue(self.pid, self.tid, lay.INTERRUPT_SIGNAL, bytes(info))

    def _continue(self, number: int, deliver: int) -> None:
        if not number and self._sending is not None:
            self._sent, self._sending = self._sending, None
            if self.kind == lay.KIND_SYSCALL:
                self.kind = lay.KIND_EXIT  # the call is skipped
            self._stop_later(self._sent[0] << 8 | 0x7F)
        elif number:
            at = lay.RECORD_AT["OUT_INFO"]
            self._memory[at : at + lay.INFO_SIZE] = self._info_of(number)
            self.set_word("SIGNAL", number)
            self.set_long("OUT_SET", self._out)
            self._go(deliver)
        elif self.kind == lay.KIND_SYSCALL:
            self._end_call(exit_stop=False)
        else:
            self._restart_if_asked()
            self._go(lay.COMMAND_GO)

    def _info_of(self, number: int) -> bytes:
        """The siginfo with which it is continued: that of the stop, if its si_signo is the signal.

        Linux 6.12, kernel/signal.c, ptrace_signal: the siginfo is replaced if it is of another one.
        """
        info = b""
        if self._sent is not None:
            info = self._sent[1]
        elif self.kind == lay.KIND_SIGNAL:
            info = bytes(self._info())
        if info and _SIGNO.unpack_from(info)[0] == number:
            return info
        return struct.pack("<iii", number, 0, 0).ljust(lay.INFO_SIZE, b"\0")

    def _restart_if_asked(self) -> None:
        """At the exit stop of a call that is to be made again, unless a handler prevents it."""
        regs = self._regs
        if self.kind != lay.KIND_EXIT or regs is None or not self._changed:
            return
        if regs[p.RAX] == -ERESTARTSYS & MASK64 and regs[p.ORIG_RAX] != MASK64:
            regs[p.RAX] = regs[p.ORIG_RAX]
            regs[p.RIP] = self.long("SYSCALL_AT")
            self.set_word("RESTART", 1)

    def _end_call(self, *, exit_stop: bool) -> None:
        """From the stop of a system call: skip it if orig_rax is -1, else have it made."""
        regs = self.get_regs()
        self.set_word("WANT_EXIT", exit_stop)
        if regs[p.ORIG_RAX] == MASK64:
            self._regs, self._changed = regs, True
            self._go(lay.COMMAND_GO)
            return
        regs[p.RAX] = regs[p.ORIG_RAX]
        self._regs, self._changed = regs, True
        self._go(lay.COMMAND_RUN)

    def _to_exit(self) -> None:
        if self.kind != lay.KIND_SYSCALL:
            raise AssertionError("no system call to be ended")
        regs = self.get_regs()
        if regs[p.ORIG_RAX] != MASK64:
            self._end_call(exit_stop=True)
            return
        # The call is skipped: its exit stop is here already.
        self.kind = lay.KIND_EXIT
        self._stop_later(_EXIT)

    def _stop_later(self, status: int) -> None:
        self.later.append(status)
        self.records.later.append(self.record)

    def call(self, number: int, args: tuple[int, ...]) -> int:
        """As Held.call; the registers stay as they are."""
        self._frame_at()
        kind = self.kind
        self.set_long("CALL_NR", number)
        at = lay.RECORD_AT["CALL_ARGS"] // 8
        for n in range(6):
            self._longs[at + n] = args[n] & MASK64 if n < len(args) else 0
        self.set_word("COMMAND", lay.COMMAND_CALL)
        self.family.set_report(self.local, REPLY)
        if not self._reports():
            self.kind = 0
            raise Gone
        if self.word("KIND") != lay.KIND_CALLED:
            raise self.senseless()
        self.kind = kind
        self.set_word("KIND", kind)  # the stop is still the one that was reported
        result = self.long("CALL_RESULT")
        return result - (1 << 64) if result >> 63 else result

    def waiting(self) -> memoryview:
        """What waits for the thread: WAITING of its record."""
        at = lay.RECORD_AT["WAITING"]
        return self._memory[at : at + lay.WAITING_SIZE]

    def go(self) -> None:
        """Let it go on as it is."""
        self._go(lay.COMMAND_GO)

    def _go(self, command: int) -> None:
        if self._changed and self._regs is not None:
            self._write(self._regs)
        self.kind = 0
        self._regs = None
        self._changed = False
        self._sent = None
        self._out = 0
        self.set_word("COMMAND", command)
        self.family.set_report(self.local, REPLY)
