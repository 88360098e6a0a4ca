"""The processor time that a program reads: what the emulator worked for it counts, too."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from softsgx.linux.errno import EFAULT
from softsgx.runner import bpf
from softsgx.runner import ptrace as p
from softsgx.runner.stops import Handler, go_on, signed32, to_exit
from softsgx.runner.tracee import Tracee

if TYPE_CHECKING:
    from softsgx.runner.supervisor import Supervisor


class CpuTime:
    """Serves clock_gettime of the two processor clocks, getrusage, and times."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    def handlers(self) -> dict[int, Handler]:
        """By number of the system call."""
        return {
            bpf.CLOCK_GETTIME: self._clock,
            bpf.GETRUSAGE: self._rusage,
            bpf.TIMES: self._times,
        }

    def _clock(self, t: Tracee, regs: list[int]) -> None:
        place, thread_only = regs[p.RSI], regs[p.RDI] == 3
        _add(t, place, self._emulated(t, thread_only), 10**9)

    def _rusage(self, t: Tracee, regs: list[int]) -> None:
        who, place = signed32(regs[p.RDI]), regs[p.RSI]
        seconds = self._emulated(t, who == 1) if who in (0, 1) else 0.0
        _add(t, place, seconds, 10**6)

    def _times(self, t: Tracee, regs: list[int]) -> None:
        place = regs[p.RDI]
        ticks = int(self._emulated(t, False) * os.sysconf("SC_CLK_TCK"))
        if not ticks or not place:
            go_on(t)
            return

        def read(t: Tracee, result: int) -> None:
            raw = p.read_memory(t.tid, place, 8) if result != -EFAULT else None
            if raw is not None:
                p.write_memory(t.tid, place, struct.pack("<q", struct.unpack("<q", raw)[0] + ticks))

        to_exit(t, read)

    def _emulated(self, t: Tracee, thread_only: bool) -> float:
        """Seconds that the emulator worked for a thread or its process."""
        if thread_only:
            return t.cpu_time
        return sum(x.cpu_time for x in self.supervisor.tracees.values() if x.pid == t.pid)


def _add(t: Tracee, place: int, seconds: float, unit: int) -> None:
    """Let the call be made; to the seconds and 1/unit seconds that it writes come `seconds`."""
    if not seconds:
        go_on(t)
        return

    def read(t: Tracee, result: int) -> None:
        raw = p.read_memory(t.tid, place, 16) if result == 0 else None
        if raw is not None:
            whole, fraction = struct.unpack("<qq", raw)
            total = whole * unit + fraction + int(seconds * unit)
            p.write_memory(t.tid, place, struct.pack("<qq", *divmod(total, unit)))

    to_exit(t, read)
