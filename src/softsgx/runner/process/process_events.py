"""Events for the start and the end of real processes, and for each program they execute."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from softsgx.events.kernel import ProcessEnded, ProcessStarted
from softsgx.runner.host import ptrace as p

if TYPE_CHECKING:
    from softsgx.runner.process.signals import Due
    from softsgx.runner.process.tracee import Tracee


def emit_exec(t: Tracee) -> None:
    """The process has executed another program."""
    log = t.world.log
    if not log.on:
        return
    try:
        path = os.readlink(f"/proc/{t.tid}/exe")
    except OSError:
        path = "?"  # killed while we look
    log.emit(ProcessStarted(str(t.pid), "", path))


def emit_fork(parent: Tracee, child: Tracee) -> None:
    """A process was created. Nothing is emitted for a child that shares the address space."""
    log = parent.world.log
    if log.on and child.space is not parent.space:
        log.emit(ProcessStarted(str(child.pid), str(parent.pid), ""))


def note_delivered(t: Tracee, number: int, due: Due | None) -> None:
    """Remember the last signal that a process got, and the number of its SignalSent, 0 if none."""
    t.space.delivered[t.pid] = number, due.sent_event if due is not None else 0


def emit_end(t: Tracee, status: int) -> None:
    """A thread has ended. If it is the leader, which the kernel reports last, the process has."""
    log = t.world.log
    if not log.on or t.tid != t.pid:
        return
    cause = 0
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        last, sent_event = t.space.delivered.get(t.pid, (0, 0))
        held = p.HELD.get(t.tid)
        # Without a tracer, a signal that was sent is not reported before it is taken.
        cause = 0 if last != number or (held is not None and held.untold()) else sent_event
        known = number in [*signal.Signals]
        outcome = signal.Signals(number).name if known else f"signal {number}"
    else:
        outcome = f"exit {os.WEXITSTATUS(status)}"
    log.emit(ProcessEnded(str(t.pid), outcome, cause))
