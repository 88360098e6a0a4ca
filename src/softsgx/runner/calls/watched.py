"""Descriptors whose calls stop: those of open nodes and of /proc/<pid>/mem.

Each has a filter for its number, so that calls on others cost nothing. After it is closed, calls on
this number still stop: a filter cannot be removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.runner.process import call_filters
from softsgx.runner.process.stops import add_filter

if TYPE_CHECKING:
    from softsgx.runner.process.tracee import Tracee

_NUMBERS_MAX: Final = 16


def watch(t: Tracee, fd: int) -> None:
    """Have calls on this descriptor stop from now on. If too many are watched, all calls stop."""
    if watches(t, fd):
        return
    number = fd if len(t.watched) < _NUMBERS_MAX else None
    if add_filter(t, call_filters.descriptor_filter(number)):
        t.watched.add(number)


def watches(t: Tracee, fd: int) -> bool:
    """Whether calls on this descriptor stop."""
    return fd in t.watched or None in t.watched
