"""Whether a new thread shares the address space of the thread that made it.

A thread of the same process does. A new process does if it was made with CLONE_VM, which the
ptrace event does not report: vfork() and posix_spawn() use it, fork() does not, clone(2) may.
kcmp(2) would answer, but containers forbid it. So a word is written to the gate page of the parent,
and looked for in the child: it is there if they share the memory.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Final

from softsgx.runner.host import ptrace as p
from softsgx.runner.host.proc import status_numbers
from softsgx.runner.inserted.layout import GATE_WORD

if TYPE_CHECKING:
    from collections.abc import Collection

    from softsgx.runner.process.tracee import Tracee

_words: Final = count(1)  # each is used once: fork may have copied an earlier one


def thread_group(tid: int) -> int:
    """The process of a thread."""
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    raise OSError(f"/proc/{tid}/status without Tgid")


def shares_memory(parent: Tracee, tid: int) -> bool:
    """Whether the child `tid`, of another thread group, has the parent's memory.

    The parent is stopped, and the child has not executed anything yet.
    """
    if not parent.space.gate_ready:
        return False  # a 32-bit program: nothing is mapped into it
    word = next(_words)
    p.request(p.PTRACE_POKEDATA, parent.tid, GATE_WORD, word)
    return p.read_memory(tid, GATE_WORD, 8) == word.to_bytes(8, "little")


def tracer_of(tid: int) -> int:
    """The thread that traces a thread by ptrace, 0 if there is none."""
    return status_numbers(tid).get("TracerPid", [0])[0]


def tid_here(seen: int, parent: int) -> int | None:
    """The number here of a thread that knows itself as `seen`, in a pid namespace of its own.

    It is a thread of process `parent`, or a child of it or of its parent.
    """
    above = status_numbers(parent).get("PPid", [0])
    for tid in (seen, *(int(name) for name in os.listdir("/proc") if name.isdecimal())):
        status = status_numbers(tid)
        related = status.get("Tgid") == [parent] or status.get("PPid") in ([parent], above)
        if related and status.get("NSpid", [0])[-1] == seen:
            return tid
    return None


def thread_here(seen: int, pids: Collection[int], known: Collection[int]) -> int | None:
    """As `tid_here`, for a thread of one of the processes `pids`, which is none of `known`."""
    if seen not in known and _of_these(seen, seen, pids):
        return seen
    for pid in pids:
        for name in _names(f"/proc/{pid}/task"):
            if int(name) not in known and _of_these(int(name), seen, pids):
                return int(name)
    return None


def _of_these(tid: int, seen: int, pids: Collection[int]) -> bool:
    status = status_numbers(tid)
    return status.get("NSpid", [0])[-1] == seen and status.get("Tgid", [0])[0] in pids


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
