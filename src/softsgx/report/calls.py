"""The calls of a trace: each ioctl, mmap, munmap, mprotect and mremap with all its arguments.

The `IoctlArguments` and `IoctlResults` of an ioctl are joined with its `CallBegun` and `CallEnded`.
Calls come in the order in which they ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from softsgx.report.jsonl import FORMAT


class TraceError(ValueError):
    """Not a trace, or one of another format. The text is one line."""


@dataclass
class Call:
    """`event` is the number of its CallBegun, `begun_ns` its time in nanoseconds; `fields` has the
    arguments, and those in the block of an ioctl; `results` is what the ioctl wrote back."""

    event: int
    name: str
    thread: str
    begun_ns: int
    fields: dict[str, int]
    results: dict[str, int] = field(default_factory=dict)
    result: int = 0


def header(lines: Iterable[str]) -> dict[str, Any]:
    """The first line of a trace. TraceError if it is not one."""
    first = next(iter(lines), "")
    try:
        found: Any = json.loads(first)
        number = found["softsgx_trace"]
    except (ValueError, KeyError, TypeError):
        raise TraceError("not a trace of softsgx in JSON lines") from None
    if number != FORMAT:
        raise TraceError(f"a trace of format {number}; this softsgx reads {FORMAT}")
    return dict(found)


def calls(lines: Iterable[str]) -> Iterator[Call]:
    """The calls in the lines after the header. A truncated line ends them."""
    open_: dict[int, list[Call]] = {}  # by processor, the innermost last
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        what = entry.get("what")
        if what == "CallBegun":
            call = Call(
                entry["event"], entry["name"], entry["thread"], entry["ns"], _numbers(entry)
            )
            open_.setdefault(entry["cpu"], []).append(call)
            continue
        stack = open_.get(entry.get("cpu"), [])
        if not stack:
            continue
        if what == "IoctlArguments":
            stack[-1].fields.update(_numbers(entry))
        elif what == "IoctlResults":
            stack[-1].results.update(_numbers(entry))
        elif what == "CallEnded":
            call = stack.pop()
            call.result = entry["result"]
            yield call


def _numbers(entry: dict[str, Any]) -> dict[str, int]:
    fields: dict[str, Any] = entry["fields"]
    return {n: int(v, 16) if isinstance(v, str) else int(v) for n, v in fields.items()}
