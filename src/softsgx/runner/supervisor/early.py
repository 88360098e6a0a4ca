"""Births that come late or never, with ptrace.

A parent stops to report a birth when the child can run already, so the child may stop or end before
that. If the parent is killed in between, nobody reports it. The child of a fork then goes on, as in
Linux, with what its parent had. The end of a thread is kept until another one has its number.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from softsgx.runner.host.proc import status_numbers
from softsgx.runner.process.families import tracer_of


class Early:
    """Wait statuses of threads that nobody has reported yet."""

    def __init__(self) -> None:
        self._told: dict[int, int] = {}

    def keep(self, tid: int, status: int) -> None:
        """Something was told of a thread that is not known."""
        self._told[tid] = status

    def take(self, tid: int) -> int | None:
        """The status of a thread that is reported now; None if none came.

        Nor if it is the end of an earlier thread with this number: this one is traced.
        """
        status = self._told.pop(tid, None)
        if status is not None and not os.WIFSTOPPED(status) and tracer_of(tid):
            return None
        return status


def orphans(known: Collection[int], processes: Collection[int]) -> list[int]:
    """Processes that this one traces, are not `known`, and have none of `processes` as a parent.

    The parent of such a one is dead: it was killed while it forked. Not found are children of a
    subreaper, which could also be about to report them.
    """
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) in known:
            continue
        numbers = status_numbers(name)
        if numbers.get("TracerPid") == [os.getpid()] and numbers["PPid"][0] not in processes:
            found.append(int(name))
    return found
