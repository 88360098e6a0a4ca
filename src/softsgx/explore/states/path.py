"""Where an object is: the way to it from a scenario, for a message."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from gc import get_referents
from types import CellType, FunctionType, GeneratorType, MethodType
from typing import Any

from softsgx.explore.states.instances import attributes_of
from softsgx.explore.states.kinds import NAMED, PLAIN
from softsgx.sim import Execution, Log, Task


def path_to(thing: object, roots: Mapping[str, object]) -> str:
    """The shortest way to an object, as an expression; "" if there is none."""
    seen = {id(thing): None for thing in roots.values()}
    # The objects are kept, so that no id() is used twice.
    queue: deque[tuple[str, Any]] = deque(roots.items())
    kept = [*queue]
    while queue:
        path, at = queue.popleft()
        if at is thing:
            return path
        for step, part in _parts(at):
            if id(part) not in seen and type(part) not in PLAIN and not isinstance(part, NAMED):
                seen[id(part)] = None
                kept.append((path + step, part))
                queue.append(kept[-1])
    return ""


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """What an object consists of, each with what is appended to its path."""
    if isinstance(thing, Execution | Log):
        return
    if isinstance(thing, Task):
        yield "", thing.body
    elif isinstance(thing, GeneratorType):
        frame = thing.gi_frame
        if frame is not None:
            for name, value in sorted(frame.f_locals.items()):
                yield f", {name} in {thing.__qualname__}", value
            for value in get_referents(thing):
                yield f", held by {thing.__qualname__}", value
    elif isinstance(thing, MethodType):
        yield ".__self__", thing.__self__
    elif isinstance(thing, FunctionType):
        cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=False)
        for name, cell in cells:
            yield f", {name} of {thing.__qualname__}", cell
        for place, value in enumerate(thing.__defaults__ or ()):
            yield f".__defaults__[{place}]", value
        for name, value in (thing.__kwdefaults__ or {}).items():
            yield f".__kwdefaults__[{name!r}]", value
        for name, value in thing.__dict__.items():
            yield f".{name}", value
    elif isinstance(thing, CellType):
        for value in get_referents(thing):
            yield "", value
    else:
        yield from _items(thing)


def _items(thing: Any) -> Iterator[tuple[str, Any]]:
    known: dict[int, None] = {}
    for name, value in attributes_of(thing).items():
        known[id(value)] = None
        yield f".{name}", value
    if isinstance(thing, Mapping):
        for key, value in thing.items():
            yield ", a key", key
            yield f"[{key!r}]", value
    elif isinstance(thing, list | tuple | deque):
        for place, value in enumerate(thing):
            yield f"[{place}]", value
    else:
        for value in get_referents(thing):
            if id(value) not in known and not isinstance(value, dict):
                yield ", inside", value
