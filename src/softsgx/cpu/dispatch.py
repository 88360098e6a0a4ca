"""Which leaves a part has: leaf number -> body."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final

from softsgx.cpu.fault import Status
from softsgx.sim import Unmodelled
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES

if TYPE_CHECKING:
    from softsgx.cpu.lp import LogicalProcessor
    from softsgx.cpu.part import Part

Body = Callable[["LogicalProcessor", int, int, int], Status | None]

_LEAVES: Final = {"ENCLS": ENCLS_LEAVES, "ENCLU": ENCLU_LEAVES}
# Leaves with a number in the manual and no body here.
UNMODELLED_LEAVES: Final = frozenset({"EVERIFYREPORT2", "EUPDATESVN"})


@cache
def bodies() -> dict[str, Body]:
    """Body of every modelled leaf: function `eaccept` of module `leaf.eaccept` for EACCEPT.

    Imported when the first processor is made: the leaves themselves import the processor.
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


def leaf_body(instruction: str, leaf: int, part: Part) -> tuple[str, Body] | None:
    """For a leaf that is not announced: None, meaning #GP(0); or `Unmodelled` (see `Part`)."""
    name, _extension = _LEAVES[instruction].get(leaf, ("", ""))
    if name in UNMODELLED_LEAVES and not part.absent_leaves_fault:
        raise Unmodelled(f"{instruction}[{name}]")
    return None
