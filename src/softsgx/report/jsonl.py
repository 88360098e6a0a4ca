"""Traces as JSON lines: a header, then one event a line. docs/run.md has the format."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, BinaryIO, Final, get_type_hints

from softsgx.events import cpu, kernel
from softsgx.events.kernel import Fields
from softsgx.report.fields import is_hex, plain
from softsgx.sim import Event

FORMAT: Final = 1

# The classes that have only numbers, texts and arguments as fields.
_SIMPLE: Final = frozenset(
    kind
    for module in (cpu, kernel)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, tuple)
)
Render = Callable[[Any], str]


class JsonLines:
    """Writes a trace. `header` is what the first line has besides the number of the format."""

    def __init__(self, stream: BinaryIO, header: dict[str, Any]) -> None:
        self._stream = stream
        self._write(json.dumps({"softsgx_trace": FORMAT, **header}))

    def event(self, ns: int, seq: int, event: Event) -> None:
        """One event, with its number and a time in nanoseconds."""
        self._write(line(ns, seq, event))

    def close(self) -> None:
        """Nothing is left to write."""

    def _write(self, text: str) -> None:
        self._stream.write(text.encode() + b"\n")


def line(ns: int, seq: int, event: Event) -> str:
    """One event as a JSON object, without a newline."""
    return f'{{"event": {seq}, "ns": {ns}, {_render(type(event))(event)}}}'


@cache
def _render(kind: type[Any]) -> Render:
    """Renders what follows the time in events of one class; made once, as traces are long."""
    if kind not in _SIMPLE:
        return _any
    hints = get_type_hints(kind)
    parts = [f'"what": "{kind.__name__}"']
    values: list[Callable[[Any], object]] = []
    for name in hints:
        if hints[name] is int:
            parts.append(f'"{name}": "%#x"' if is_hex(name) else f'"{name}": %d')
            values.append(_same)
        else:
            parts.append(f'"{name}": %s')
            values.append(_quoted if hints[name] in (str, bool) else _object)
    form = ", ".join(parts)

    def render(event: tuple[Any, ...]) -> str:
        return form % tuple([f(v) for f, v in zip(values, event, strict=True)])

    return render


def _any(event: Any) -> str:
    values = {"what": type(event).__name__}
    values.update({name: plain(getattr(event, name)) for name in event._fields})
    return json.dumps(values)[1:-1]


def _same(value: object) -> object:
    return value


@lru_cache(maxsize=4096)
def _quoted(value: str | bool) -> str:
    return json.dumps(value)


def _object(fields: Fields) -> str:
    return json.dumps({n: f"{v:#x}" if is_hex(n) else v for n, v in fields})
