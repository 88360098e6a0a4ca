"""The permission changes of a recorded program: `softsgx run --trace FILE`, JSON lines.

What a runtime does around each change is not taken from the trace but from the runtime compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.lab.workloads.base import Workload
from softsgx.report.calls import Call, calls, header
from softsgx.report.calls import TraceError as BadTrace
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps

RECORDED: Final = "recorded:"
# Changes of pages beyond this number are left out: the EPC of a bench is small.
PAGES_MAX: Final = 4096
CHANGES_MAX: Final = 2000
# Cycles before each change of a thread, at least and at most.
_PAUSE: Final = 60_000
_PAUSE_MAX: Final = 2_000_000


class TraceError(ValueError):
    """A trace that cannot be used; the text names the file and why."""


class Change(NamedTuple):
    """One change: thread, time in seconds, first page, number of pages, rights."""

    thread: int
    at: float
    first: int
    pages: int
    rights: int


class Recorded(Workload):
    """The changes of a trace. A thread makes the changes of one recorded thread, or of several."""

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
        """The number of threads that made changes, at most n."""
        return min(n, len(self.threads))

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """The changes of one recorded thread, or of several if there are more of them than n."""
        mine = t.seat.number
        changers = self.changers(bench.combination.n)
        before = -1.0
        for change in self.all:
            if self.threads.index(change.thread) % changers != mine:
                continue
            pause = _PAUSE
            if before >= 0:
                mhz = bench.profile.cycles["clock_mhz"]
                pause = min(_PAUSE_MAX, max(_PAUSE, int((change.at - before) * 1e6 * mhz)))
            before = change.at
            yield from t.wait(pause)
            yield from bench.change(t, change.first, change.pages, change.rights)


def compact(changes: list[Change]) -> tuple[list[Change], int]:
    """The changes with pages renumbered from 0 without gaps, and the number of pages."""
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
    """All changes of permissions in a trace, from the initialised enclave on, in order.

    RESTRICT_PERMISSIONS and mprotect() by one thread on one range, one after the other, are one
    change, to the rights of mprotect(). TraceError if it is no trace.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TraceError(f"{path}: not UTF-8 text") from None
    try:
        header(lines)
    except BadTrace as error:
        raise TraceError(f"{path}: {error}") from None
    return _changes(calls(lines[1:]))


def _changes(found: Iterable[Call]) -> list[Change]:
    bases: dict[int, int] = {}
    running = False
    threads: dict[str, int] = {}
    last: dict[int, tuple[str, int]] = {}
    changes: list[Change] = []
    for call in found:
        name = call.name.removeprefix("SGX_IOC_ENCLAVE_").lower()
        fields = call.fields
        if name == "create" and "base" in fields:
            bases[fields.get("fd", -1)] = fields["base"]
        running = running or (name == "init" and not call.result)
        if not running:
            continue
        if name == "restrict_permissions":
            length = call.results.get("count", 0)
            base = bases.get(fields.get("fd", -1), 0)
            start, rights = base + fields["offset"], fields["permissions"]
        elif name == "mprotect" and not call.result:
            start, length, rights = fields["address"], fields["length"], fields["prot"]
        else:
            continue
        if not length or rights & ~RWX or rights & (R | W) == W:
            continue
        thread = threads.setdefault(call.thread, len(threads))
        pages = (length + PAGE_SIZE - 1) >> PAGE_SHIFT
        change = Change(thread, call.begun_ns / 1e9, start >> PAGE_SHIFT, pages, rights)
        before, at = last.get(thread, ("", -1))
        if before not in ("", name) and changes[at][2:4] == change[2:4]:
            if name == "mprotect":
                changes[at] = changes[at]._replace(rights=rights)
            last[thread] = "", -1
            continue
        last[thread] = name, len(changes)
        changes.append(change)
    return changes
