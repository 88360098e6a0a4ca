"""Traces for ui.perfetto.dev: protos/perfetto/trace/trace_packet.proto of the Perfetto project.

There is a track for each thread, for each logical processor whose thread is not known, and for EPC.
Calls, page faults, leaves and time in an enclave are slices, the rest are instants. The model
executes a leaf in one step, so its slice has no width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, BinaryIO, Final

from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.report.fields import end_text, errno_or_value, exception_text, exit_text, number
from softsgx.report.protobuf import data, integer
from softsgx.sim import Event, IpiSent, IpiTaken
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import VALID, word_text
from softsgx.spec.translation import ACCESS_NAMES

# Numbers of fields, by message.
_PACKET: Final = 1
_TIMESTAMP, _SEQUENCE, _EVENT, _FLAGS, _DESCRIPTOR = 8, 10, 11, 13, 60
_UUID, _NAME, _PROCESS, _THREAD, _PARENT, _COUNTER = 1, 2, 3, 4, 5, 8
_PID, _PROCESS_NAME = 1, 6
_THREAD_PID, _THREAD_TID, _THREAD_NAME = 1, 2, 5
_ANNOTATION, _TYPE, _TRACK, _CATEGORY, _EVENT_NAME, _VALUE = 4, 9, 11, 22, 23, 30
_KEY, _INT, _STRING = 10, 4, 6
_BEGIN, _END, _INSTANT, _COUNT = 1, 2, 3, 4

_OF_SEQUENCE: Final = integer(_SEQUENCE, 1)
_CLEARED: Final = 1  # SEQ_INCREMENTAL_STATE_CLEARED
_ALL: Final = 1  # uuid of the track of the machine
_EPC: Final = 2
_FIRST: Final = 16

Notes = Iterable[tuple[str, int | str]]


class Perfetto:
    """Writes a trace. `header` becomes the name of the machine's track."""

    def __init__(self, stream: BinaryIO, header: dict[str, Any]) -> None:
        self._stream = stream
        self._uuids: dict[tuple[str, str], int] = {}
        self._threads: dict[int, tuple[str, str]] = {}  # logical processor -> thread, process
        self._open: dict[int, int] = {}  # track -> slices that are open
        self._valid = 0  # EPC pages in use
        self._last = 0
        first = "softsgx " + " ".join(f"{name}={value}" for name, value in header.items())
        self._packet(
            integer(_FLAGS, _CLEARED)
            + data(_DESCRIPTOR, integer(_UUID, _ALL) + data(_NAME, first[:512]))
        )
        counter = integer(_UUID, _EPC) + data(_NAME, "EPC pages in use") + data(_COUNTER, b"")
        self._packet(data(_DESCRIPTOR, counter))

    def event(self, ns: int, _seq: int, event: Event) -> None:
        """One event, with a time in nanoseconds."""
        self._last = ns
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, ns, event)

    def close(self) -> None:
        """End the slices that are still open."""
        for track, count in self._open.items():
            for _ in range(count):
                self._emit(self._last, track, _END)
        self._open.clear()

    # Tracks

    def track(self, lp: int) -> int:
        """The track of what happens on a logical processor: that of the thread on it."""
        return self._uuid(*self._threads.get(lp, (f"processor {lp}", "")))

    def runs(self, lp: int, thread: str, process: str) -> None:
        """From now on this thread runs on the processor."""
        self._threads[lp] = (thread, process)

    def _uuid(self, thread: str, process: str) -> int:
        found = self._uuids.get((thread, process))
        if found is not None:
            return found
        parent = _ALL
        if process:
            parent = self._uuids.get(("", process), 0) or self._process(process)
        uuid = self._uuids[thread, process] = _FIRST + len(self._uuids)
        body = integer(_UUID, uuid) + data(_NAME, thread) + integer(_PARENT, parent)
        if process.isdecimal() and thread.isdecimal():
            ids = integer(_THREAD_PID, int(process)) + integer(_THREAD_TID, int(thread))
            body += data(_THREAD, ids + data(_THREAD_NAME, f"thread {thread}"))
        self._packet(data(_DESCRIPTOR, body))
        return uuid

    def _process(self, process: str) -> int:
        uuid = self._uuids["", process] = _FIRST + len(self._uuids)
        body = integer(_UUID, uuid) + data(_NAME, process)
        if process.isdecimal():
            name = data(_PROCESS_NAME, f"process {process}")
            body += data(_PROCESS, integer(_PID, int(process)) + name)
        self._packet(data(_DESCRIPTOR, body))
        return uuid

    # Packets

    def begin(self, ns: int, lp: int, category: str, name: str, notes: Notes = ()) -> None:
        """A slice begins."""
        track = self.track(lp)
        self._open[track] = self._open.get(track, 0) + 1
        self._emit(ns, track, _BEGIN, category, name, notes)

    def end(self, ns: int, lp: int, notes: Notes = ()) -> None:
        """The innermost slice of the track ends."""
        track = self.track(lp)
        if self._open.get(track, 0):
            self._open[track] -= 1
            self._emit(ns, track, _END, "", "", notes)

    def leaf(self, ns: int, lp: int, name: str, notes: Notes) -> None:
        """A slice without width."""
        track = self.track(lp)
        self._emit(ns, track, _BEGIN, "leaf", name, notes)
        self._emit(ns, track, _END)

    def instant(self, ns: int, lp: int, category: str, name: str, notes: Notes = ()) -> None:
        """An event at one moment."""
        self._emit(ns, self.track(lp), _INSTANT, category, name, notes)

    def epcm(self, ns: int, event: c.EpcmChanged) -> None:
        """Count the EPC pages in use."""
        change = bool(event.after & VALID) - bool(event.before & VALID)
        if change:
            self._valid += change
            body = integer(_TYPE, _COUNT) + integer(_TRACK, _EPC) + integer(_VALUE, self._valid)
            self._packet(integer(_TIMESTAMP, ns) + data(_EVENT, body))
        page = event.linear >> PAGE_SHIFT << PAGE_SHIFT
        notes = (
            ("page", event.page),
            ("linear", f"{page:#x}"),
            ("before", word_text(event.before)),
            ("after", word_text(event.after)),
        )
        self.instant(ns, event.lp, "epcm", f"EPCM by {event.leaf}", notes)

    def _emit(
        self,
        ns: int,
        track: int,
        kind: int,
        category: str = "",
        name: str = "",
        notes: Notes = (),
    ) -> None:
        body = _head(kind, track, category, name)
        if notes:
            body += b"".join([_note(key, value) for key, value in notes])
        self._packet(integer(_TIMESTAMP, ns) + data(_EVENT, body))

    def _packet(self, body: bytes) -> None:
        self._stream.write(data(_PACKET, body + _OF_SEQUENCE))


# Most events differ from an earlier one in their numbers only.


@lru_cache(maxsize=4096)
def _head(kind: int, track: int, category: str, name: str) -> bytes:
    body = integer(_TYPE, kind) + integer(_TRACK, track)
    return body + (data(_CATEGORY, category) + data(_EVENT_NAME, name) if name else b"")


@lru_cache(maxsize=4096)
def _note(key: str, value: int | str) -> bytes:
    told = integer(_INT, value) if isinstance(value, int) else data(_STRING, value)
    return data(_ANNOTATION, data(_KEY, key) + told)


def _notes(fields: k.Fields) -> Notes:
    return [(name, number(name, value)) for name, value in fields]


def _leaf(p: Perfetto, ns: int, e: c.LeafDone | c.LeafFaulted) -> None:
    operands = (("rbx", f"{e.rbx:#x}"), ("rcx", f"{e.rcx:#x}"), ("rdx", f"{e.rdx:#x}"))
    p.leaf(ns, e.lp, e.leaf, (*operands, ("end", end_text(e)), ("rule", e.rule)))


def _call_ended(p: Perfetto, ns: int, e: k.CallEnded) -> None:
    p.end(ns, e.cpu, (("result", errno_or_value(e.result)),))


def _refused(p: Perfetto, ns: int, e: c.AccessFaulted) -> None:
    notes = (("address", f"{e.linear:#x}"), ("rule", e.rule))
    name = f"{ACCESS_NAMES[e.access]} refused: {exception_text(e.vector, e.code)}"
    p.instant(ns, e.lp, "refused", name, notes)


def _left(p: Perfetto, ns: int, e: c.Left) -> None:
    p.end(ns, e.lp, (("left by", exit_text(e.vector)),))


_HANDLERS: Final[dict[type, Callable[[Perfetto, int, Any], None]]] = {
    c.LeafDone: _leaf,
    c.LeafFaulted: _leaf,
    c.AccessFaulted: _refused,
    c.InstructionFaulted: lambda p, ns, e: p.instant(
        ns,
        e.lp,
        "refused",
        f"{exception_text(e.vector, e.code)} at {e.rip:#x}",
        (("rule", e.rule),),
    ),
    c.Entered: lambda p, ns, e: p.begin(
        ns, e.lp, "enclave", f"enclave {e.eid}", (("tcs", f"{e.tcs:#x}"), ("cssa", e.cssa))
    ),
    c.Left: _left,
    c.EpcmChanged: lambda p, ns, e: p.epcm(ns, e),
    k.CallBegun: lambda p, ns, e: p.begin(ns, e.cpu, "call", e.name, _notes(e.fields)),
    k.CallEnded: _call_ended,
    k.IoctlArguments: lambda p, ns, e: p.instant(ns, e.cpu, "call", "arguments", _notes(e.fields)),
    k.IoctlResults: lambda p, ns, e: p.instant(ns, e.cpu, "call", "results", _notes(e.fields)),
    k.CallRefused: lambda p, ns, e: p.instant(
        ns,
        e.cpu,
        "refused",
        f"{e.rule}: {errno_or_value(-e.errno)}",
        _notes(e.fields),
    ),
    k.PageFaultBegun: lambda p, ns, e: p.begin(
        ns, e.cpu, "fault", "page fault", (("address", f"{e.address:#x}"), ("code", f"{e.code:#x}"))
    ),
    k.PageFaultEnded: lambda p, ns, e: p.end(ns, e.cpu, (("outcome", e.outcome),)),
    k.ThreadSwitchedIn: lambda p, ns, e: p.runs(e.cpu, e.thread, e.process),
    k.SignalSent: lambda p, ns, e: p.instant(
        ns, e.cpu, "signal", e.signal, (("address", f"{e.address:#x}"),)
    ),
    k.VdsoReturned: lambda p, ns, e: p.instant(
        ns, e.cpu, "signal", f"vDSO returns {exception_text(e.vector, e.code)}"
    ),
    IpiSent: lambda p, ns, e: p.instant(
        ns, e.task.cpu or 0, "ipi", "IPI", (("to", ", ".join(map(str, e.cpus))),)
    ),
    IpiTaken: lambda p, ns, e: p.instant(ns, e.cpu, "ipi", "IPI taken"),
}
