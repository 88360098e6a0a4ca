"""One stream on two machines, and the first thing in which they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from softsgx.spec.status import status_name
from tests.differential import observe
from tests.differential.leaves import FAULT
from tests.differential.operations import Op, Setting
from tests.differential.stage import Stage

SLOW_EVERY: Final = 8
_SHOWN_MAX: Final = 8


class Difference(NamedTuple):
    """After the operation with number `at` of the stream, `what` is not the same."""

    at: int
    what: str
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        lines = list(_unequal(self.ours, self.theirs, ""))
        more = [f"... and {len(lines) - _SHOWN_MAX} more"] if len(lines) > _SHOWN_MAX else []
        return "\n  ".join([f"operation {self.at}: {self.what}", *lines[:_SHOWN_MAX], *more])


def _unequal(a: Any, b: Any, path: str) -> Iterator[str]:
    """The parts of two values that differ."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for n, (x, y) in enumerate(zip(a, b, strict=True)):
            if x != y:
                yield from _unequal(x, y, f"{path}[{n}]")
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                yield f"{path}[{key:#x}] ours {a.get(key)}, theirs {b.get(key)}"
    else:
        yield f"{path} ours {a}, theirs {b}".strip()


class Seen:
    """What a run has been through: how often each leaf ended how, and each kind of end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def look(self, stage: Stage, result: Any) -> None:
        """After an operation."""
        for leaf, *more in stage.leaves.seen:
            how = f"vector {more[-3]}" if FAULT in more else status_name(more[-1] or 0)
            self.counts[f"{leaf}: {how}"] += 1
        if isinstance(result, tuple) and result[0] == "stands at":
            self.counts[f"left at {result[1]}"] += 1


def compare(
    driver: Path, linux: str, setting: Setting, ops: Sequence[Op], seen: Seen | None = None
) -> Difference | None:
    """Tell a stream to both drivers; the first difference, None if there is none."""
    ours, theirs = Stage(None, linux, setting), Stage(driver, linux, setting)
    try:
        return _compare(ours, theirs, ops, seen)
    finally:
        ours.close()
        theirs.close()


def _compare(ours: Stage, theirs: Stage, ops: Sequence[Op], seen: Seen | None) -> Difference | None:
    for at, op in enumerate(ops):
        a, b = ours.do(op), theirs.do(op)
        if seen is not None:
            seen.look(ours, a)
        found = _ended(ours, theirs, at, f"result of {op.name}", a, b)
        if found is None and not ours.broken:
            found = _state(ours, theirs, at, not at % SLOW_EVERY)
        if found is not None or ours.broken:
            return found
    found = _state(ours, theirs, len(ops), True)
    if found is not None:
        return found
    a, b = ours.finish(), theirs.finish()
    found = _ended(ours, theirs, len(ops), "results of the ends", a, b)
    if found is None and not ours.broken:
        found = _state(ours, theirs, len(ops), True) or _kept(ours, theirs, len(ops))
    if seen is not None:
        seen.counts["everything ended" if not ours.broken and "stuck" not in a else "broken"] += 1
    return found


def _ended(ours: Stage, theirs: Stage, at: int, what: str, a: Any, b: Any) -> Difference | None:
    """An error in Python is a difference even if both sides have it; a KernelBug is not."""
    if ours.wrong or theirs.wrong:
        return Difference(at, what, ours.wrong or a, theirs.wrong or b)
    if a != b:
        return Difference(at, what, (a, ours.broken), (b, theirs.broken))
    return None


def _kept(ours: Stage, theirs: Stage, at: int) -> Difference | None:
    """Memory that the C code has not given back although, in ours, no enclave is left."""
    kept = theirs.kept()
    if kept and ours.empty():
        return Difference(at, "memory of the kernel", ours.kept(), kept)
    return None


def _state(ours: Stage, theirs: Stage, at: int, slow: bool) -> Difference | None:
    for look in (observe.quick, observe.slow)[: 1 + slow]:
        for what, a, b in look(ours, theirs):
            if a != b:
                return Difference(at, what, a, b)
    return None
