"""What the steps of enclave code touch, for partial-order reduction."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from softsgx.explore.footprint import Footprint, key_of
from softsgx.runner.explored.sharing import granules
from softsgx.sim import Point
from softsgx.sim.touch import ENABLE, READ, WRITE
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.system.scenarios.scenario import MACHINE

_ENTRIES: Final = frozenset({"EENTER", "ERESUME"})
_LOADED: Final = "loaded from page"
_STORED: Final = "stored to page"


def footprint(point: Point, of_machine: Footprint) -> Footprint:
    """The footprint of a step of a scenario that has a point before each access to shared memory.

    `of_machine` is what it is without such points. After a miss, a pause or an entry the code
    touches nothing that is shared, up to its next point; what it touches of the machine is read by
    steps of the kernel only, which conflict with all others.
    """
    kind, touched, _ = point
    name = touched[0] if isinstance(touched, tuple) and touched else None
    if name == "access":
        return _access(point)
    if name == "miss":
        return ((MACHINE, READ), (("linear", touched[1]), READ))  # type: ignore[index] # a tuple
    if kind in _ENTRIES:
        return ((MACHINE, READ), ((kind, key_of(touched)), WRITE))
    if kind in ("pause", "compute"):
        return ((MACHINE, READ),)
    if kind in ("load", "store") and name == "linear":
        return _page(point, of_machine)
    return of_machine


def _access(point: Point) -> Footprint:
    """The granules of an access.

    Two accesses conflict if they have a granule in common and one of them stores. An access of the
    host names its page only (`_page`) and conflicts with those of the page; the keys for that are
    READ here and ENABLE there, since either of them commutes with its like.
    """
    touched: Any = point[1]
    _, address, size = touched
    mode = WRITE if point[2] else READ
    found: dict[Hashable, int] = {}
    for granule in granules(address, size):
        found["granule", granule] = mode
    for page in range(address >> PAGE_SHIFT, (address + size - 1 >> PAGE_SHIFT) + 1):
        found[_STORED if point[2] else _LOADED, page] = READ
    return ((MACHINE, READ), *found.items())


def _page(point: Point, of_machine: Footprint) -> Footprint:
    """An access that names its page only, with what it means for granules."""
    touched: Any = point[1]
    page = touched[1]
    more: Footprint = (((_STORED, page), ENABLE),)
    if point[2]:
        more = (*more, ((_LOADED, page), ENABLE))
    return (*of_machine, *more)
