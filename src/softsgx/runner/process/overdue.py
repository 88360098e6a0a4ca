"""Whether a thread that has been told to report still will: a program can prevent it.

Signals reach a thread that sleeps at once, and one that runs as soon as it gets a processor. A
thread that is stopped, or sleeps so that signals cannot wake it, is waited for as long as it takes.
"""

from __future__ import annotations

import os
from typing import Final

from softsgx.runner.host.proc import stat_fields

_ASLEEP_MAX: Final = 40  # looks
_RUNS_MAX_S: Final = 1.0
# In /proc/<tid>/stat behind the name: man 5 proc_pid_stat.
_STATE, _UTIME, _STIME = 0, 11, 12


class Overdue:
    """One thread that is awaited; `look` is called every now and then."""

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._asleep = 0
        self._began_s: float | None = None

    def reported(self) -> None:
        """It has reported something else, so it still does: wait anew."""
        self._asleep, self._began_s = 0, None

    def look(self) -> bool:
        """Whether it has slept through all looks of late, or has run without reporting."""
        fields = stat_fields(self._tid)
        if not fields:
            return False
        ticks = int(fields[_UTIME]) + int(fields[_STIME])
        ran_s = ticks / os.sysconf("SC_CLK_TCK")
        if self._began_s is None:
            self._began_s = ran_s
        self._asleep = self._asleep + 1 if fields[_STATE] == "S" else 0
        return self._asleep > _ASLEEP_MAX or ran_s - self._began_s > _RUNS_MAX_S
