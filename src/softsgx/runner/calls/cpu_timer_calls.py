"""System calls on timers that count processor time: setitimer, timer_create and the like.

Interval timers exist only here. A POSIX timer is created in the kernel, which gives it its number,
but never armed there. The supervisor sends the signals of both, as the kernel would.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from functools import partial
from math import inf
from typing import Final

from softsgx.linux.errno import EFAULT, EINTR, EINVAL
from softsgx.linux.process import SI_KERNEL
from softsgx.runner.calls.cpu_timers import (
    PER_THREAD,
    PROF,
    SCHED,
    TIMER_ABSTIME,
    VIRT,
    Clock,
    CpuTimer,
    CpuTimers,
)
from softsgx.runner.host import nr
from softsgx.runner.host import ptrace as p
from softsgx.runner.host.abi import SI_TIMER, SI_USER
from softsgx.runner.process import call_filters
from softsgx.runner.process.stops import (
    Handler,
    add_filter,
    answer,
    resume,
    run_changed,
    run_to_exit,
    signed32,
)
from softsgx.runner.process.tracee import Tracee

# ITIMER_VIRTUAL and ITIMER_PROF.
_OF_PROCESSOR_TIME: Final = (1, 2)
_KERNEL_SENDS: Final = (signal.SIGPROF, signal.SIGVTALRM, signal.SIGXCPU)
_SIGEV_NONE, _SIGEV_THREAD_ID = 1, 4
_KIND, _BY_DESCRIPTOR = 3, 3

_libc = ctypes.PyDLL(None, use_errno=True)


def clock_of(t: Tracee, clockid: int) -> Clock | None:
    """The processor clock of a clockid_t, or None.

    Linux 6.12, include/linux/posix-timers_types.h.
    """
    if clockid == 2:
        return Clock(t.pid, SCHED)
    if clockid == 3:
        return Clock(t.pid, SCHED, t.tid)
    if clockid >= 0 or clockid & _KIND == _BY_DESCRIPTOR:
        return None
    number = ~(clockid >> 3)
    if clockid & PER_THREAD:
        return Clock(t.pid, clockid & _KIND, number or t.tid)
    return Clock(number or t.pid, clockid & _KIND)


class TimerCalls:
    """Serves these calls."""

    def __init__(self, timers: CpuTimers) -> None:
        self._timers = timers
        self._interval: dict[tuple[int, int], CpuTimer] = {}  # (pid, which)
        self._posix: dict[tuple[int, int], CpuTimer] = {}  # (pid, number)
        self._filtered: set[int] = set()

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {
            nr.SETITIMER: self._setitimer,
            nr.GETITIMER: self._getitimer,
            nr.TIMER_CREATE: self._create,
            nr.TIMER_SETTIME: self._settime,
            nr.TIMER_GETTIME: self._gettime,
            nr.TIMER_DELETE: self._delete,
            nr.CLOCK_NANOSLEEP: self._nanosleep,
        }

    def forget(self, pid: int, interval_too: bool = True) -> None:
        """Forget the timers of a process that has ended.

        Without `interval_too`: of one that executes another program, and keeps interval timers.
        """
        if interval_too:
            self._filtered.discard(pid)
        for known in (self._posix, self._interval) if interval_too else (self._posix,):
            for key in [key for key in known if key[0] == pid]:
                self._timers.remove(known.pop(key))

    # Interval timers

    def _setitimer(self, t: Tracee, regs: list[int]) -> None:
        which, new, old = signed32(regs[p.RDI]), regs[p.RSI], regs[p.RDX]
        if which not in _OF_PROCESSOR_TIME:
            resume(t)  # a filter of the program makes all calls stop
            return
        raw = p.read_memory(t.tid, new, 32) if new else bytes(32)
        if raw is None:
            answer(t, regs, -EFAULT)
            return
        interval, value = _seconds(raw, 10**6)
        if interval < 0 or value < 0:
            answer(t, regs, -EINVAL)
            return
        timer = self._interval.get((t.pid, which))
        before = self._interval_value(timer)
        if timer is None:
            number = signal.SIGVTALRM if which == 1 else signal.SIGPROF
            clock = Clock(t.pid, VIRT if which == 1 else PROF)
            timer = CpuTimer(clock, partial(_kill, t.pid, number))
            self._interval[t.pid, which] = timer
            self._timers.add(timer)
        self._timers.set(timer, self._timers.now(timer.clock) + value if value else 0.0, interval)
        stored = not old or p.write_memory(t.tid, old, before)
        answer(t, regs, 0 if stored else -EFAULT)

    def _getitimer(self, t: Tracee, regs: list[int]) -> None:
        which = signed32(regs[p.RDI])
        if which not in _OF_PROCESSOR_TIME:
            resume(t)
            return
        value = self._interval_value(self._interval.get((t.pid, which)))
        answer(t, regs, 0 if p.write_memory(t.tid, regs[p.RSI], value) else -EFAULT)

    def _interval_value(self, timer: CpuTimer | None) -> bytes:
        if timer is None:
            return bytes(32)
        return _packed(timer.interval, self._timers.left(timer), 10**6)

    # POSIX timers

    def _create(self, t: Tracee, regs: list[int]) -> None:
        clock = clock_of(t, signed32(regs[p.RDI]))
        event = p.read_memory(t.tid, regs[p.RSI], 24) if regs[p.RSI] else b""
        place = regs[p.RDX]
        if clock is None or event is None or not (clock.tid or clock.pid == t.pid):
            resume(t)
            return

        def made(t: Tracee, result: int) -> None:
            raw = p.read_memory(t.tid, place, 4) if result == 0 else None
            if raw is None:
                return
            number = int.from_bytes(raw, "little")
            value, signo, notify, tid = (
                struct.unpack_from("<qiii", event) if event else (number, signal.SIGALRM, 0, 0)
            )
            fire = partial(
                _queue, t.pid, tid if notify & _SIGEV_THREAD_ID else 0, signo, number, value
            )
            timer = CpuTimer(clock, fire if not notify & _SIGEV_NONE else _silent)
            self._posix[t.pid, number] = timer
            self._timers.add(timer)
            if t.pid not in self._filtered:
                self._filtered.add(t.pid)
                add_filter(t, call_filters.timer_filter())

        run_to_exit(t, made)

    def _settime(self, t: Tracee, regs: list[int]) -> None:
        timer = self._posix.get((t.pid, signed32(regs[p.RDI])))
        if timer is None:
            resume(t)
            return
        raw = p.read_memory(t.tid, regs[p.RDX], 32)
        if raw is None:
            answer(t, regs, -EFAULT if regs[p.RDX] else -EINVAL)
            return
        interval, value = _seconds(raw, 10**9)
        if interval < 0 or value < 0:
            answer(t, regs, -EINVAL)
            return
        before = _packed(timer.interval, self._timers.left(timer), 10**9)
        begin = 0.0 if regs[p.RSI] & TIMER_ABSTIME else self._timers.now(timer.clock)
        self._timers.set(timer, begin + value if value else 0.0, interval)
        stored = not regs[p.R10] or p.write_memory(t.tid, regs[p.R10], before)
        answer(t, regs, 0 if stored else -EFAULT)

    def _gettime(self, t: Tracee, regs: list[int]) -> None:
        timer = self._posix.get((t.pid, signed32(regs[p.RDI])))
        if timer is None:
            resume(t)
            return
        value = _packed(timer.interval, self._timers.left(timer), 10**9)
        answer(t, regs, 0 if p.write_memory(t.tid, regs[p.RSI], value) else -EFAULT)

    def _delete(self, t: Tracee, regs: list[int]) -> None:
        timer = self._posix.pop((t.pid, signed32(regs[p.RDI])), None)
        if timer is not None:
            self._timers.remove(timer)
        resume(t)

    # Sleeping on a processor clock

    def _nanosleep(self, t: Tracee, regs: list[int]) -> None:
        clock = clock_of(t, signed32(regs[p.RDI]))
        raw = p.read_memory(t.tid, regs[p.RDX], 16)
        if clock is None or clock.tid == t.tid or raw is None or clock.kernel() == inf:
            resume(t)
            return
        value = _of_unit(10**9, *struct.unpack("<qq", raw))
        absolute, rest = regs[p.RSI] & TIMER_ABSTIME, regs[p.R10]
        until = value if absolute else self._timers.now(clock) + value
        if value < 0 or until <= self._timers.now(clock):
            answer(t, regs, -EINVAL if value < 0 else 0)
            return
        timer = CpuTimer(clock, lambda _missed: _interrupt(t))

        def woken(t: Tracee, _result: int) -> int:
            self._timers.remove(timer)
            if not timer.expiry:
                return 0
            if rest and not absolute:
                left = divmod(int(self._timers.left(timer) * 10**9), 10**9)
                p.write_memory(t.tid, rest, struct.pack("<qq", *left))
            return -EINTR

        self._timers.add(timer)
        run_changed(t, regs, {p.ORIG_RAX: nr.PAUSE, p.RAX: nr.PAUSE}, woken)
        self._timers.set(timer, until, 0.0)


def hide_sender(t: Tracee, number: int) -> None:
    """At a signal-delivery stop: make a signal that `_kill` sent look like the kernel's."""
    if number not in _KERNEL_SENDS:
        return
    _, _, code, sender = struct.unpack_from("<iii4xi", p.get_siginfo(t.tid))
    if code == SI_USER and sender == os.getpid():
        p.set_siginfo(t.tid, struct.pack("<iii", number, 0, SI_KERNEL).ljust(128, b"\0"))


def _seconds(raw: bytes, unit: int) -> tuple[float, float]:
    """Interval and value of a struct itimerval or itimerspec; each is -1 if it is not valid."""
    words = struct.unpack("<4q", raw)
    return _of_unit(unit, *words[:2]), _of_unit(unit, *words[2:])


def _of_unit(unit: int, whole: int, fraction: int) -> float:
    return whole + fraction / unit if whole >= 0 and 0 <= fraction < unit else -1.0


def _packed(interval: float, value: float, unit: int) -> bytes:
    parts = (divmod(int(seconds * unit), unit) for seconds in (interval, value))
    return struct.pack("<4q", *(word for part in parts for word in part))


def _kill(pid: int, number: int, _missed: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # its end comes next


def _queue(pid: int, tid: int, signo: int, number: int, value: int, missed: int) -> None:
    info = struct.pack("<iii4xiiq", signo, 0, SI_TIMER, number, missed, value).ljust(128, b"\0")
    if tid:
        _libc.syscall(nr.RT_TGSIGQUEUEINFO, pid, tid, signo, info)
    else:
        _libc.syscall(nr.RT_SIGQUEUEINFO, pid, signo, info)


def _silent(_missed: int) -> None:
    """SIGEV_NONE: no signal."""


def _interrupt(t: Tracee) -> None:
    try:
        p.request(p.PTRACE_INTERRUPT, t.tid)
    except p.GONE:
        return
