"""Reading and writing many attributes at once, as fast as CPython can; the size of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

_POINTER: Final = tuple.__itemsize__
"""Bytes that a slot takes in an object."""


def own_slots(kind: type) -> list[str]:
    """The names in `__slots__` of a class itself, not of its bases, as getattr takes them.

    A private name is changed as the class statement changes it.
    """
    own = kind.__dict__.get("__slots__", ())
    names = [own] if isinstance(own, str) else list(own)
    owner = kind.__name__.lstrip("_")
    return [
        f"_{owner}{name}" if owner and name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    ]


def slots_of(kind: type) -> tuple[str, ...]:
    """The attributes of a class and its bases that are slots, by the names they are read by."""
    return tuple([name for base in kind.__mro__ for name in own_slots(base)])


def hides_fields(kind: type, base: type) -> bool:
    """Whether objects of a class hold more than those of `base`, their slots and a `__dict__`.

    Such fields only C code knows. As pickling finds out: by the size of the object. CPython,
    Objects/typeobject.c.
    """
    size = base.__basicsize__ + _POINTER * len(slots_of(kind))
    # Of objects of any length the offset of the `__dict__` is negative: it is at their end.
    at_end = kind.__dictoffset__ < 0 and base.__itemsize__ > 0
    if (kind.__dictoffset__ > 0 or at_end) and not base.__dictoffset__:
        size += _POINTER
    if kind.__weakrefoffset__ > 0 and not base.__weakrefoffset__:
        size += _POINTER
    return kind.__basicsize__ > size or kind.__itemsize__ != base.__itemsize__


def reader(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that returns the named attributes of an object (two at least) as a tuple."""
    return attrgetter(*names)


def writer(names: Sequence[str]) -> Callable[[Any, Sequence[Any]], None]:
    """A function that assigns a tuple to the named attributes of an object.

    Generated: one tuple assignment is about five times faster than a loop of setattr.
    """
    targets = ", ".join(f"o.{name}" for name in names)
    space: dict[str, Any] = {}
    exec(f"def write(o, values):\n    {targets}, = values\n", space)
    write: Callable[[Any, Sequence[Any]], None] = space["write"]
    return write
