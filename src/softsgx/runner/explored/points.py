"""Where a scenario of a binary has points, besides ENCLU, TLB misses and PAUSE."""

from __future__ import annotations

from enum import StrEnum

from softsgx.image.errors import ImageError
from softsgx.runner.explored.symbols import Symbols


class Points(StrEnum):
    """The granularity of a scenario.

    MISSES       nothing else
    ACCESS       loads and stores of memory that others can reach
    INSTRUCTION  each instruction of a function or a range, with an AEX and an ERESUME
    """

    MISSES = "misses"
    ACCESS = "access"
    INSTRUCTION = "instruction"


def points_named(name: str) -> Points:
    """The granularity of a name. Raises ValueError."""
    try:
        return Points(name)
    except ValueError:
        known = ", ".join(Points)
        raise ValueError(f"points {name!r}: known are {known}") from None


def stepped_range(within: str | tuple[int, int], symbols: Symbols) -> tuple[int, int]:
    """Linked addresses [begin, end) of what is single-stepped. Raises ImageError."""
    if isinstance(within, str):
        if not within:
            raise ImageError("within", "a function or a range of addresses is needed")
        return symbols.function(within)
    begin, end = within
    if not symbols.in_code(begin, end):
        raise ImageError(f"within {begin:#x} to {end:#x}", "not in code of the file")
    return begin, end


def granularity_text(points: Points, within: str | tuple[int, int]) -> str:
    """A granularity as a short phrase."""
    if points is Points.ACCESS:
        return "accesses to shared memory"
    if points is Points.INSTRUCTION:
        where = within if isinstance(within, str) else f"{within[0]:#x} to {within[1]:#x}"
        return f"each instruction of {where}"
    return "TLB misses and ENCLU"
