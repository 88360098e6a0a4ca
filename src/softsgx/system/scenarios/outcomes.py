"""What the events of a machine mean for the step of a schedule in which they are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.report.fields import SHORT, end_text, errno_or_value, exception_text, exit_text
from softsgx.report.lines import text_of

if TYPE_CHECKING:
    from softsgx.sim import Event


def outcome_words(event: Event) -> str:
    """What a reader of a table must know: refusals with their rule, results, signals; else ""."""
    words = _WORDS.get(type(event))
    return words(event) if words is not None else ""


def event_words(event: Event) -> str:
    """All of an event, as in a trace in text."""
    if type(event) not in SHOWN:
        return ""
    what, cpu, details = text_of(event)
    return f"{what} {details}" if cpu is None else f"cpu {cpu}: {what} {details}"


def _leaf(e: c.LeafDone | c.LeafFaulted) -> str:
    return f"{e.leaf}: {end_text(e)} {e.rule}".rstrip()


def _left(e: c.Left) -> str:
    return "" if e.vector < 0 else exit_text(e.vector)


def _name(name: str) -> str:
    return name.replace(SHORT, "").replace("SGX_IOC_", "")


_WORDS: Final[dict[type, Callable[[Any], str]]] = {
    c.LeafDone: lambda e: _leaf(e) if e.rule else "",
    c.LeafFaulted: _leaf,
    c.AccessFaulted: lambda e: f"{exception_text(e.vector, e.code)} {e.rule}".rstrip(),
    c.InstructionFaulted: lambda e: f"{exception_text(e.vector, e.code)} {e.rule}".rstrip(),
    c.Left: _left,
    k.CallRefused: lambda e: f"{e.rule}: {errno_or_value(-e.errno)}",
    k.CallEnded: lambda e: f"{_name(e.name)} returns {errno_or_value(e.result)}",
    k.PageFaultEnded: lambda e: f"page fault: {e.outcome}",
    k.SignalSent: lambda e: f"{e.signal}",
    k.VdsoReturned: lambda e: f"the vDSO returns {exception_text(e.vector, e.code)}",
}
SHOWN: Final = frozenset(
    {
        *_WORDS,
        *(c.TlbFilled, c.TlbFlushed, c.Entered, c.EpcmChanged, c.PteChanged),
        *(k.CallBegun, k.IoctlArguments, k.IoctlResults, k.PageFaultBegun),
    }
)
"""Events that a page shows. Those of scheduling are what it is made of."""
