"""How objects of any kind are written: classes written in Python, and the choice of a plan."""

from __future__ import annotations

from collections import deque
from enum import Enum
from operator import attrgetter
from pathlib import PurePath
from re import Pattern
from types import BuiltinFunctionType, CodeType, MethodType
from typing import Any, Final

from softsgx.explore.states.kinds import CONSTANTS, NAMED, PLAIN, name_of
from softsgx.explore.states.plan import Out, Plan, Token, Uncovered, Write
from softsgx.explore.states.writers import BASES, ITEMS, WRITERS, write_keyed
from softsgx.sim.slots import hides_fields, slots_of

PLANS: Final[dict[type, Plan]] = {}
"""Made for each class when its first object is met."""

_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE; classes of Python have it
_BUILTIN: Final = (
    *(BaseException, list, dict, set, deque, tuple, frozenset, int, str, bytes, float),
)
# What is equal to what it is made of; all else has an identity.
_INLINE: Final = (
    *(tuple, frozenset, Enum, range, int, str, bytes, float, CodeType, MethodType),
    *(BuiltinFunctionType, *NAMED, *CONSTANTS, PurePath, Pattern),
)


def plan_of(thing: Any) -> Plan:
    """How an object is written. Uncovered if it cannot be."""
    return PLANS.get(type(thing)) or _plan_of(thing)


def _plan_of(thing: Any) -> Plan:
    kind = type(thing)
    write = _writer(thing, kind)
    plan = PLANS[kind] = Plan(write, isinstance(thing, _INLINE))
    return plan


def _writer(thing: Any, kind: type) -> Write:
    for known, write in WRITERS.items():
        if kind is known:
            return write
    if hasattr(kind, "state_key"):
        return write_keyed
    for known, write in BASES.items():
        if isinstance(thing, known):
            return write
    base: type = next((each for each in _BUILTIN if isinstance(thing, each)), object)
    solid = next(each for each in kind.__mro__ if not each.__flags__ & _HEAP_TYPE)
    if (base is object and solid is not object) or hides_fields(kind, solid):
        raise Uncovered(thing, f"a {name_of(kind)}, whose class is written in C")
    return _instance_writer(kind, base)


def attributes_of(thing: Any) -> dict[str, Any]:
    """The attributes that are set: slots, then those of `__dict__`, by name."""
    found = {name: getattr(thing, name) for name in slots_of(type(thing)) if hasattr(thing, name)}
    own = getattr(thing, "__dict__", None)
    if own:
        found.update([(name, own[name]) for name in sorted(own)])
    return found


def _instance_writer(kind: type, base: type) -> Write:
    """For objects of a class written in Python: its class, attributes, and items if it has any."""
    name = name_of(kind)
    slots = slots_of(kind)
    has_dict = bool(kind.__dictoffset__)
    items = ITEMS.get(base)
    plain = base if base in PLAIN else None

    # For each set of names in a `__dict__`: the names in order, and their token.
    orders: dict[tuple[str, ...], tuple[tuple[str, ...], Token]] = {}

    def write(e: Out, thing: Any) -> None:
        if slots:
            attributes = attributes_of(thing)
            e.out.append(("object", name, tuple(attributes)))
            e.values(attributes.values())
        else:
            own = thing.__dict__ if has_dict else {}
            order = orders.get(names := tuple(own))
            if order is None:
                ordered = tuple(sorted(names))
                order = orders[names] = ordered, ("object", name, ordered)
            e.out.append(order[1])
            e.values([own[each] for each in order[0]])
        if items is not None:
            items(e, thing)
        elif plain is not None:
            e.out.append(plain(thing))
        elif base is BaseException:
            e.values((thing.args, thing.__cause__, thing.__context__))

    if base is object and not has_dict and len(slots) > 1:
        get, token = attrgetter(*slots), ("object", name, slots)

        def write_slots(e: Out, thing: Any) -> None:
            try:
                values = get(thing)
            except AttributeError:
                write(e, thing)
                return
            e.out.append(token)
            e.values(values)

        return write_slots
    return write
