"""Which leaves a part has: leaf number -> body."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Final

from softsgx.cpu.part import UNMODELLED_LEAVES, Part
from softsgx.cpu.state import Body
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES

_LEAVES: Final = {"ENCLS": ENCLS_LEAVES, "ENCLU": ENCLU_LEAVES}


@cache
def bodies() -> dict[str, Body]:
    """Body of every modelled leaf: function `eaccept` of module `leaf.eaccept` for EACCEPT.

    Imported when the first processor is made, so that importing the room stays cheap.
    """
    found: dict[str, Body] = {}
    for table in _LEAVES.values():
        for name, _extension in table.values():
            if name not in UNMODELLED_LEAVES:
                module = import_module(f"softsgx.cpu.leaf.{name.lower()}")
                found[name] = getattr(module, name.lower())
    return found


@cache
def leaves_of(part: Part, instruction: str) -> dict[int, tuple[str, Body]]:
    """The leaves of ENCLS or ENCLU that `part` announces: number -> (name, body)."""
    have = part.extensions()
    known = bodies()
    return {
        number: (name, known[name])
        for number, (name, extension) in _LEAVES[instruction].items()
        if extension in have and name in known
    }
