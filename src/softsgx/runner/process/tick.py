"""The timer tick of Linux (CONFIG_HZ): it interrupts a running thread, inside an enclave too.

Without it a thread would see no AEX however long it computes, which no hardware does: programs that
count AEX, and AEX-Notify handlers, depend on the tick. Only processor time that the thread has used
inside counts, so a thread that is outside or waits for its turn gets no tick.
"""

from __future__ import annotations

import os
from math import inf
from typing import Final, Protocol

from softsgx.runner.host.proc import stat_fields

_LINE: Final = 128  # bytes of schedstat: three numbers of 64 bits
TIMER_VECTOR: Final = 0xEC  # LOCAL_TIMER_VECTOR


class Ticked(Protocol):
    """A thread that ticks interrupt. `ticked`: the seconds that it had used at its last tick."""

    ticked: float


class Tick:
    """`hz` ticks in each second of processor time; 0 for no tick."""

    def __init__(self, hz: int) -> None:
        self.period = 1 / hz if hz else inf

    @property
    def on(self) -> bool:
        """Whether there are ticks at all."""
        return self.period < inf

    def due(self, thread: Ticked, used: float) -> bool:
        """Whether a thread has used up a period since its last tick; if so, counts a tick now.

        If a slice took several periods, the missed ticks are not made up for.
        """
        if used - thread.ticked < self.period:
            return False
        thread.ticked = used
        return True


def processor_time(tid: int) -> float:
    """Seconds that a thread has run, 0 if it is gone. man 5 proc, /proc/pid/schedstat."""
    try:  # at each tick: a file object of Python costs as much as the rest of a tick
        file = os.open(f"/proc/{tid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _by_clock_ticks(tid)
    except OSError:
        return 0.0
    try:
        return int(os.read(file, _LINE).split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0
    finally:
        os.close(file)


def _by_clock_ticks(tid: int) -> float:
    """The same on a kernel without CONFIG_SCHED_INFO."""
    fields = stat_fields(tid)
    return (int(fields[11]) + int(fields[12])) / 100 if fields else 0.0  # USER_HZ
