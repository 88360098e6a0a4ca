"""Threads of programs that are not traced: which thread has made them, and which have ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from softsgx.runner.host.abi import CLONE_VM
from softsgx.runner.host.proc import alive
from softsgx.runner.process.families import thread_group
from softsgx.runner.process.held import HeldThread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from softsgx.runner.inserted.records import Records
    from softsgx.runner.process.tracee import Tracee


def maker(new: HeldThread, held: HeldThread | None, known: Mapping[int, Tracee]) -> Tracee | None:
    """What a new thread of a process is like: the thread that made it, or any of its process.

    `held` has the maker's record, `known` are all threads. While a process has filters, which may
    differ between its threads, the maker waits until the new thread is known. The record of any
    other may belong to somebody else by now.
    """
    pid = thread_group(new.tid)
    t = None if held is None else known.get(held.tid)
    if t is not None and t.pid == pid:
        return t
    return next((t for t in known.values() if t.pid == pid), None)


def dead_threads(tracees: Iterable[Tracee], pid: int) -> list[Tracee]:
    """The threads of a process, but the first, that have ended without a word: a filter of the
    program kills them."""
    return [t for t in tracees if t.pid == pid != t.tid and not alive(t.tid)]


def abandoned(records: Records, threads: Mapping[int, HeldThread]) -> Iterator[HeldThread]:
    """The records of threads that ended before they reported anything.

    Not those of forked processes: their maker frees these.
    """
    for record in records.taken():
        if record in threads:
            continue
        new = HeldThread(records, record, 0, 0)
        if not new.long("CHILD_FLAGS") & CLONE_VM:
            continue
        tid = new.word("TID")
        if not os.path.exists(f"/proc/{tid}") if tid else new.maker not in threads:
            yield new
