"""Random graphs of Python objects, their shapes, and changes to them."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import BuiltinMethodType, CellType, FunctionType, MethodType, SimpleNamespace
from typing import Any, NamedTuple

from softsgx.sim import Rng


class Rec:
    """Attributes in `__dict__`."""

    def __init__(self, *values: Any, **named: Any) -> None:
        self.values = values
        self.extra: Any = None
        vars(self).update(named)

    def method(self) -> None:
        """Bound methods lead to the object."""


class Slotted:
    """Attributes in slots, one of them private, one without a value."""

    __slots__ = ("one", "unset", "__hidden")

    def __init__(self, one: Any = None, hidden: Any = None) -> None:
        self.one = one
        self.__hidden = hidden

    def hide(self, value: Any) -> Any:
        """Set the private one; what it was before."""
        before, self.__hidden = self.__hidden, value
        return before


class Single:
    """One slot."""

    __slots__ = ("one",)

    def __init__(self, one: Any = None) -> None:
        self.one = one


class Guarded:
    """Refuses assignments: a snapshot must not ask the class."""

    __slots__ = ("one", "two")

    def __init__(self, one: Any = None, two: Any = None) -> None:
        object.__setattr__(self, "one", one)
        object.__setattr__(self, "two", two)

    def __setattr__(self, name: str, value: object) -> None:
        raise AssertionError("assigned")


class Inventive:
    """Invents a value for a slot that has none."""

    __slots__ = ("one", "two")

    def __init__(self, one: Any = None) -> None:
        self.one = one

    def __getattr__(self, name: str) -> Any:
        return "invented"


@dataclass(frozen=True)
class Frozen:
    """Fields cannot be assigned; what they refer to changes."""

    one: Any = None
    two: Any = None


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    """The same in slots."""

    one: Any = None
    two: Any = None


class ThirdSlot(FrozenSlots):
    """A further slot, which can be assigned."""

    __slots__ = ("three",)


class Pair(NamedTuple):
    """A tuple with names."""

    one: Any = None
    two: Any = None


class Equal(Rec):
    """Equal to all of its kind, with a hash that its state changes."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.bag = deque([1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return len(vars(self)) + (len(self.bag) if "bag" in vars(self) else 0)


class OwnList(list[Any]):
    """A list with attributes, which cannot be iterated over."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("iterated")


class OwnDict(dict[Any, Any]):
    """A dictionary with attributes, which cannot be iterated over."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("iterated")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise AssertionError("assigned")


class OwnOrdered(OrderedDict[Any, Any]):
    """An OrderedDict with attributes."""


class OwnSet(set[Any]):
    """A set with attributes."""


class OwnFrozenset(frozenset[Any]):
    """A frozenset with attributes."""


class OwnTuple(tuple[Any, ...]):
    """A tuple with attributes; tuples have no slots."""


class OwnDeque(deque[Any]):
    """A deque with attributes."""


class OwnInt(int):
    """A number with attributes."""


class OwnPartial(partial[Any]):
    """A partial with attributes."""


def _closure(value: Any, default: Any, named: Any) -> Any:
    def function(argument: Any = default, *, keyword: Any = named) -> Any:
        return value, argument, keyword

    return function


def _counter(value: Any) -> Any:
    def function(new: Any = None) -> Any:
        nonlocal value
        old, value = value, new
        return old

    return function


def _empty_cell() -> Any:
    def function() -> Any:
        return later

    if function.__closure__ is None:
        later = 1
    return function


MAKERS: tuple[Callable[[Callable[[], Any]], Any], ...] = (
    lambda pick: [pick() for _ in range(3)],
    lambda pick: {1: pick(), "a": pick(), (2, 3): pick()},
    lambda pick: {Rec(pick()): pick()},
    lambda pick: {Rec(pick()), Rec(pick()), 3},
    lambda pick: {Equal(pick())},
    lambda pick: {Equal(pick()): pick()},
    lambda pick: OrderedDict([("x", pick()), (Rec(pick()), pick())]),
    lambda pick: defaultdict(list, {1: pick()}),
    lambda pick: defaultdict(partial(dict, held=pick())),
    lambda pick: frozenset([Rec(pick()), 7]),
    lambda pick: (pick(), pick()),
    lambda pick: Pair(pick(), pick()),
    lambda pick: deque([pick(), pick()], maxlen=3),
    lambda pick: bytearray(b"abc"),
    lambda pick: Rec(pick(), pick()),
    lambda pick: SimpleNamespace(one=pick()),
    lambda pick: Slotted(pick(), pick()),
    lambda pick: Single(pick()),
    lambda pick: Guarded(pick(), pick()),
    lambda pick: Frozen(pick(), pick()),
    lambda pick: FrozenSlots(pick(), pick()),
    lambda pick: ThirdSlot(pick(), pick()),
    lambda pick: Inventive(pick()),
    lambda pick: partial(_counter(pick())),
    lambda pick: MethodType(_with(_closure(1, 2, 3), pick), Rec()),
    lambda pick: _caused(pick),
    lambda pick: partial(Rec, pick(), named=pick()),
    lambda pick: _closure(pick(), pick(), pick()),
    lambda pick: _counter(pick()),
    lambda pick: _empty_cell(),
    lambda pick: Rec(pick()).method,
    lambda pick: [pick()].append,
    lambda pick: [pick()].__len__,
    lambda pick: slice(pick(), pick()),
    lambda pick: ValueError(pick()),
    lambda pick: _with(OwnList([pick()]), pick),
    lambda pick: _with(OwnDict({1: pick()}), pick),
    lambda pick: _with(OwnOrdered({1: pick(), 2: pick()}), pick),
    lambda pick: _with(OwnSet({Rec(pick())}), pick),
    lambda pick: _with(OwnFrozenset({Rec(pick())}), pick),
    lambda pick: _with(OwnTuple((pick(),)), pick),
    lambda pick: _with(OwnDeque([pick()]), pick),
    lambda pick: _with(OwnInt(5), pick),
    lambda pick: _with(OwnPartial(Rec, pick()), pick),
    lambda pick: _with(_closure(pick(), 1, 2), pick),
)


def _with(thing: Any, pick: Callable[[], Any]) -> Any:
    thing.extra = pick()
    return thing


def _caused(pick: Callable[[], Any]) -> Exception:
    error, other = ValueError(1), ValueError(2)
    error.__cause__ = _with(ValueError(3), pick)
    other.__cause__, other.__context__ = error, _with(ValueError(4), pick)
    return other


def random_graph(rng: Rng, size: int) -> list[Any]:
    """Objects that refer to one another, in cycles, too."""
    made: list[Any] = [1, "text", None, 2.5, True, b"bytes"]

    def pick() -> Any:
        return made[rng.below(len(made))]

    for _ in range(size):
        made.append(MAKERS[rng.below(len(MAKERS))](pick))
    for thing in made:  # cycles
        if type(thing) is list and rng.below(2):
            thing.append(pick())
        elif type(thing) is Rec:
            thing.extra = pick()
    return made


def parts(thing: Any) -> list[tuple[str, Any]]:
    """What an object refers to, apart from classes and code; not as a snapshot finds it."""
    found: list[tuple[str, Any]] = []
    if isinstance(thing, list | tuple | deque):
        kind: Any = next(k for k in (list, tuple, deque) if isinstance(thing, k))
        found += [(f"item {n}", each) for n, each in enumerate(kind.__iter__(thing))]
    elif isinstance(thing, dict):
        kind = OrderedDict if isinstance(thing, OrderedDict) else dict
        for n, (key, value) in enumerate(kind.items(thing)):
            found += [(f"key {n}", key), (f"value {n}", value), ("found", key in thing)]
        if isinstance(thing, defaultdict):
            found.append(("factory", thing.default_factory))
    elif isinstance(thing, set | frozenset):
        # Their order is no part of the state: recognized by identity.
        found += [(f"member {id(each)}", each) for each in sorted(thing, key=id)]
        found.append(("found", all(each in thing for each in thing)))
    elif isinstance(thing, FunctionType):
        found += [(f"cell {n}", cell) for n, cell in enumerate(thing.__closure__ or ())]
        found += [("defaults", thing.__defaults__), ("named", thing.__kwdefaults__)]
    elif isinstance(thing, CellType):
        try:
            found.append(("contents", thing.cell_contents))
        except ValueError:
            found.append(("contents", "no value"))
    elif isinstance(thing, MethodType | BuiltinMethodType) or hasattr(thing, "__objclass__"):
        found.append(("self", getattr(thing, "__self__", None)))
    elif isinstance(thing, partial):
        found += [("func", thing.func), ("args", thing.args), ("keywords", thing.keywords)]
    elif isinstance(thing, slice):
        found += [("start", thing.start), ("stop", thing.stop)]
    elif isinstance(thing, BaseException):
        found += [("args", thing.args), ("cause", thing.__cause__), ("under", thing.__context__)]
    slots = ("one", "two", "three", "unset", "_Slotted__hidden")
    if type(thing) in SLOTTED:
        for name in slots:
            try:
                found.append((name, _member(thing, name)))
            except AttributeError:
                found.append((name, "no value"))
    elif type(thing).__dictoffset__:
        found += list(vars(thing).items())
    return found


def _member(thing: Any, name: str) -> Any:
    for kind in type(thing).__mro__:
        if name in kind.__dict__:
            return kind.__dict__[name].__get__(thing)
    raise AttributeError(name)


CHANGING = {Single: "one", Guarded: "one", Inventive: "two", ThirdSlot: "three"}
SLOTTED = (Slotted, Single, Guarded, Inventive, FrozenSlots, ThirdSlot)
ATOMS = (int, bool, str, bytes, float, type(None), type)


def shape(roots: list[Any]) -> list[Any]:
    """The identities and contents of everything reachable."""
    found, seen, pending = [], {}, list(reversed(roots))
    while pending:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        held = parts(thing)
        value = bytes(thing) if isinstance(thing, bytearray) else None
        found.append((id(thing), type(thing), value, [(name, id(each)) for name, each in held]))
        pending += [each for _, each in reversed(held) if type(each) not in ATOMS]
    return found


def reachable(roots: list[Any]) -> list[Any]:
    """Everything reachable."""
    seen: dict[int, Any] = {}
    pending = list(roots)
    while pending:
        thing = pending.pop()
        if id(thing) not in seen and type(thing) not in ATOMS:
            seen[id(thing)] = thing
            pending += [each for _, each in parts(thing)]
    return list(seen.values())


def change(thing: Any, rng: Rng) -> None:
    """Change an object, if it can be: remove, replace by what is equal, or add."""
    way = rng.below(3)
    new: Any = [[], Rec(), True][rng.below(3)]
    if isinstance(thing, list):
        items = list(list.__iter__(thing))
        thing[:] = ([], [*items, new], list(reversed(items)))[way]
    elif isinstance(thing, dict):
        _change_dict(thing, way, new)
    elif isinstance(thing, set):
        set.clear(thing) if way == 0 else set.add(thing, Rec(new))
    elif isinstance(thing, deque):
        deque.clear(thing) if way == 0 else deque.append(thing, new)
    elif isinstance(thing, bytearray):
        thing[:1] = b"longer"
    elif isinstance(thing, CellType):
        if way == 0:
            del thing.cell_contents
        else:
            thing.cell_contents = new
    elif type(thing) is Slotted:
        thing.hide(new)
        object.__setattr__(thing, "unset", new)
        del thing.one
    elif type(thing) in CHANGING:
        object.__setattr__(thing, CHANGING[type(thing)], new)
    if type(thing).__dictoffset__ and not isinstance(thing, Frozen | type):
        if way == 0:
            vars(thing).clear()
        thing.added = new


def _change_dict(thing: Any, way: int, new: Any) -> None:
    kind: Any = OrderedDict if isinstance(thing, OrderedDict) else dict
    if way == 0:
        kind.clear(thing)
    elif way == 1:
        kind.__setitem__(thing, "new", new)
    else:
        # The same keys in another order, with values that may be equal to what was there.
        pairs = list(kind.items(thing))
        kind.clear(thing)
        for key, value in reversed(pairs):
            same = {"1": True, "True": 1}.get(repr(value), value) if type(value) in ATOMS else value
            kind.__setitem__(thing, key, [] if value == [] else same)
    if isinstance(thing, defaultdict) and way:
        thing.default_factory = None
