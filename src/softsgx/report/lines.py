"""Traces as text: an event per line, in columns of fixed width, after a legend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, Final

from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.report.fields import (
    call_text,
    end_text,
    errno_or_value,
    exception_text,
    exit_text,
    number,
)
from softsgx.sim import Event, IpiSent, IpiTaken
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import word_text
from softsgx.spec.translation import ABORT, ACCESS_NAMES, pte_text, rights_text

LEGEND: Final = """\
# event  number of the event          lp  logical processor ("-": none)
# ms     since the first event        what:
#   call     a system call or ioctl begins      return   it ends
#   args     the ioctl's argument block         results  what is written back to it
#   fault    the kernel handles a page fault    handled  what became of it
#   leaf     an SGX leaf ended with a status    refused  by which rule: a leaf, access, instruction
#   enter    into an enclave                    leave    EEXIT, or AEX by an exception or interrupt
#   tlb+     a translation was loaded           tlb-     all were dropped
#   epcm     an EPCM entry changed              pte      a page-table entry changed
#   ipi      interrupts sent or taken           signal   to the program
#   vdso     an exception for the caller        thread   a thread runs on this processor
#   process  one begins or ends                 injected a failure that was asked for
#   other    locks, steps and draws of the scheduler
"""
HEADING: Final = f"# {'event':>6} {'ms':>12} {'lp':>4}  {'what':8} details\n"

Text = tuple[str, int | None, str]  # what, logical processor, details


class Lines:
    """Writes a trace as text."""

    def __init__(self, stream: BinaryIO, header: dict[str, Any]) -> None:
        self._stream = stream
        self._first: int | None = None
        told = "".join(f"# {name}: {value}\n" for name, value in header.items())
        stream.write((told + LEGEND + HEADING).encode())

    def event(self, ns: int, seq: int, event: Event) -> None:
        """One event, with its number and a time in nanoseconds."""
        if self._first is None:
            self._first = ns
        self._stream.write(line(ns - self._first, seq, event).encode() + b"\n")

    def close(self) -> None:
        """Nothing is left to write."""


def text_of(event: Event) -> Text:
    """An event without its number and time."""
    return _TEXTS.get(type(event), _other)(event)


def line(ns: int, seq: int, event: Event) -> str:
    """One event; `ns` since the first."""
    what, lp, details = text_of(event)
    where = "-" if lp is None else str(lp)
    return f"{seq:>8} {ns / 1e6:>12.4f} {where:>4}  {what:8} {details}".rstrip()


def _leaf(e: c.LeafDone | c.LeafFaulted) -> str:
    return f"{e.leaf} rbx={e.rbx:#x} rcx={e.rcx:#x} rdx={e.rdx:#x}: {end_text(e)}"


def _done(e: c.LeafDone) -> Text:
    return ("refused", e.lp, f"{_leaf(e)} {e.rule}") if e.rule else ("leaf", e.lp, _leaf(e))


def _entry(e: c.TlbFilled) -> Text:
    kind = " abort page" if e.entry & ABORT else ""
    return "tlb+", e.lp, f"{e.page << PAGE_SHIFT:#x} {rights_text(e.entry)}{kind}"


def _epcm(e: c.EpcmChanged) -> Text:
    of = f"page {e.page} of SECS {e.secs} at {e.linear:#x}"
    return "epcm", e.lp, f"{of}: {word_text(e.before)} -> {word_text(e.after)} {e.leaf}"


def _left(e: c.Left) -> Text:
    return "leave", e.lp, f"enclave {e.eid} tcs={e.tcs:#x}: {exit_text(e.vector)}"


def _pte(e: c.PteChanged) -> Text:
    words = f"{pte_text(e.before)} -> {pte_text(e.after)}"
    return "pte", None, f"{e.page << PAGE_SHIFT:#x} of {e.space}: {words}"


def _fields(what: str, e: k.IoctlArguments | k.IoctlResults) -> Text:
    return what, e.cpu, " ".join(f"{n}={number(n, v)}" for n, v in e.fields)


def _other(e: Any) -> Text:
    details = " ".join(f"{name}={getattr(e, name)}" for name in e._fields)
    return "other", None, f"{type(e).__name__} {details}"


_TEXTS: Final[dict[type, Callable[[Any], Text]]] = {
    c.LeafDone: _done,
    c.LeafFaulted: lambda e: ("refused", e.lp, f"{_leaf(e)} {e.rule}"),
    c.AccessFaulted: lambda e: (
        "refused",
        e.lp,
        f"{ACCESS_NAMES[e.access]} {e.linear:#x}: {exception_text(e.vector, e.code)} {e.rule}",
    ),
    c.InstructionFaulted: lambda e: (
        "refused",
        e.lp,
        f"instruction at {e.rip:#x}: {exception_text(e.vector, e.code)} {e.rule}",
    ),
    c.TlbFilled: _entry,
    c.TlbFlushed: lambda e: ("tlb-", e.lp, e.cause),
    c.Entered: lambda e: (
        "enter",
        e.lp,
        f"enclave {e.eid} tcs={e.tcs:#x} cssa={e.cssa}{' ERESUME' if e.resumed else ' EENTER'}",
    ),
    c.Left: _left,
    c.EpcmChanged: _epcm,
    c.PteChanged: _pte,
    k.CallBegun: lambda e: ("call", e.cpu, f"{call_text(e.name, e.fields)} thread {e.thread}"),
    k.IoctlArguments: lambda e: _fields("args", e),
    k.IoctlResults: lambda e: _fields("results", e),
    k.CallRefused: lambda e: (
        "refused",
        e.cpu,
        f"{call_text(e.rule, e.fields)}: {errno_or_value(-e.errno)}",
    ),
    k.CallEnded: lambda e: ("return", e.cpu, f"{e.name}: {errno_or_value(e.result)}"),
    k.PageFaultBegun: lambda e: (
        "fault",
        e.cpu,
        f"{e.address:#x} code={e.code:#x} thread {e.thread}",
    ),
    k.PageFaultEnded: lambda e: ("handled", e.cpu, f"{e.address:#x} {e.outcome}"),
    k.ThreadSwitchedIn: lambda e: ("thread", e.cpu, f"{e.thread} of process {e.process}"),
    k.SignalSent: lambda e: (
        "signal",
        e.cpu,
        f"{e.signal} address={e.address:#x} {exception_text(e.vector, e.code)} thread {e.thread}",
    ),
    k.VdsoReturned: lambda e: (
        "vdso",
        e.cpu,
        f"{exception_text(e.vector, e.code)} address={e.address:#x} thread {e.thread}",
    ),
    k.FailureInjected: lambda e: ("injected", None, f"{e.site} fails, time {e.time}"),
    k.ProcessStarted: lambda e: (
        "process",
        None,
        f"{e.process} executes {e.path}" if e.path else f"{e.process} forked by {e.parent}",
    ),
    k.ProcessEnded: lambda e: ("process", None, f"{e.process}: {e.outcome}"),
    IpiSent: lambda e: ("ipi", None, f"sent to {', '.join(map(str, e.cpus))} by {e.task.name}"),
    IpiTaken: lambda e: ("ipi", e.cpu, f"taken, from {e.task.name}"),
}
