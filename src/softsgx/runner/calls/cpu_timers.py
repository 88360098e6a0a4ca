"""Timers and limits on the processor time of a program whose enclave code the emulator executes.

The kernel counts only the time that a process uses itself. So timers on processor clocks are kept
here, and count the emulator's time as well. They are checked after the emulator has executed code,
and when the process itself has used so much time that one may have expired: for this the supervisor
has a timer of its own on the clock of the process. man 2 setitimer, timer_create, getrlimit.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.runner.host import nr
from softsgx.runner.host.ptrace import GONE
from softsgx.runner.process.tick import processor_time

if TYPE_CHECKING:
    from softsgx.runner.inserted.doorbell import Doorbell

PROF, VIRT, SCHED = 0, 1, 2
"""Kinds of processor clocks: user and system time, user time, time by the scheduler."""
PER_THREAD: Final = 4
_LIMIT_LOOKS_S: Final = 0.05  # emulated time between two looks at RLIMIT_CPU
_NSEC: Final = 10**9
_WAKE_SIGNAL: Final = signal.SIGPROF
TIMER_ABSTIME: Final = 1

_libc = ctypes.PyDLL(None, use_errno=True)


class Clock(NamedTuple):
    """A processor clock: of a process, or of one of its threads (`tid`, else 0)."""

    pid: int
    kind: int
    tid: int = 0

    def kernel(self) -> float:
        """Seconds that the kernel has counted; once it has ended, `inf` for a process, 0 for a
        thread."""
        if self.tid:
            return processor_time(self.tid)
        try:
            return time.clock_gettime(~self.pid << 3 | self.kind)
        except OSError:
            return inf


@dataclass(eq=False)
class CpuTimer:
    """A timer that expires when `clock` shows `expiry`, 0 if it is not armed; `interval` is its
    period, 0 for none. `fire(missed)` is called when it expires; `missed` periods were skipped."""

    clock: Clock
    fire: Callable[[int], None]
    expiry: float = 0.0
    interval: float = 0.0


@dataclass
class _Process:
    """A process with timers or a limit. `wake`: the supervisor's own timers, by kind of clock."""

    timers: list[CpuTimer] = field(default_factory=list)
    wake: dict[int, int] = field(default_factory=dict)
    limit: float = inf  # the soft RLIMIT_CPU, seconds
    raised: int = 0  # the soft limit after the last SIGXCPU, if it could not be set


class CpuTimers:
    """All timers. `emulated[pid]` is how long the emulator has executed code of a process, in
    seconds, and `of_threads[tid]` the same for a thread."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._installed = False
        self.emulated: dict[int, float] = {}
        self.of_threads: dict[int, float] = {}
        self._looked: dict[int, float] = {}  # `emulated` at the last look at RLIMIT_CPU
        self._processes: dict[int, _Process] = {}

    # Time

    def now(self, clock: Clock) -> float:
        """Seconds of a clock, emulated time included."""
        emulated = self.of_threads.get(clock.tid) if clock.tid else self.emulated.get(clock.pid)
        return clock.kernel() + (emulated or 0.0)

    def worked(self, pid: int, tid: int, seconds: float) -> None:
        """The emulator has executed code of a thread for `seconds`."""
        total = self.emulated[pid] = self.emulated.get(pid, 0.0) + seconds
        self.of_threads[tid] = self.of_threads.get(tid, 0.0) + seconds
        if total - self._looked.get(pid, 0.0) > _LIMIT_LOOKS_S:
            self._looked[pid] = total
            self._look_at_limit(pid)
        if pid in self._processes:
            self._look(pid)

    def rung(self) -> None:
        """The doorbell rang: a process may have used enough time for a timer to expire."""
        if self._installed and self._doorbell.came(_WAKE_SIGNAL):
            for pid in list(self._processes):
                if self._processes[pid].limit < inf:
                    self._look_at_limit(pid)
                self._look(pid)

    # Timers

    def add(self, timer: CpuTimer) -> None:
        """A timer was created."""
        self._process(timer.clock.pid).timers.append(timer)

    def remove(self, timer: CpuTimer) -> None:
        """A timer was deleted."""
        process = self._processes.get(timer.clock.pid)
        if process is not None and timer in process.timers:
            process.timers.remove(timer)

    def set(self, timer: CpuTimer, expiry: float, interval: float) -> None:
        """Arm a timer for the time `expiry` of its clock; 0 disarms it."""
        timer.expiry, timer.interval = expiry, interval
        self._look(timer.clock.pid)

    def left(self, timer: CpuTimer) -> float:
        """Seconds until a timer expires, 0 if it is not armed."""
        return max(timer.expiry - self.now(timer.clock), 1e-6) if timer.expiry else 0.0

    def thread_gone(self, pid: int, tid: int, last: bool) -> None:
        """A thread has ended; `last`: it was the last of its process."""
        self.of_threads.pop(tid, None)
        if last:
            self.emulated.pop(pid, None)
            self._looked.pop(pid, None)
            process = self._processes.pop(pid, None)
            for wake in process.wake.values() if process is not None else ():
                _libc.syscall(nr.TIMER_DELETE, wake)

    def close(self) -> None:
        """All processes are gone."""
        for pid in list(self._processes):
            self.thread_gone(pid, 0, True)

    def _process(self, pid: int) -> _Process:
        if not self._installed:
            self._doorbell.install(_WAKE_SIGNAL)
            self._installed = True
        return self._processes.setdefault(pid, _Process())

    def _look(self, pid: int) -> None:
        """Fire the timers of a process that have expired, and set up a wake-up for the others."""
        process = self._processes[pid]
        next_by_kind: dict[int, float] = {}
        for timer in list(process.timers):
            if not timer.expiry:
                continue
            left = timer.expiry - self.now(timer.clock)
            if left <= 0:
                left = self._expired(timer, -left)
                if not timer.expiry:
                    continue
            kind = timer.clock.kind
            next_by_kind[kind] = min(left, next_by_kind.get(kind, inf))
        if process.limit < inf:
            left = process.limit - self.now(Clock(pid, PROF))
            next_by_kind[PROF] = min(max(left, 0.001), next_by_kind.get(PROF, inf))
        for kind, left in next_by_kind.items():
            self._wake_after(process, pid, kind, left)

    def _expired(self, timer: CpuTimer, late: float) -> float:
        missed = 0
        if timer.interval:
            missed = int(late / timer.interval)
            timer.expiry += (missed + 1) * timer.interval
        else:
            timer.expiry = 0.0
        timer.fire(missed)
        return timer.expiry - self.now(timer.clock) if timer.expiry else 0.0

    def _wake_after(self, process: _Process, pid: int, kind: int, seconds: float) -> None:
        """Have the doorbell ring when the threads of the process have used `seconds` more."""
        wake = process.wake.get(kind)
        if wake is None:
            event = struct.pack("<qii48x", 0, _WAKE_SIGNAL, 0)
            made = ctypes.c_int()
            clock = ctypes.c_long(~pid << 3 | kind)
            if _libc.syscall(nr.TIMER_CREATE, clock, event, ctypes.byref(made)):
                return  # it has just ended
            wake = process.wake[kind] = made.value
        value = int(max(seconds, 1e-6) * _NSEC)
        spec = struct.pack("<qqqq", 0, 0, *divmod(value, _NSEC))
        _libc.syscall(nr.TIMER_SETTIME, wake, 0, spec, None)

    # RLIMIT_CPU

    def _look_at_limit(self, pid: int) -> None:
        """Do what the kernel does at the limit: SIGXCPU each second, then SIGKILL."""
        try:
            soft, hard = _cpu_limit(pid)
            if soft == hard == resource.RLIM_INFINITY:
                if pid in self._processes:
                    self._processes[pid].limit = inf
                return
            used = self.now(Clock(pid, PROF))
            if hard != resource.RLIM_INFINITY and used >= hard:
                os.kill(pid, signal.SIGKILL)
                return
            process = self._process(pid)
            if soft != resource.RLIM_INFINITY:
                soft = max(soft, process.raised)
            if soft != resource.RLIM_INFINITY and used >= soft:
                os.kill(pid, signal.SIGXCPU)
                soft = soft + 1 if hard == resource.RLIM_INFINITY else min(soft + 1, hard)
                try:
                    resource.prlimit(pid, resource.RLIMIT_CPU, (soft, hard))
                except PermissionError:  # of another user: only this supervisor knows it
                    process.raised = soft
            process.limit = min(x for x in (soft, hard) if x != resource.RLIM_INFINITY)
        except GONE:
            return  # its end comes next


def _cpu_limit(pid: int) -> tuple[int, int]:
    """RLIMIT_CPU of a process, soft and hard, in seconds.

    prlimit(2) wants CAP_SYS_RESOURCE for a process of another user, which root in a container
    often lacks; /proc does not.
    """
    try:
        return resource.prlimit(pid, resource.RLIMIT_CPU)
    except PermissionError:
        with open(f"/proc/{pid}/limits", encoding="ascii") as limits:
            line = next(line for line in limits if line.startswith("Max cpu time"))
    soft, hard = (
        resource.RLIM_INFINITY if word == "unlimited" else int(word) for word in line.split()[3:5]
    )
    return soft, hard
