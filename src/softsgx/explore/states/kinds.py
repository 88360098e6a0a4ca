"""Kinds of objects: which are values in themselves, which attributes the others have.

An object whose class is written in C holds more than Python shows; it is refused by name, unless
its class is one of those that `encoder` knows.
"""

from __future__ import annotations

from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from marshal import dumps
from types import (
    CodeType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any, Final, TypeVar

MARSHAL: Final = 2
"""The version of `marshal` without references, so that equal lists give equal bytes."""

PLAIN: Final = frozenset({int, str, bytes, float, complex, bool, type(None), type(...)})
"""Types of values without parts, which `marshal` writes."""

NAMED: Final = (
    *(type, ModuleType, WrapperDescriptorType, MethodDescriptorType, MethodWrapperType),
    *(GetSetDescriptorType, MemberDescriptorType, property, classmethod, staticmethod),
)
"""Types of values that are known by their names."""

CONSTANTS: Final = (Decimal, Fraction, date, time, timedelta, GenericAlias, UnionType, TypeVar)
"""Types of values of which `repr` says everything."""


def name_of(kind: Any) -> str:
    """Module and qualified name of a class, a function or a module."""
    name = getattr(kind, "__qualname__", None) or getattr(kind, "__name__", None) or repr(kind)
    return f"{getattr(kind, '__module__', None) or ''}.{name}"


def code_token(code: CodeType) -> tuple[str, bytes]:
    """What tells pieces of code apart, in every process."""
    known = _CODES.get(id(code))
    if known is None:
        first = next(iter(code.co_positions()), None)
        constants = tuple([each for each in code.co_consts if type(each) in PLAIN])
        names = (code.co_filename, code.co_qualname, code.co_firstlineno)
        whole = dumps((*names, code.co_code, first, constants), MARSHAL)
        token = ("code", blake2b(whole, digest_size=16).digest())
        known = _CODES[id(code)] = code, token
    return known[1]


# By id(), because the hash of code is slow; the code is kept, so that no id() is used twice.
_CODES: Final[dict[int, tuple[CodeType, tuple[str, bytes]]]] = {}
