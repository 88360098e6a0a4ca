"""How objects of Python's own kinds are written, and those of `sim`.

Not written, because no step depends on it: where an exception was raised (its traceback), the log,
and of an execution the counts of its steps, tasks and choices.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from enum import Enum
from functools import partial
from gc import get_referents
from hashlib import blake2b, sha256
from itertools import chain, count, cycle, islice, repeat
from pathlib import PurePath
from re import Pattern
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GeneratorType,
    MappingProxyType,
    MethodType,
)
from typing import Any, Final

from softsgx.explore.states.kinds import CONSTANTS, NAMED, code_token, name_of
from softsgx.explore.states.plan import Out, Uncovered, Write
from softsgx.sim import Execution, Log, Task

_ITERATORS: Final = (
    *map(type, (iter([]), iter(()), iter(""), iter(b""), iter(bytearray()), iter(range(0)))),
    *(type(iter(range(1 << 70))), type(reversed([])), type(iter(int, 0))),
    *(enumerate, zip, map, filter, reversed, chain, count, cycle, islice, repeat),
)
_DICT_ITERATORS: Final = (
    *map(type, (iter({}), iter({}.items()), iter({}.values()))),
    *map(type, (reversed({}), reversed({}.items()), reversed({}.values()))),
)
_VIEWS: Final = tuple(map(type, ({}.keys(), {}.items(), {}.values())))
_HASHES: Final = (type(blake2b()), type(sha256()))


# What objects of each kind consist of


def _tuple(e: Out, thing: Any) -> None:
    e.out.append(("tuple", len(thing)))
    e.values(thing)


def _list(e: Out, thing: Any) -> None:
    e.out.append((type(thing).__name__, len(thing)))
    e.values(thing)


def _deque(e: Out, thing: Any) -> None:
    e.out.append(("deque", len(thing), thing.maxlen))
    e.values(thing)


def _dict(e: Out, thing: Any) -> None:
    # In order: what iterates over it sees that.
    e.out.append(("dict", len(thing)))
    e.values(thing)
    e.values(thing.values())


def _set(e: Out, thing: Any) -> None:
    e.out.append((type(thing).__name__, len(thing)))
    ordered: dict[bytes, Any] = {}
    for each in thing:
        place = e.alone(each)
        if place in ordered:
            raise Uncovered(thing, "a set of objects that are alike: they have no order")
        ordered[place] = each
    for place in sorted(ordered):
        e.value(ordered[place])


def parts_of(thing: Any) -> Sequence[object]:
    """The objects that a `Keyed` one accounts for."""
    parts: Sequence[object] = thing.state_key()[2]
    return parts


def write_keyed(e: Out, thing: Any) -> None:
    value, refers, parts = thing.state_key()
    own = e.known.get(id(thing)) or e.seen.get(id(thing), ())
    for place, part in enumerate(parts):
        if id(part) not in e.known:
            e.seen[id(part)] = ("part", own, place)
    e.keep.append(parts)
    e.out.append(("keyed", name_of(type(thing)), value))
    e.values(refers)


def _named(e: Out, thing: Any) -> None:
    e.out.append(("named", name_of(thing)))


def _text(e: Out, thing: Any) -> None:
    e.out.append(("text", name_of(type(thing)), str(thing)))


def _repr(e: Out, thing: Any) -> None:
    e.out.append(("repr", name_of(type(thing)), repr(thing)))


def _pattern(e: Out, thing: Any) -> None:
    e.out.append(("pattern", thing.flags))
    e.value(thing.pattern)


def _enum(e: Out, thing: Any) -> None:
    e.out.append(
        ("enum", name_of(type(thing)), thing.name, thing.value if thing.name is None else 0)
    )


def _code(e: Out, thing: Any) -> None:
    e.out.append(code_token(thing))


def _function(e: Out, thing: Any) -> None:
    attributes = thing.__dict__
    e.out.append((code_token(thing.__code__), len(attributes)))
    e.values((thing.__defaults__, thing.__kwdefaults__, thing.__closure__))
    if attributes:
        e.value(attributes)


def _builtin(e: Out, thing: Any) -> None:
    owner = thing.__self__
    if owner is None or isinstance(owner, NAMED):
        e.out.append(("builtin", name_of(thing)))
        return
    e.out.append(("bound", thing.__name__))
    e.value(owner)


def _method(e: Out, thing: Any) -> None:
    e.out.append(("method",))
    e.value(thing.__func__)
    e.value(thing.__self__)


def _cell(e: Out, thing: Any) -> None:
    try:
        contents = thing.cell_contents
    except ValueError:
        e.out.append(("empty",))
        return
    e.out.append(("cell",))
    e.value(contents)


def _partial(e: Out, thing: Any) -> None:
    e.out.append(("partial",))
    e.values((thing.func, thing.args, thing.keywords))
    if thing.__dict__:
        e.value(thing.__dict__)


def _generator(e: Out, thing: Any) -> None:
    if thing.gi_running:
        raise Uncovered(thing, "a generator that is running")
    frame = e.frames.of(thing)
    if not frame.head:
        e.out.append(("ended",))
        return
    e.keep.append(frame)
    out, value = e.out, e.value
    out.append(frame.head)
    for run, held in frame.pieces:
        out += run
        value(held)
    out += frame.rest


def _iterator(e: Out, thing: Any) -> None:
    parts = thing.__reduce__()
    e.keep.append(parts)
    e.out.append(("iterator", type(thing).__name__))
    e.values(parts[1:])


def _dict_iterator(e: Out, thing: Any) -> None:
    e.out.append(("iterator", type(thing).__name__))
    remaining = thing.__reduce__()[1][0]
    e.keep.append(remaining)
    of = [each for each in get_referents(thing) if isinstance(each, dict)]
    e.values(of)
    _list(e, remaining)


def _view(e: Out, thing: Any) -> None:
    e.out.append(("view", type(thing).__name__))
    e.value(thing.mapping)


def _range(e: Out, thing: Any) -> None:
    e.out.append(("range", thing.start, thing.stop, thing.step))


def _bytearray(e: Out, thing: Any) -> None:
    e.out.append(("bytearray", bytes(thing)))


def _array(e: Out, thing: Any) -> None:
    e.out.append(("array", thing.typecode, thing.tobytes()))


def _memoryview(e: Out, thing: Any) -> None:
    if thing.nbytes != memoryview(thing.obj).nbytes:
        raise Uncovered(thing, "a memoryview of a part: where it begins is unknown")
    e.out.append(("memoryview", thing.format, thing.readonly))
    e.value(thing.obj)


def _proxy(e: Out, thing: Any) -> None:
    e.out.append(("proxy",))
    e.value(dict(thing))
    e.keep.append(thing)


def _hash(e: Out, thing: Any) -> None:
    e.out.append((thing.name, thing.digest()))


def _constant(e: Out, thing: Any) -> None:
    e.out.append((type(thing).__name__,))


def _task(e: Out, thing: Any) -> None:
    e.out.append(("task", thing.name, thing.cpu, thing.daemon, thing.interrupt, thing.done))
    if thing.done:
        e.value(thing.result)
        e.value(thing.exception)
        return
    e.value(thing.point)
    e.value(thing.held)
    e.value(thing.body)


def _slice(e: Out, thing: Any) -> None:
    e.out.append(("slice",))
    e.values((thing.start, thing.stop, thing.step))


WRITERS: Final[dict[type, Write]] = {
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _set,
    deque: _deque,
    bytearray: _bytearray,
    memoryview: _memoryview,
    array: _array,
    range: _range,
    slice: _slice,
    partial: _partial,
    CodeType: _code,
    FunctionType: _function,
    BuiltinFunctionType: _builtin,
    MethodType: _method,
    CellType: _cell,
    GeneratorType: _generator,
    MappingProxyType: _proxy,
    Task: _task,
    Execution: _constant,
    Log: _constant,
    object: _constant,
    **dict.fromkeys(_ITERATORS, _iterator),
    **dict.fromkeys(_DICT_ITERATORS, _dict_iterator),
    **dict.fromkeys(_VIEWS, _view),
    **dict.fromkeys(_HASHES, _hash),
}
BASES: Final[dict[Any, Write]] = {
    NAMED: _named,
    Enum: _enum,
    PurePath: _text,
    CONSTANTS: _repr,
    Pattern: _pattern,
}
ITEMS: Final[dict[type, Write]] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
    set: _set,
    frozenset: _set,
    deque: _deque,
}
