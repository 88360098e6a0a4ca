"""State outside the scenario: variables of modules and classes that its code names.

A task may keep something in a global variable or in an attribute of its class. Such variables
belong to the state: those that are named by code which is in use, and by what that code calls, in
modules of the user. Modules of Python and of softsgx have no such state; `tests/tidy` sees to it
that the model's results depend on nothing but its objects.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from softsgx.explore.states.kinds import NAMED

_OURS: Final = __name__.split(".", maxsplit=1)[0]


def is_foreign(module: str) -> bool:
    """Whether a module is one of the user: neither of Python nor of softsgx."""
    top = module.split(".", maxsplit=1)[0]
    return top != _OURS and top not in sys.stdlib_module_names


class Globals:
    """Finds the variables that functions and classes can reach."""

    def __init__(self) -> None:
        self.variables: dict[tuple[str, str], Any] = {}
        """By module, or module and class, and name: the namespace that it is in."""
        self._seen: dict[int, object] = {}

    def values(self) -> dict[str, Any]:
        """The variables by name, in the order in which they were found."""
        found: dict[str, Any] = {}
        for (place, name), owner in self.variables.items():
            space = vars(owner) if isinstance(owner, type) else owner
            found[f"{place}.{name}"] = space.get(name, "(not set)")
        return found

    def look(self, thing: Any) -> None:
        """Look at a function, or at a class and its bases."""
        pending = [thing]
        while pending:
            at = pending.pop()
            if id(at) in self._seen:
                continue
            self._seen[id(at)] = at
            if isinstance(at, FunctionType) and is_foreign(at.__module__ or ""):
                pending += self._named(at.__code__, at.__globals__)
            elif isinstance(at, type):
                pending += self._of_class(at)

    def look_at_code(self, code: CodeType, space: dict[str, Any]) -> None:
        """Look at the code of a generator."""
        if id(code) not in self._seen and is_foreign(space.get("__name__", "")):
            self._seen[id(code)] = code
            for each in self._named(code, space):
                self.look(each)

    def _of_class(self, kind: type) -> Iterator[Any]:
        for base in kind.__mro__:
            if not is_foreign(base.__module__):
                continue
            for name, value in vars(base).items():
                function = getattr(value, "__func__", getattr(value, "fget", value))
                if isinstance(function, FunctionType):
                    yield function
                elif not name.startswith("__") and not _is_fixed(value):
                    self.variables[f"{base.__module__}.{base.__qualname__}", name] = base

    def _named(self, code: CodeType, space: dict[str, Any]) -> Iterator[Any]:
        for name in code.co_names:
            if name in space:
                value = space[name]
                if isinstance(value, FunctionType | type):
                    yield value
                elif not _is_fixed(value):
                    self.variables[space["__name__"], name] = space
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from self._named(constant, space)


def _is_fixed(value: Any) -> bool:
    return isinstance(value, (*NAMED, ModuleType)) or hasattr(value, "__get__")
