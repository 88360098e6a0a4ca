"""What the kernel and the processor of this machine take for a round trip, without softsgx.

No supervisor can be faster than the round trips that it is made of, so its figures stand beside
these, measured in the same run.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.measure import Figure

SAME, OTHER = "one CPU", "two CPUs"
_GP_US, _HYPERVISOR_US, _UD_US = 4.0, 14.0, 3.0

ROWS = {
    "stop_same": f"ptrace stop at UD2, registers read and set, {SAME}",
    "stop_other": f"ptrace stop at UD2, registers read and set, {OTHER}",
    "pingpong_same": f"futex ping-pong of two processes, {SAME}",
    "pingpong_other": f"futex ping-pong of two processes, {OTHER}",
    "enclu": "ENCLU, handled in the process",
    "ud2": "UD2, handled in the process",
    "trap": "system call trapped by seccomp, answered in the process",
    "xsave": "XSAVE and XRSTOR, all components",
    "syscall": "system call",
}


class Processor(NamedTuple):
    """What decides how fast a native call can be."""

    enclu: signal.Signals
    hypervisor: bool

    @property
    def call_us(self) -> float:
        """The most that an empty native call may take."""
        if self.enclu == signal.SIGSEGV:
            return _GP_US
        return _HYPERVISOR_US if self.hypervisor else _UD_US

    def __str__(self) -> str:
        exception = "#GP" if self.enclu == signal.SIGSEGV else "#UD"
        return f"{exception}, {'under' if self.hypervisor else 'without'} a hypervisor"


def processor(found: Mapping[str, float], cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """The processor on which programs/floors.c printed `found`."""
    flags = cpuinfo.read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split()
    return Processor(signal.Signals(int(found["enclu_signal"])), "hypervisor" in flags)


def figures(rounds: list[dict[str, float]]) -> list[Figure]:
    """What several rounds of programs/floors.c printed."""
    remarks = {"enclu": str(processor(rounds[0]))}
    found = []
    for name, what in ROWS.items():
        values = [each[name] for each in rounds if name in each]
        if values:
            remark = remarks.get(name, "")
            found.append(Figure(what, median(values), min(values), "us", remark=remark))
    return found
