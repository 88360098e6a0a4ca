"""The comparison with published figures as text: a table, and its notes below it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Final

from softsgx.lab.prices import Profile
from softsgx.lab.validate.target import Target

WIDTH: Final = 120

_COLUMNS: Final[tuple[tuple[str, str, Callable[[Target], str]], ...]] = (
    ("target", "<", lambda t: t.what),
    ("source", "<", lambda t: t.source),
    ("unit", "<", lambda t: t.unit),
    ("published", ">", lambda t: _figure(t.published, t.published_to)),
    ("model", ">", lambda t: _figure(t.model, t.model_to)),
    ("ratio", ">", lambda t: "" if t.ratio is None else f"{t.ratio:.2f}"),
)


def text(found: list[Target], profile: Profile) -> str:
    """The table of targets, at most WIDTH columns wide."""
    notes: list[str] = []
    rows = [(*(title for title, _, _ in _COLUMNS), "verdict")]
    for target in found:
        verdict = target.verdict
        if target.note:
            if target.note not in notes:
                notes.append(target.note)
            verdict += f" [{notes.index(target.note) + 1}]"
        rows.append((*(cell(target) for _, _, cell in _COLUMNS), verdict))
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = [f"prices: {profile.name}, {profile.cycles['clock_mhz']} MHz"]
    for row in rows:
        cells = [
            f"{cell:{align}{width}}"
            for cell, (_, align, _), width in zip(row, _COLUMNS, widths, strict=False)
        ]
        lines.append("  ".join([*cells, row[-1]]))
    for number, note in enumerate(notes, 1):
        indent = f"[{number}] "
        lines += textwrap.wrap(
            note, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
        )
    return "\n".join(lines) + "\n"


def _figure(low: float, high: float | None) -> str:
    return _number(low) if high is None else f"{_number(low)}..{_number(high)}"


def _number(value: float) -> str:
    if value == int(value) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
