"""The permission changes of a recorded program: `softsgx run --trace FILE`, JSON lines.

Read leniently, because a trace says much more: a record counts if it names a call that changes
rights (`mprotect`, or the ioctl RESTRICT_PERMISSIONS) and has an address or offset, a length and
rights. Records of another process's memory, failed calls and everything else are passed over.
What a runtime does around each change is not taken from the trace but from the runtime compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.lab.workloads.base import Workload
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps

RECORDED: Final = "recorded:"
# More pages than this are folded onto each other: the EPC of a bench is small.
PAGES_MAX: Final = 4096
CHANGES_MAX: Final = 2000
# Cycles between two changes of a thread where the trace has no times.
_PAUSE: Final = 60_000
_PAUSE_MAX: Final = 2_000_000


class TraceError(ValueError):
    """A trace that cannot be used; the text names file, line and why."""


class Change(NamedTuple):
    """One change: the thread, when (seconds, or -1), first page and how many, rights."""

    thread: int
    at: float
    first: int
    pages: int
    rights: int


class Recorded(Workload):
    """The changes of a trace, each by a thread that stands for the one that made it."""

    name = RECORDED
    about = "the permission changes that `softsgx run --trace FILE` recorded"

    def __init__(self, path: str) -> None:
        changes = read(path)
        if not changes:
            raise TraceError(f"{path}: no change of enclave page permissions in it")
        self.path = path
        self.all, self.pages = compact(changes[:CHANGES_MAX])
        self.threads = list(dict.fromkeys(change.thread for change in self.all))

    def changers(self, n: int) -> int:
        """As many threads as made changes, at most n."""
        return min(n, len(self.threads))

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """The changes of one thread, or of several where n is smaller."""
        mine = t.seat.number
        changers = self.changers(bench.combination.n)
        before = -1.0
        for change in self.all:
            if self.threads.index(change.thread) % changers != mine:
                continue
            pause = _PAUSE
            if change.at >= 0 and before >= 0:
                mhz = bench.profile.cycles["clock_mhz"]
                pause = min(_PAUSE_MAX, max(1000, int((change.at - before) * 1e6 * mhz)))
            before = change.at
            yield from t.wait(pause)
            yield from bench.change(t, change.first, change.pages, change.rights)


def compact(changes: list[Change]) -> tuple[list[Change], int]:
    """The same changes over pages that are numbered from 0 without gaps; how many pages."""
    used = sorted({page for c in changes for page in range(c.first, c.first + c.pages)})
    number = {page: at for at, page in enumerate(used[:PAGES_MAX])}
    kept = [
        change._replace(first=number[change.first], pages=_known(change, number))
        for change in changes
        if change.first in number
    ]
    return kept, len(number)


def _known(change: Change, number: Mapping[int, int]) -> int:
    """How many pages of a change, from its first on, are kept."""
    return sum(page in number for page in range(change.first, change.first + change.pages))


def read(path: str) -> list[Change]:
    """All changes of permissions in a trace. TraceError if it is no file of JSON objects."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TraceError(f"{path}: not UTF-8 text") from None
    found = []
    bases: dict[int, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise TraceError(f"{path}:{number}: {error}") from None
        if not isinstance(record, dict):
            raise TraceError(f"{path}:{number}: not a JSON object")
        flat = _flat(record)
        _note_base(flat, bases)
        change = _change(flat, bases)
        if change is not None:
            found.append(change)
    return found


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the members of its nested objects beside its own."""
    flat = dict(record)
    for value in record.values():
        if isinstance(value, dict):
            flat = {**value, **flat}
    return flat


def _note_base(record: Mapping[str, Any], bases: dict[int, int]) -> None:
    """Remember where an enclave begins: offsets of ioctls count from there."""
    base = _number(record, "base", "baseaddr", "BASEADDR")
    if base is not None:
        bases[_number(record, "fd", "enclave", "encl") or 0] = base


def _change(record: Mapping[str, Any], bases: Mapping[int, int]) -> Change | None:
    """The change that a record describes, None if it describes something else."""
    call = " ".join(
        str(record.get(key, "")) for key in ("call", "name", "event", "kind", "syscall", "cmd")
    ).lower()
    result = _number(record, "ret", "errno")
    if result is not None and result < 0:
        return None
    length = _number(record, "length", "len", "size")
    thread = _number(record, "tid", "thread", "task", "pid") or 0
    at = record.get("time", record.get("t", record.get("at", -1)))
    seconds = float(at) if isinstance(at, int | float) else -1.0
    if "restrict" in call:
        offset = _number(record, "offset")
        start = _number(record, "address", "addr", "start")
        rights = _number(record, "permissions", "perm", "prot", "rights")
        if start is None and offset is not None:
            base = bases.get(_number(record, "fd", "enclave", "encl") or 0, 0)
            start = base + offset
    elif "mprotect" in call:
        start = _number(record, "address", "addr", "start")
        rights = _number(record, "prot", "permissions", "rights")
        if record.get("sgx") is False or record.get("enclave") is False:
            return None
    else:
        return None
    if start is None or rights is None or not length or rights & ~RWX or rights & (R | W) == W:
        return None
    count = (length + PAGE_SIZE - 1) >> PAGE_SHIFT
    return Change(thread, seconds, start >> PAGE_SHIFT, count, rights)


_LETTERS: Final = {"r": R, "w": W, "x": RWX & ~(R | W), "-": 0, "n": 0}


def _number(record: Mapping[str, Any], *names: str) -> int | None:
    """The first member of these names that is a number: an integer, a text of one, or "rw-"."""
    for name in names:
        value = record.get(name)
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int):
            return value
        if isinstance(value, str):
            try:
                return int(value, 0)
            except ValueError:
                if value and all(letter in _LETTERS for letter in value):
                    return sum(_LETTERS[letter] for letter in dict.fromkeys(value))
    return None
