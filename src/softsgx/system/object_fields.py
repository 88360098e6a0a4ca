"""Where the attributes of a class are kept: for snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from re import Pattern
from types import (
    ClassMethodDescriptorType,
    CodeType,
    EllipsisType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    NotImplementedType,
    WrapperDescriptorType,
)
from typing import Any, Final

from softsgx.sim import Log
from softsgx.sim.slots import hides_fields, own_slots, writer

PLAIN: Final = frozenset(
    {int, str, bytes, bool, float, complex, type(None), range, EllipsisType, NotImplementedType}
)
"""Types whose instances, if not of a derived class, hold nothing that changes."""

CODE: Final = (
    *(type, ModuleType, CodeType, Enum, Pattern),
    *(ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType),
    *(MethodDescriptorType, WrapperDescriptorType),
    Log,
)
"""Types whose instances are code or constants, not state. A Log leads out of the machine."""

_HOOKS: Final = ("__getattribute__", "__getattr__", "__setattr__")


class Fields:
    """The attributes of a class.

    base     the built-in type that the class derives from
    slots    the names of slots, as getattr takes them
    in_dict  whether there is a `__dict__`
    frozen   whether slots cannot be assigned: a frozen dataclass
    covered  whether there is nothing else: no field that only C code knows
    """

    def __init__(self, kind: type, base: type) -> None:
        self.base = base
        own = [each for each in kind.__mro__ if each not in base.__mro__]
        self._members = {
            name: each.__dict__[name]
            for each in reversed(own)
            for name in own_slots(each)
            if isinstance(each.__dict__.get(name), MemberDescriptorType)
        }
        self.slots = tuple(self._members)
        self.in_dict = kind.__dictoffset__ != 0
        self.covered = not hides_fields(kind, base)
        params = getattr(kind, "__dataclass_params__", None)
        self.frozen = (
            is_dataclass(kind)
            and params is not None
            and params.frozen
            and set(self.slots) <= set(kind.__dataclass_fields__)
        )
        # Whether `o.name` is the slot of that name, and nothing that the class defines.
        plain = not any(hook in each.__dict__ for each in own for hook in _HOOKS) and all(
            getattr(kind, name) is member for name, member in self._members.items()
        )
        self._all = attrgetter(*self.slots) if plain and len(self.slots) > 1 else None
        self._writer = writer(self.slots) if plain and self.slots else None

    def read(self, thing: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """The names of the slots that have a value, and the values."""
        if self._all is not None:
            with suppress(AttributeError):
                return self.slots, self._all(thing)
        present, values = [], []
        for name, member in self._members.items():
            try:
                values.append(member.__get__(thing))
            except AttributeError:
                continue
            present.append(name)
        return tuple(present), tuple(values)

    def writer(self, present: tuple[str, ...]) -> Callable[[Any, Any], None]:
        """A function that assigns a tuple to the slots `present`, and empties the other slots."""
        if self._writer is not None and present == self.slots:
            return self._writer
        members = [self._members[name] for name in present]
        others = [member for name, member in self._members.items() if name not in present]

        def write(thing: Any, values: Sequence[Any]) -> None:
            for member, value in zip(members, values, strict=True):
                member.__set__(thing, value)
            for member in others:
                with suppress(AttributeError):
                    member.__delete__(thing)

        return write


@cache
def fields_of(kind: type, base: type) -> Fields:
    """The attributes of a class that derives from the built-in type `base`."""
    return Fields(kind, base)
