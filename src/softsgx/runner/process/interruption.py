"""Signals that arrive while the supervisor serves a long call: they interrupt it, as the kernel.

A thread that is stopped at a system call gets no signal; what comes waits in its queues. The driver
asks signal_pending() where Linux asks, and here is the answer for a thread of a real process. What
becomes of -ERESTARTSYS is left to the real kernel, which knows the handler and its SA_RESTART.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import ERESTARTSYS
from softsgx.runner.host import ptrace as p
from softsgx.runner.process.signals import signal_state

if TYPE_CHECKING:
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.process.tracee import Tracee

# A look costs some microseconds, a page of ADD_PAGES a hundred and more.
_PAGES_BETWEEN_LOOKS: Final = 16


class Interruption:
    """Answers signal_pending() of one system call.

    The time before the first page is much longer here than on a real machine. So a call that was
    interrupted there gets as far as its first page when it comes again: with signals that come
    fast it would never do anything.
    """

    def __init__(self, t: Tracee, doorbell: Doorbell) -> None:
        self._t = t
        self._doorbell = doorbell
        self._pages = 1 if t.unlucky else 0
        self._again = 0

    def __call__(self, again: bool) -> bool:
        """Asked for each page; with `again` once more for the same one."""
        if again:
            self._again += 1
            return self._again % _PAGES_BETWEEN_LOOKS == 0 and self._waits()
        self._pages += 1
        return self._pages % _PAGES_BETWEEN_LOOKS == 1 and self._waits()

    def _waits(self) -> bool:
        if self._doorbell.terminated:
            return True  # SIGKILL is on its way
        tid = self._t.tid
        try:
            queued = p.signals_queued(tid)
        except p.NoSuchTracee:
            return True  # SIGKILL
        return queued and bool(signal_state(tid).waiting)


def signal_waits(t: Tracee) -> bool:
    """signal_pending() of a stopped thread."""
    return bool(signal_state(t.tid).waiting)


def restart(t: Tracee, regs: list[int]) -> None:
    """End the call at whose seccomp stop the thread is with -ERESTARTSYS.

    What does not run has no number any more, by which the kernel sees whether it has to restart.
    """
    number = regs[p.ORIG_RAX]
    regs[p.ORIG_RAX] = p.MASK64
    p.set_regs(t.tid, regs)
    t.at_exit = lambda t: restart_at_exit(t, number)
    p.request(p.PTRACE_SYSCALL, t.tid)


def restart_at_exit(t: Tracee, number: int) -> None:
    """The same for call `number`, at the exit stop of another one.

    On the way out the kernel decides whether the program sees EINTR or its call is made again. The
    interrupt sees to it that the kernel looks for signals, even if another thread has taken the
    one that was seen.
    """
    regs = p.get_regs(t.tid)
    regs[p.ORIG_RAX] = number
    regs[p.RAX] = -ERESTARTSYS & p.MASK64
    p.set_regs(t.tid, regs)
    p.request(p.PTRACE_INTERRUPT, t.tid)
