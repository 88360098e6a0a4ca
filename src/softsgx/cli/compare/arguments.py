"""Argument types of `softsgx compare`: lists of names, numbers, profiles of prices."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from typing import Final

from softsgx.lab.compare import N_MAX
from softsgx.lab.designs import DESIGNS
from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.prices import PriceError, Profile, profile
from softsgx.lab.workloads import WORKLOADS, workload
from softsgx.lab.workloads.recorded import RECORDED, TraceError

_JOBS_MAX: Final = 1024


def failure(text: str) -> tuple[str, str]:
    """An argument type: DESIGN/FAILURE."""
    design, _, name = text.partition("/")
    if design not in DESIGNS or name not in FAILURES:
        raise argparse.ArgumentTypeError(
            f"{text!r}: not DESIGN/FAILURE; designs: {', '.join(DESIGNS)};"
            f" failures: {', '.join(FAILURES)}"
        )
    return design, name


def names(what: str, known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """An argument type: a list of known names."""

    def parse(text: str) -> tuple[str, ...]:
        found = _parts(text)
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"{name!r}: unknown {what}; known are {', '.join(known)}"
                )
        return found

    return parse


def workloads(text: str) -> tuple[str, ...]:
    """An argument type: names of workloads, or recorded:FILE."""
    found = _parts(text)
    for name in found:
        if name.startswith(RECORDED):
            try:
                workload(name)
            except TraceError as error:
                raise argparse.ArgumentTypeError(str(error)) from None
        elif name not in WORKLOADS:
            known = ", ".join([*WORKLOADS, f"{RECORDED}FILE"])
            raise argparse.ArgumentTypeError(f"{name!r}: unknown workload; known are {known}")
    return found


def processors(text: str) -> tuple[int, ...]:
    """An argument type: numbers of logical processors; returns them ascending."""
    return tuple(sorted({_count(part, N_MAX) for part in _parts(text)}))


def jobs(text: str) -> int:
    """An argument type: a number of processes."""
    return _count(text, _JOBS_MAX)


def profiles(text: str) -> tuple[Profile, ...]:
    """An argument type: profiles of prices, built in or in files."""
    found: dict[str, Profile] = {}
    for name in text.split(","):
        try:
            each = profile(name)
        except PriceError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if each.name in found:
            raise argparse.ArgumentTypeError(f"{name}: two profiles called {each.name}")
        found[each.name] = each
    return tuple(found.values())


def _count(text: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: not a number from 1 to {most}")
    return int(text)


def _parts(text: str) -> tuple[str, ...]:
    parts = text.split(",")
    for part in parts:
        if parts.count(part) > 1:
            raise argparse.ArgumentTypeError(f"{part!r}: twice in the list")
    return tuple(parts)
