"""Counts of what happened, and the table that `--stats` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.report.fields import errno_or_value, failed, status_text, vector_text
from softsgx.sim import Event, IpiSent
from softsgx.spec.faults import VECTOR_NAMES

_EVICTS: Final = "EWB"
_LOADS: Final = frozenset({"ELDB", "ELDU", "ELDBC", "ELDUC"})
_WIDTH: Final = 92
_HEAD: Final = 13


class Stats:
    """A listener that counts; `handlers` are for `Log.subscribe_to`.

    `leaves` counts by name, `refused` by leaf, how it ended, and rule; the others likewise.
    """

    def __init__(self) -> None:
        self.leaves: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.accesses: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.signals: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.entries = 0
        self.resumed = 0
        self.fills = 0
        self.flushes = 0
        self.ipis = 0
        self.evicted = 0
        self.loaded = 0
        self.handlers: dict[type, Callable[[Any], None]] = {
            c.LeafDone: self._leaf_done,
            c.LeafFaulted: self._leaf_faulted,
            c.AccessFaulted: self._access,
            c.InstructionFaulted: self._instruction,
            c.TlbFilled: self._fill,
            c.TlbFlushed: self._flush,
            c.Entered: self._entered,
            c.Left: self._left,
            k.CallEnded: self._call,
            k.PageFaultEnded: self._fault,
            k.SignalSent: self._signal,
            k.VdsoReturned: self._vdso,
            k.FailureInjected: self._injected,
            IpiSent: self._ipi,
        }

    def __call__(self, event: Event) -> None:
        """Count one event."""
        handler = self.handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _leaf_done(self, e: c.LeafDone) -> None:
        self.leaves[e.leaf] += 1
        if e.rule:
            self.refused[f"{e.leaf} {status_text(e.status)} {e.rule}"] += 1
        elif e.leaf == _EVICTS:
            self.evicted += 1
        elif e.leaf in _LOADS:
            self.loaded += 1

    def _leaf_faulted(self, e: c.LeafFaulted) -> None:
        self.leaves[e.leaf] += 1
        self.refused[f"{e.leaf} {vector_text(e.vector)} {e.rule}"] += 1

    def _access(self, e: c.AccessFaulted) -> None:
        self.accesses[e.rule] += 1

    def _instruction(self, e: c.InstructionFaulted) -> None:
        self.accesses[f"{VECTOR_NAMES.get(e.vector, e.vector)} {e.rule}"] += 1

    def _fill(self, _event: c.TlbFilled) -> None:
        self.fills += 1

    def _flush(self, _event: c.TlbFlushed) -> None:
        self.flushes += 1

    def _entered(self, e: c.Entered) -> None:
        if e.resumed:
            self.resumed += 1
        else:
            self.entries += 1

    def _left(self, e: c.Left) -> None:
        if e.vector < 0:
            self.exits["EEXIT"] += 1
        elif e.vector in VECTOR_NAMES:
            self.exits[f"AEX by {VECTOR_NAMES[e.vector]}"] += 1
        else:
            self.exits["AEX by interrupt"] += 1

    def _call(self, e: k.CallEnded) -> None:
        self.calls[e.name] += 1
        if failed(e.result):
            self.failed[f"{e.name} {errno_or_value(e.result)}"] += 1

    def _fault(self, e: k.PageFaultEnded) -> None:
        self.faults[e.outcome] += 1

    def _signal(self, e: k.SignalSent) -> None:
        self.signals[e.signal] += 1

    def _vdso(self, e: k.VdsoReturned) -> None:
        self.signals[f"{vector_text(e.vector)} returned by the vDSO"] += 1

    def _injected(self, e: k.FailureInjected) -> None:
        self.injected[e.site] += 1

    def _ipi(self, e: IpiSent) -> None:
        self.ipis += len(e.cpus)

    def json(self) -> dict[str, dict[str, int]]:
        """All counts as plain data: a section, and in it what was counted, the most frequent first.

        Sections: leaves, refused, calls, failed, accesses, faults, exits, signals, injected, and
        numbers.
        """
        counted = "leaves refused calls failed accesses faults exits signals injected".split()
        numbers = ("entries", "resumed", "fills", "flushes", "ipis", "evicted", "loaded")
        found = {name: dict(getattr(self, name).most_common()) for name in counted}
        return found | {"numbers": {name: getattr(self, name) for name in numbers}}

    def text(self, further: Iterable[tuple[str, str]] = ()) -> str:
        """The table; `further` are rows counted elsewhere."""
        augmented = self.leaves["EAUG"] - sum(
            n for what, n in self.refused.items() if what.startswith("EAUG ")
        )
        pages = {"added by EAUG": augmented, "evicted": self.evicted, "reloaded": self.loaded}
        tlb = {"fills": self.fills, "flushes": self.flushes}
        entries = {"EENTER": self.entries, "ERESUME": self.resumed}
        sections: list[tuple[str, dict[str, int]]] = [
            ("leaves", self.leaves),
            ("  refused", self.refused),
            ("calls", self.calls),
            ("  failed", self.failed),
            ("accesses", {f"refused {what}": n for what, n in self.accesses.items()}),
            ("page faults", self.faults),
            ("signals", self.signals),
            ("injected", self.injected),
            ("EPC pages", pages),
            ("entries", entries),
            ("exits", self.exits),
            ("TLB", tlb),
            ("IPIs", {"": self.ipis}),
        ]
        rows = [(name, _words(counts)) for name, counts in sections]
        rows += [(name, [text]) for name, text in further]
        return "".join(_row(name, words) for name, words in rows if words)


def _words(counts: dict[str, int]) -> Sequence[str]:
    """The most frequent first, then by name; zeros are left out."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"{what} {n}".strip() for what, n in ordered if n]


def _row(name: str, words: Sequence[str]) -> str:
    lines, line = [], f"  {name:{_HEAD}}"
    for number, word in enumerate(words):
        piece = word + ("," if number + 1 < len(words) else "")
        if len(line) + len(piece) > _WIDTH and line.strip() != name.strip():
            lines.append(line.rstrip())
            line = " " * (_HEAD + 2)
        line += f"{piece} "
    lines.append(line.rstrip())
    return "\n".join(lines) + "\n"
