"""The objects that every execution of a scenario starts from, and what has changed in them.

A scenario that is restored from a snapshot has the same objects in every execution, thousands of
them, of which few change. They are numbered once. A state then has only what differs from the
start, which is found by comparing them in groups.

Numbers that compare equal, such as 1 and True, count as one value here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from enum import Enum
from operator import attrgetter
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any, Final

from softsgx.explore.states.instances import attributes_of, plan_of
from softsgx.explore.states.kinds import NAMED, PLAIN
from softsgx.explore.states.plan import Out, Token
from softsgx.sim import Log
from softsgx.sim.slots import slots_of

SCENARIO: Final[Token] = ("scenario",)

_GROUP: Final = 16
"""Objects that are compared at once."""


class _Same:
    """Equal to one object only: stands for it where the object's own == would compare contents."""

    __slots__ = ("thing",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return other is self.thing


class _Group:
    """Objects of one kind, and what they were like at the start.

    `read` returns what an object consists of, `write` writes how that differs from the start.
    """

    __slots__ = ("before", "numbers", "read", "things", "write")

    def __init__(
        self, read: Callable[[Any], Any], write: Callable[[Out, int, Any, Any], None]
    ) -> None:
        self.read = read
        self.write = write
        self.numbers: list[int] = []
        self.things: list[Any] = []
        self.before: list[Any] = []

    def write_changed(self, e: Out) -> None:
        """Write what differs now."""
        read = self.read
        now = self.things if read is _itself else [*map(read, self.things)]
        if now != self.before:
            for number, new, old in zip(self.numbers, now, self.before, strict=True):
                if new != old:
                    self.write(e, number, new, old)


class Start:
    """`objects` and `parts`, of what is `Keyed`, are in every execution when it starts.

    The scenario itself is not among them: what it remembers is in its `state_roots`.
    """

    def __init__(self, scenario: object, objects: Sequence[Any], parts: Sequence[Any]) -> None:
        self.objects = objects
        self._parts = parts  # kept alive: no id() is used twice
        self.known: dict[int, Token] = {
            id(part): ("start part", number) for number, part in enumerate(parts)
        }
        self.known[id(scenario)] = SCENARIO
        for number, thing in enumerate(objects):
            self.known[id(thing)] = ("start", number)
        self._groups: list[_Group] = []
        self._filling: dict[object, _Group] = {}
        self._keyed: list[tuple[int, Any]] = []
        # Written in every state: they refer to what an execution makes anew, or cannot be compared.
        self._always: list[tuple[int, Any]] = []
        for number, thing in enumerate(objects):
            self._add(number, thing)

    def write(self, e: Out) -> None:
        """Write what differs from the start."""
        for pairs in (self._keyed, self._always):
            for number, thing in pairs:
                e.out.append(("start", number))
                plan_of(thing).write(e, thing)
        for group in self._groups:
            try:
                group.write_changed(e)
            except AttributeError:  # one of them has lost an attribute
                for number, thing in zip(group.numbers, group.things, strict=True):
                    e.out.append(("start", number))
                    plan_of(thing).write(e, thing)

    def _add(self, number: int, thing: Any) -> None:
        kind = type(thing)
        if isinstance(thing, Log) or kind is object or (frozen(thing) and self._stable_all(thing)):
            return
        if hasattr(kind, "state_key"):
            self._keyed.append((number, thing))
        elif not self._stable_all(thing):
            self._always.append((number, thing))
        elif kind in (list, deque):
            before = kind(map(_kept, thing))
            self._compare(number, thing, "items", _itself, _write_items, before)
        elif kind in (dict, OrderedDict):
            self._compare(number, thing, "pairs", _items, _write_pairs, _kept_items(thing))
        elif kind is FunctionType:
            before = _kept_tuple(_function(thing))
            self._compare(number, thing, kind, _function, _write_tuple, before)
        elif kind is CellType:
            before = _kept_tuple(_contents(thing))
            self._compare(number, thing, kind, _contents, _write_tuple, before)
        elif _plain_object(thing):
            self._add_instance(number, thing, kind)
        else:
            self._always.append((number, thing))

    def _add_instance(self, number: int, thing: Any, kind: type) -> None:
        slots = slots_of(kind)
        own = tuple([name for name in slots if hasattr(thing, name)])
        if own:
            read = _reader(own)
            before = _kept_tuple(read(thing))
            self._compare(number, thing, (kind, own), read, _write_tuple, before)
        if kind.__dictoffset__:
            kept = {name: _kept(each) for name, each in thing.__dict__.items()}
            read = attrgetter("__dict__")
            self._compare(number, thing, "__dict__", read, _write_attributes, kept)

    def _compare(
        self,
        number: int,
        thing: Any,
        kind: object,
        read: Callable[[Any], Any],
        write: Callable[[Out, int, Any, Any], None],
        before: Any,
    ) -> None:
        group = self._filling.get(kind)
        if group is None or len(group.things) == _GROUP:
            group = self._filling[kind] = _Group(read, write)
            self._groups.append(group)
        group.numbers.append(number)
        group.things.append(thing)
        group.before.append(before)

    def _stable_all(self, thing: Any) -> bool:
        """Whether all that an object refers to is the same in every execution at the start."""
        return all(map(self._stable, _referred(thing)))

    def _stable(self, value: Any) -> bool:
        if type(value) in PLAIN or isinstance(value, (*NAMED, Enum, CodeType, range)):
            return True
        if isinstance(value, tuple | frozenset):
            return all(map(self._stable, value))
        if isinstance(value, MethodType | BuiltinFunctionType):
            return self._stable(value.__self__)
        return id(value) in self.known


def frozen(value: Any) -> bool:
    """Whether an object is a dataclass that refuses writes."""
    parameters = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _plain_object(thing: Any) -> bool:
    """Whether an object is nothing but its attributes."""
    base = next(each for each in type(thing).__mro__ if not each.__flags__ & 1 << 9)
    return base is object and not plan_of(thing).inline


def _exact(value: Any) -> bool:
    """Whether what compares equal to a value can stand for it: it is the same, or immutable."""
    kind: Any = type(value)
    if kind in PLAIN or isinstance(value, (*NAMED, Enum, CodeType, range)):
        return True
    if kind.__eq__ is object.__eq__:
        return True
    if isinstance(value, tuple | frozenset):
        return kind.__eq__ in (tuple.__eq__, frozenset.__eq__) and all(map(_exact, value))
    if isinstance(value, MethodType | BuiltinFunctionType):
        return _exact(value.__self__)
    return False


def _kept(value: Any) -> Any:
    return value if _exact(value) else _Same(value)


def _kept_tuple(values: Any) -> Any:
    return tuple([_kept(each) for each in values])


def _kept_items(thing: Any) -> Any:
    return [_kept(key) for key in thing], [_kept(each) for each in thing.values()]


# What objects of each kind consist of


def _referred(thing: Any) -> list[Any]:
    """What an object refers to directly."""
    found = [*attributes_of(thing).values()]
    if isinstance(thing, dict):
        found += [*thing, *thing.values()]
    elif isinstance(thing, list | deque):
        found += [*thing]
    elif isinstance(thing, CellType):
        found += _contents(thing)
    elif isinstance(thing, FunctionType):
        found = [*_function(thing)]
    return found


def _itself(thing: Any) -> Any:
    return thing


def _items(thing: Any) -> Any:
    return [*thing], [*thing.values()]


def _contents(thing: Any) -> Any:
    try:
        return (thing.cell_contents,)
    except ValueError:
        return ()


def _function(thing: Any) -> Any:
    attributes = tuple(thing.__dict__.items())
    return thing.__code__, thing.__defaults__, thing.__kwdefaults__, thing.__closure__, attributes


def _reader(names: tuple[str, ...]) -> Callable[[Any], Any]:
    if len(names) > 1:
        return attrgetter(*names)
    get = attrgetter(names[0])
    return lambda thing: (get(thing),)


# How they differ from the start


def _common(new: Sequence[Any], old: Sequence[Any]) -> int:
    """How many items from the first are as before."""
    for place, (one, other) in enumerate(zip(new, old, strict=False)):
        if one is not other and one != other:
            return place
    return min(len(new), len(old))


def _write_items(e: Out, number: int, new: Any, old: Any) -> None:
    same = _common(new, old)
    e.out.append(("items", number, same, len(new)))
    e.values([*new][same:])


def _write_pairs(e: Out, number: int, new: Any, old: Any) -> None:
    keys, values = new
    same = min(_common(keys, old[0]), _common(values, old[1]))
    e.out.append(("pairs", number, same, len(keys)))
    e.values(keys[same:])
    e.values(values[same:])


def _write_tuple(e: Out, number: int, new: Any, old: Any) -> None:
    end = len(old)
    changed = [place for place, each in enumerate(new) if place >= end or each != old[place]]
    e.out.append(("slots", number, len(new), tuple(changed)))
    e.values([new[place] for place in changed])


def _write_attributes(e: Out, number: int, new: Any, old: Any) -> None:
    gone = tuple([name for name in old if name not in new])
    changed = [name for name in sorted(new) if name not in old or new[name] != old[name]]
    e.out.append(("attributes", number, gone, tuple(changed)))
    e.values([new[name] for name in changed])
