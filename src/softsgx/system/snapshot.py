"""Snapshots of a whole machine: the processor takes its own, all else is saved object by object.

The kernel, its processes, enclaves and the scenario's own records are ordinary Python objects. A
snapshot walks everything reachable from some roots and saves the contents of each mutable object.
Restoring writes them back into the very same objects, so all references stay valid, and what an
execution made in between becomes garbage. No class needs to know of this, and a new field is
covered without a line here; an object of an unknown kind is refused, with its path from the root.

Contents are read and written by the methods of the built-in type that a class derives from, so
neither saving nor restoring calls what a class defines. Code is not state: classes, modules and
the globals of functions are not visited; closures, defaults and attributes of functions are.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CellType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    MethodWrapperType,
)
from typing import Any, Final, NamedTuple

from softsgx.cdriver.own_state import OwnState
from softsgx.cpu import LogicalProcessor, Processor
from softsgx.sim import Execution, Task, Unmodelled
from softsgx.system.object_fields import CODE, PLAIN, Fields, fields_of

# They belong to one execution, which must be over before a snapshot.
_RUNNING: Final = (Execution, Task)
_SUSPENDED: Final = {
    GeneratorType: "generator",
    CoroutineType: "coroutine",
    AsyncGeneratorType: "asynchronous generator",
}

Undo = Callable[[], None]


class _At(NamedTuple):
    """Where an object was found: in which other one, and how one gets from that to it."""

    holder: _At | None
    form: str
    name: object

    def __str__(self) -> str:
        steps, at = [], self
        while at.holder is not None:
            steps.append(at.form.format(at.name))
            at = at.holder
        return str(at.name) + "".join(reversed(steps))


class Snapshot:
    """The state of a machine at rest, and of everything else reachable from `roots`.

    `restore` may be called any number of times. What can only be reached through an object of
    `outside` is no part of it. Unmodelled if something reachable cannot be restored; a root is
    called by its keyword there, or by its class.
    """

    def __init__(
        self,
        processor: Processor,
        *roots: object,
        outside: Sequence[object] = (),
        **named: object,
    ) -> None:
        self.processor = processor
        self._image = processor.snapshot()
        # What a restore writes: lists, dictionaries, attributes, everything else.
        self._lists: list[tuple[list[Any], tuple[Any, ...]]] = []
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._slots: list[tuple[Callable[[Any, Any], None], Any, tuple[Any, ...]]] = []
        self._undo: list[Undo] = []
        # By id(); the objects are kept alive, so that no id is reused.
        self._seen: dict[int, object] = {id(each): each for each in (processor, *outside)}
        self._pending: list[tuple[object, _At]] = []
        for root in roots:
            self._found(root, None, "", type(root).__name__.lower())
        for name, root in named.items():
            self._found(root, None, "", name)
        while self._pending:
            self._visit(*self._pending.pop())

    @property
    def objects(self) -> int:
        """How many contents a restore writes."""
        return len(self._lists) + len(self._dicts) + len(self._slots) + len(self._undo)

    def restore(self) -> None:
        """Bring everything back."""
        self.processor.restore(self._image)
        for values, items in self._lists:
            values[:] = items
        # Copies keep the hashes of their keys: no key is hashed, or compared with another one.
        for mapping, image in self._dicts:
            mapping.clear()
            mapping.update(image)
        for write, thing, contents in self._slots:
            write(thing, contents)
        for undo in self._undo:
            undo()

    def _found(self, thing: object, holder: _At | None, form: str, name: object) -> None:
        if type(thing) not in PLAIN and id(thing) not in self._seen:
            self._seen[id(thing)] = thing
            self._pending.append((thing, _At(holder, form, name)))

    def _found_all(self, things: Iterable[object], holder: _At, form: str = "[{}]") -> None:
        for number, thing in enumerate(things):
            self._found(thing, holder, form, number)

    def _visit(self, thing: Any, at: _At) -> None:
        # The processor has saved its logical processors.
        if isinstance(thing, (*CODE, LogicalProcessor)):
            return
        if isinstance(thing, OwnState):
            self._undo.append(partial(thing.restore, thing.save()))
            return
        if isinstance(thing, _RUNNING):
            name = type(thing).__name__
            raise Unmodelled(f"snapshot: {at}: a running {name} cannot be restored")
        if type(thing) in _SUSPENDED:
            what = _SUSPENDED[type(thing)]
            raise Unmodelled(f"snapshot: {at}: a suspended {what} cannot be restored")
        kind: Any = type(thing)
        fields = fields_of(kind, next(each for each in kind.__mro__ if each in _KEEP))
        if not fields.covered:
            name = kind.__qualname__
            raise Unmodelled(f"snapshot: {at}: an object of type {name} cannot be restored")
        _KEEP[fields.base](self, thing, at)
        self._keep_fields(thing, fields, at)

    def _keep_fields(self, thing: Any, fields: Fields, at: _At) -> None:
        """Save attributes: those in `__dict__`, then those in slots."""
        if fields.in_dict:
            values = object.__getattribute__(thing, "__dict__")
            self._dicts.append((values, dict(values)))
            for name, value in values.items():
                self._found(value, at, ".{}", name)
        if fields.slots:
            present, contents = fields.read(thing)
            for name, value in zip(present, contents, strict=True):
                self._found(value, at, ".{}", name)
            if not fields.frozen:
                self._slots.append((fields.writer(present), thing, contents))

    # What the built-in types hold, apart from attributes

    def _keep_nothing(self, thing: Any, at: _At) -> None:
        pass

    def _keep_list(self, thing: list[Any], at: _At) -> None:
        items = tuple(list.__iter__(thing))
        self._found_all(items, at)
        if type(thing) is list:
            self._lists.append((thing, items))
        else:
            self._undo.append(lambda: list.__setitem__(thing, slice(None), items))

    def _keep_tuple(self, thing: tuple[Any, ...], at: _At) -> None:
        self._found_all(tuple.__iter__(thing), at)

    def _keep_deque(self, thing: deque[Any], at: _At) -> None:
        items = tuple(deque.__iter__(thing))
        self._found_all(items, at)

        def undo() -> None:
            deque.clear(thing)
            deque.extend(thing, items)

        self._undo.append(undo)

    def _keep_bytearray(self, thing: bytearray, at: _At) -> None:
        image = bytes(thing)
        self._undo.append(lambda: bytearray.__setitem__(thing, slice(None), image))

    def _keep_set(self, thing: set[Any], at: _At) -> None:
        self._keep_frozenset(thing, at)
        image = frozenset(thing)

        def undo() -> None:
            set.clear(thing)
            set.update(thing, image)

        self._undo.append(undo)

    def _keep_frozenset(self, thing: frozenset[Any] | set[Any], at: _At) -> None:
        members = set.__iter__(thing) if isinstance(thing, set) else frozenset.__iter__(thing)
        for member in members:
            self._found(member, at, "{{{}}}", type(member).__name__)

    def _keep_dict(self, thing: dict[Any, Any], at: _At) -> None:
        # A copy of a derived class would iterate as that class does.
        image = dict.copy(thing) if type(thing) is dict else dict(dict.items(thing))
        for key, value in image.items():
            self._found(key, at, "[key {}]", type(key).__name__)
            self._found(value, at, "[{!r}]", key)
        if type(thing) is dict:
            self._dicts.append((thing, image))
            return

        def undo() -> None:
            dict.clear(thing)
            dict.update(thing, image)

        self._undo.append(undo)

    def _keep_defaultdict(self, thing: defaultdict[Any, Any], at: _At) -> None:
        factory = thing.default_factory
        self._found(factory, at, ".{}", "default_factory")
        self._undo.append(lambda: setattr(thing, "default_factory", factory))
        self._keep_dict(thing, at)

    def _keep_ordered(self, thing: OrderedDict[Any, Any], at: _At) -> None:
        pairs = tuple([(key, dict.__getitem__(thing, key)) for key in OrderedDict.__iter__(thing)])
        for key, value in pairs:
            self._found(key, at, "[key {}]", type(key).__name__)
            self._found(value, at, "[{!r}]", key)

        def undo() -> None:
            OrderedDict.clear(thing)
            for key, value in pairs:
                OrderedDict.__setitem__(thing, key, value)

        self._undo.append(undo)

    def _keep_function(self, thing: FunctionType, at: _At) -> None:
        names = thing.__code__.co_freevars
        for name, cell in zip(names, thing.__closure__ or (), strict=True):
            self._found(cell, at, "[closure of {}]", name)
        self._found(thing.__defaults__, at, ".{}", "__defaults__")
        self._found(thing.__kwdefaults__, at, ".{}", "__kwdefaults__")

    def _keep_cell(self, thing: CellType, at: _At) -> None:
        try:
            value = thing.cell_contents
        except ValueError:  # a variable without a value

            def empty() -> None:
                del thing.cell_contents

            self._undo.append(empty)
            return
        self._found(value, at, "{}", "")
        self._undo.append(lambda: setattr(thing, "cell_contents", value))

    def _keep_method(self, thing: Any, at: _At) -> None:
        self._found(thing.__self__, at, ".{}", "__self__")
        self._found(getattr(thing, "__func__", None), at, ".{}", "__func__")

    def _keep_partial(self, thing: partial[Any], at: _At) -> None:
        self._found(thing.func, at, ".{}", "func")
        self._found_all(thing.args, at, ".args[{}]")
        self._found(thing.keywords, at, ".{}", "keywords")

    def _keep_exception(self, thing: BaseException, at: _At) -> None:
        self._found(thing.args, at, ".{}", "args")
        self._found(thing.__cause__, at, ".{}", "__cause__")
        self._found(thing.__context__, at, ".{}", "__context__")

    def _keep_slice(self, thing: slice, at: _At) -> None:
        for name in ("start", "stop", "step"):
            self._found(getattr(thing, name), at, ".{}", name)


_KEEP: Final[dict[type, Callable[[Snapshot, Any, _At], None]]] = {
    object: Snapshot._keep_nothing,
    int: Snapshot._keep_nothing,
    float: Snapshot._keep_nothing,
    complex: Snapshot._keep_nothing,
    str: Snapshot._keep_nothing,
    bytes: Snapshot._keep_nothing,
    list: Snapshot._keep_list,
    tuple: Snapshot._keep_tuple,
    deque: Snapshot._keep_deque,
    bytearray: Snapshot._keep_bytearray,
    set: Snapshot._keep_set,
    frozenset: Snapshot._keep_frozenset,
    dict: Snapshot._keep_dict,
    defaultdict: Snapshot._keep_defaultdict,
    OrderedDict: Snapshot._keep_ordered,
    FunctionType: Snapshot._keep_function,
    CellType: Snapshot._keep_cell,
    MethodType: Snapshot._keep_method,
    BuiltinMethodType: Snapshot._keep_method,
    MethodWrapperType: Snapshot._keep_method,
    partial: Snapshot._keep_partial,
    BaseException: Snapshot._keep_exception,
    slice: Snapshot._keep_slice,
}
"""How each built-in type is kept; an object as the first of them that its class derives from."""
