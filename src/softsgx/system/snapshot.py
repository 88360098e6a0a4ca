"""Snapshots of a whole machine: the processor takes its own, all else is saved object by object.

The kernel, its processes, enclaves and the scenario's own records are ordinary Python objects. A
snapshot walks everything reachable from some roots and saves the contents of each mutable object.
Restoring writes them back into the very same objects, so all references stay valid, and what an
execution made in between becomes garbage. No class needs to know of this, and a new field is
covered without a line here; an object of an unknown kind is refused by name.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from types import (
    BuiltinFunctionType,
    BuiltinMethodType,
    CellType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final

from softsgx.cpu import LogicalProcessor, Processor
from softsgx.sim import Execution, Log, Task, Unmodelled
from softsgx.sim.slots import reader, writer
from softsgx.spec.structure import Structure

_ATOMS: Final = (
    *(int, str, bytes, float, complex, type(None), type, Enum, range, ModuleType),
    *(BuiltinFunctionType, BuiltinMethodType, Log),
)
# They belong to one execution, which must be over before a snapshot.
_RUNNING: Final = (GeneratorType, Execution, Task)

Undo = Callable[[], None]


class Snapshot:
    """The state of a machine at rest, and of everything else reachable from `roots`.

    `restore` may be called any number of times.
    """

    def __init__(self, processor: Processor, *roots: object) -> None:
        self.processor = processor
        self._image = processor.snapshot()
        self._undo: list[Undo] = []
        # By id(); the objects are kept alive, so that no id is reused.
        self._seen: dict[int, object] = {id(processor): processor}
        pending: list[object] = list(roots)
        while pending:
            self._visit(pending.pop(), pending)

    @property
    def objects(self) -> int:
        """How many objects a restore writes."""
        return len(self._undo)

    def restore(self) -> None:
        """Bring everything back."""
        self.processor.restore(self._image)
        for undo in self._undo:
            undo()

    def _visit(self, thing: Any, pending: list[object]) -> None:
        if isinstance(thing, _ATOMS) or id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, LogicalProcessor):
            return  # part of the processor
        if isinstance(thing, _RUNNING):
            raise Unmodelled(f"snapshot of a running {type(thing).__name__}: {thing!r}")
        if isinstance(thing, tuple | frozenset):
            pending.extend(thing)
        elif isinstance(thing, FunctionType):
            pending.extend(thing.__closure__ or ())
        elif isinstance(thing, CellType):
            pending.append(thing.cell_contents)
        elif isinstance(thing, MethodType):
            pending.append(thing.__self__)
        else:
            self._keep(thing, pending)

    def _keep(self, thing: Any, pending: list[object]) -> None:
        if isinstance(thing, list | deque):
            items = tuple(thing)
            pending.extend(items)
            self._undo.append(_refill_list(thing, items))
        elif isinstance(thing, dict):
            pairs = tuple(thing.items())
            for pair in pairs:
                pending.extend(pair)
            self._undo.append(_refill_dict(thing, pairs))
        elif isinstance(thing, set | bytearray):
            self._undo.append(_refill_other(thing))
        elif is_dataclass(thing) and _parameters(thing).frozen:
            pending.extend(_attributes(thing).values())
        elif type(thing).__module__.startswith("softsgx.") or hasattr(thing, "__dict__"):
            self._keep_object(thing, pending)
        else:
            raise Unmodelled(f"snapshot of a {type(thing).__qualname__}: {thing!r}")

    def _keep_object(self, thing: Any, pending: list[object]) -> None:
        values = _attributes(thing)
        pending.extend(values.values())
        if isinstance(thing, Structure):
            return
        if hasattr(thing, "__dict__"):
            self._undo.append(_refill_dict(thing.__dict__, tuple(thing.__dict__.items())))
        slots = [name for name in _slots(type(thing)) if hasattr(thing, name)]
        if slots:
            self._undo.append(_rewrite(thing, slots))


def _parameters(thing: Any) -> Any:
    return thing.__dataclass_params__


def _slots(kind: type) -> list[str]:
    names: list[str] = []
    for base in kind.__mro__:
        own = base.__dict__.get("__slots__", ())
        names += [own] if isinstance(own, str) else list(own)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _attributes(thing: Any) -> dict[str, Any]:
    found = {name: getattr(thing, name) for name in _slots(type(thing)) if hasattr(thing, name)}
    found.update(getattr(thing, "__dict__", {}))
    return found


def _refill_list(thing: Any, items: tuple[Any, ...]) -> Undo:
    if isinstance(thing, list):

        def undo_list() -> None:
            thing[:] = items

        return undo_list

    def undo() -> None:
        thing.clear()
        thing.extend(items)

    return undo


def _refill_dict(thing: Any, pairs: tuple[tuple[Any, Any], ...]) -> Undo:
    if isinstance(thing, OrderedDict):
        items: Any = OrderedDict(pairs)
    else:
        items = dict(pairs)

    def undo() -> None:
        if thing != items or list(thing) != list(items):
            thing.clear()
            thing.update(items)

    return undo


def _refill_other(thing: Any) -> Undo:
    image = bytes(thing) if isinstance(thing, bytearray) else frozenset(thing)

    def undo() -> None:
        if isinstance(thing, bytearray):
            thing[:] = image
        else:
            thing.clear()
            thing.update(image)

    return undo


def _rewrite(thing: Any, names: list[str]) -> Undo:
    if len(names) == 1:
        name, value = names[0], getattr(thing, names[0])
        return lambda: setattr(thing, name, value)
    write, values = writer(names), reader(names)(thing)
    return lambda: write(thing, values)
