"""Footprints: what a step touches, as keys that are the same in every execution.

The search compares steps of different executions, but objects of points, such as locks, may be
created anew in each. So an object that is equal only to itself is identified by its class and name.
Two objects with one name count as one, which costs executions but misses nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, TypeAlias

from softsgx.sim.point import BLOCKING, Point
from softsgx.sim.task import Task
from softsgx.sim.touch import ENABLE, READ, WRITE

Footprint: TypeAlias = tuple[tuple[Hashable, int], ...]
"""Pairs of a key and a mode of `sim.touch` or TAKE, each key once."""

TAKE: Final = 4
"""WRITE by a blocking point: another task waiting at the object could have continued instead."""

COMMUTE: Final = frozenset({READ, ENABLE})
"""Modes in which two steps that touch one object commute."""

_PLAIN: Final = frozenset({str, int, bytes, bool, type(None)})


class Unstable(TypeError):
    """An object of a point that cannot be identified in another execution."""


def key_of(touched: Any) -> Hashable:
    """The key of an object."""
    kind: Any = type(touched)
    if kind in _PLAIN:
        key: Hashable = touched
        return key
    if kind is tuple:
        return tuple([key_of(part) for part in touched])
    if kind is Task:
        return ("task", touched.index)
    if kind.__hash__ is object.__hash__:
        name = getattr(touched, "name", None)
        if not isinstance(name, str):
            raise Unstable(f"object {touched!r} of a point has no name to know it by")
        return (kind.__name__, name)
    return (kind.__name__, hash(touched))


def of_point(point: Point) -> Footprint:
    """The footprint that a point announces for its step."""
    kind, touched, write = point
    mode = WRITE if write else READ
    if kind in BLOCKING:
        depends = getattr(touched, "depends", None)
        if depends is not None:
            return tuple([(key_of(other), mode) for other in depends])
        if write:
            mode = TAKE
    return ((key_of(touched), mode),)


def merged(*parts: Footprint) -> Footprint:
    """The union of footprints; a key with two modes counts as written."""
    modes: dict[Hashable, int] = {}
    for part in parts:
        for key, mode in part:
            known = modes.setdefault(key, mode)
            if known != mode:
                modes[key] = WRITE
    return tuple(modes.items())


def conflict(one: Footprint, other: Footprint) -> bool:
    """Whether two adjacent steps of different tasks must not be swapped."""
    for key, mode in one:
        for known, known_mode in other:
            if key == known and (mode != known_mode or mode not in COMMUTE):
                return True
    return False
