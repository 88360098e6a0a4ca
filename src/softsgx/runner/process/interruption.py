"""Signals that interrupt a long system call while the supervisor serves it, as in the kernel.

A thread that is stopped at a system call gets no signal; signals that arrive stay in its queues.
The driver calls signal_pending() where Linux does; this module answers for a thread of a real
process.
The real kernel, which knows the handler and its SA_RESTART, then decides about -ERESTARTSYS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import ERESTARTSYS
from softsgx.runner.host import ptrace as p
from softsgx.runner.process.signals import signal_state

if TYPE_CHECKING:
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.process.tracee import Tracee

# A look takes some microseconds, a page of ADD_PAGES at least 100 us.
_PAGES_BETWEEN_LOOKS: Final = 16


class Interruption:
    """Answers signal_pending() of one system call.

    Much more time passes before the first page than on a real machine. So a call that was
    interrupted before its first page does that page when it is restarted, without a look: under
    frequent signals it would otherwise never make progress.
    """

    def __init__(self, t: Tracee, doorbell: Doorbell) -> None:
        self._t = t
        self._doorbell = doorbell
        self._pages = 1 if t.interrupted_early else 0
        self._again = 0

    def __call__(self, again: bool) -> bool:
        """Called once for each page; further calls for the same page have `again` set."""
        if again:
            self._again += 1
            return self._again % _PAGES_BETWEEN_LOOKS == 0 and self._waits()
        self._pages += 1
        return self._pages % _PAGES_BETWEEN_LOOKS == 1 and self._waits()

    def _waits(self) -> bool:
        if self._doorbell.terminated:
            return True  # SIGKILL follows
        tid = self._t.tid
        try:
            queued = p.signals_queued(tid)
        except p.NoSuchTracee:
            return True  # SIGKILL
        return queued and bool(signal_state(tid).waiting)


def signal_pending(t: Tracee) -> bool:
    """signal_pending() of a stopped thread."""
    return bool(signal_state(t.tid).waiting)


def restart(t: Tracee, regs: list[int]) -> None:
    """End a call with -ERESTARTSYS, at its seccomp stop.

    A call is skipped by orig_rax = -1, and the kernel would not restart it then. So its number is
    set again at the exit stop.
    """
    number = regs[p.ORIG_RAX]
    regs[p.ORIG_RAX] = p.MASK64
    p.set_regs(t.tid, regs)
    t.at_exit = lambda t: restart_at_exit(t, number)
    p.request(p.PTRACE_SYSCALL, t.tid)


def restart_at_exit(t: Tracee, number: int) -> None:
    """As `restart` for call `number`, at the exit stop of a call that was skipped or replaced it.

    On its exit path the kernel decides whether the program sees EINTR or the call is restarted.
    PTRACE_INTERRUPT makes it look for signals even if another thread has taken the one seen here.
    """
    regs = p.get_regs(t.tid)
    regs[p.ORIG_RAX] = number
    regs[p.RAX] = -ERESTARTSYS & p.MASK64
    p.set_regs(t.tid, regs)
    p.request(p.PTRACE_INTERRUPT, t.tid)
