"""Descriptors whose calls stop: those of open nodes and of /proc/<pid>/mem.

They stop by a filter of their own number, so that calls on others cost nothing. A number that was
closed goes on stopping: no filter can be taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.runner.process import call_filters
from softsgx.runner.process.stops import add_filter

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee

_NUMBERS_MAX: Final = 16


def watch(t: Tracee, fd: int) -> None:
    """From now on calls on this descriptor stop. With too many, calls on all descriptors do."""
    if watches(t, fd):
        return
    number = fd if len(t.watched) < _NUMBERS_MAX else None
    if add_filter(t, call_filters.descriptor_filter(number)):
        t.watched.add(number)


def watches(t: Tracee, fd: int) -> bool:
    """Whether calls on this descriptor stop."""
    return fd in t.watched or None in t.watched
