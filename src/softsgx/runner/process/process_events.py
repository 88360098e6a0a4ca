"""Who listens is told when real processes begin and end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from softsgx.events.kernel import ProcessEnded, ProcessStarted

if TYPE_CHECKING:
    from softsgx.runner.process.signals import Due
    from softsgx.runner.process.tracee import Tracee


def tell_exec(t: Tracee) -> None:
    """The process executes another program from now on."""
    log = t.world.log
    if not log.on:
        return
    try:
        path = os.readlink(f"/proc/{t.tid}/exe")
    except OSError:
        path = "?"  # killed while we look
    log.emit(ProcessStarted(str(t.pid), "", path))


def tell_fork(parent: Tracee, child: Tracee) -> None:
    """A process, not a thread, was made."""
    log = parent.world.log
    if log.on and child.space is not parent.space:
        log.emit(ProcessStarted(str(child.pid), str(parent.pid), ""))


def delivered(t: Tracee, number: int, due: Due | None) -> None:
    """A thread gets a signal: of the model, if something is due with it, or of anybody else."""
    t.space.delivered[t.pid] = number, due.told if due is not None else 0


def tell_end(t: Tracee, status: int) -> None:
    """The last thread of a process is gone, which is the one with its number."""
    log = t.world.log
    if not log.on or t.tid != t.pid:
        return
    cause = 0
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        last, told = t.space.delivered.get(t.pid, (0, 0))
        cause = told if last == number else 0
        known = number in [*signal.Signals]
        outcome = signal.Signals(number).name if known else f"signal {number}"
    else:
        outcome = f"exit {os.WEXITSTATUS(status)}"
    log.emit(ProcessEnded(str(t.pid), outcome, cause))
