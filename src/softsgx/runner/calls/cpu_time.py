"""The processor time that a program reads, with the emulator's time on its behalf added."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from softsgx.linux.errno import EFAULT
from softsgx.runner.calls.cpu_timer_calls import TimerCalls, clock_of
from softsgx.runner.calls.cpu_timers import CpuTimers
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.process.stops import Handler, resume, run_to_exit, signed32
from softsgx.runner.process.tracee import Tracee

if TYPE_CHECKING:
    from softsgx.runner.inserted.doorbell import Doorbell


class CpuTime:
    """Serves clock_gettime of processor clocks, getrusage, times, and calls on timers.

    `kernel_counts`: enclave code runs in the process, so the kernel counts its time, and its timers
    are right.
    """

    def __init__(self, doorbell: Doorbell, kernel_counts: bool) -> None:
        self.timers = CpuTimers(doorbell)
        self.calls = TimerCalls(self.timers)
        self._kernel_counts = kernel_counts

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {
            nr.CLOCK_GETTIME: self._clock,
            nr.GETRUSAGE: self._rusage,
            nr.TIMES: self._times,
            **({} if self._kernel_counts else self.calls.handlers()),
        }

    def worked(self, t: Tracee, seconds: float) -> None:
        """The emulator has executed code of a thread for `seconds`."""
        self.timers.worked(t.pid, t.tid, seconds)

    def gone(self, t: Tracee, last: bool) -> None:
        """A thread has ended; `last`: it was the last of its process."""
        self.timers.thread_gone(t.pid, t.tid, last)
        if last:
            self.calls.forget(t.pid)

    def _clock(self, t: Tracee, regs: list[int]) -> None:
        clock = clock_of(t, signed32(regs[p.RDI]))
        seconds = 0.0
        if clock is not None:
            timers = self.timers
            of, key = (timers.of_threads, clock.tid) if clock.tid else (timers.emulated, clock.pid)
            seconds = of.get(key, 0.0)
        _add(t, regs[p.RSI], seconds, 10**9)

    def _rusage(self, t: Tracee, regs: list[int]) -> None:
        who, place = signed32(regs[p.RDI]), regs[p.RSI]
        seconds = self._emulated(t, who == 1) if who in (0, 1) else 0.0
        _add(t, place, seconds, 10**6)

    def _times(self, t: Tracee, regs: list[int]) -> None:
        place = regs[p.RDI]
        ticks = int(self._emulated(t, False) * os.sysconf("SC_CLK_TCK"))
        if not ticks or not place:
            resume(t)
            return

        def read(t: Tracee, result: int) -> None:
            raw = p.read_memory(t.tid, place, 8) if result != -EFAULT else None
            if raw is not None:
                p.write_memory(t.tid, place, struct.pack("<q", struct.unpack("<q", raw)[0] + ticks))

        run_to_exit(t, read)

    def _emulated(self, t: Tracee, thread_only: bool) -> float:
        """Seconds for which the emulator has executed code of a thread, or of its whole process."""
        if thread_only:
            return self.timers.of_threads.get(t.tid, 0.0)
        return self.timers.emulated.get(t.pid, 0.0)


def _add(t: Tracee, place: int, seconds: float, unit: int) -> None:
    """Run the call, and add `seconds` to the time that it writes: seconds, and 1/`unit` seconds."""
    if not seconds:
        resume(t)
        return

    def read(t: Tracee, result: int) -> None:
        raw = p.read_memory(t.tid, place, 16) if result == 0 else None
        if raw is not None:
            whole, fraction = struct.unpack("<qq", raw)
            total = whole * unit + fraction + int(seconds * unit)
            p.write_memory(t.tid, place, struct.pack("<qq", *divmod(total, unit)))

    run_to_exit(t, read)
