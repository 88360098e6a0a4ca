"""A comparison as text: a line for each combination, then the conclusions."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Final

from softsgx.lab.compare import MARKS, Comparison, Conclusion, Figures, Row
from softsgx.lab.prices import Profile
from softsgx.lab.verdict import corners_text

_HEAD: Final = (
    "runtime", "design", "call", "lost", "corners", "work", "n", "50 %", "99 %", "99.9 %",
    "EMODPR", "ETRACK", "rounds", "blast", "AEX", "faults", "calls", "exits", "areas",
)  # fmt: skip
LEGEND: Final = (
    "call: time of a change, seen by its caller; lost: time lost on all processors per change, in "
    "us; corners: the least and the greatest of it over all prices. work: share of the innocents' "
    "work lost. n: page faults of innocents; 50, 99, 99.9 %: their latency in us, - if n is too "
    "small for it.",
    "Then per change: EMODPR, ETRACK, rounds of interrupts, blast (processors interrupted), AEX, "
    "faults of all threads, system calls, exits (EEXIT). areas: VMAs added.",
)
_PROSE: Final = 100  # longer lines of prose are hard to read
_COUNTS_AT: Final = _HEAD.index("EMODPR")


def table(comparison: Comparison, ns: Sequence[int], width: int | None = None) -> str:
    """The rows for these numbers of processors; a block for each workload and number.

    Columns for which there is no room in `width` are left out, and named.
    """
    plan = comparison.plan
    first = plan.profiles[0]
    corners = ", ".join(profile.name for profile in plan.profiles)
    rows = [row for row in comparison.rows() if row.combination.n in ns]
    reasons: dict[str, int] = {}
    cells = [_reason(row, reasons) if row.reason else _figures(row, first) for row in rows]
    widths = [
        max(len(line[at]) for line in [_HEAD, *cells] if at < 2 or len(line) == len(_HEAD))
        for at in range(len(_HEAD))
    ]
    shown = _fitting(widths, width)
    lines = wrapped(f"prices: {first.name} (corners: {corners}); seed {plan.seed}", width)
    for text in LEGEND[: 1 if shown <= _COUNTS_AT else 2]:
        lines += wrapped(text, width)
    if shown < len(_HEAD):
        text = f"No room for {', '.join(_HEAD[shown:])}: COLUMNS={_needs(widths)} or --json."
        lines += wrapped(text, width)
    for name in plan.workloads:
        for n in ns:
            block = [
                line
                for row, line in zip(rows, cells, strict=True)
                if (row.combination.workload, row.combination.n) == (name, n)
            ]
            if block:
                lines += ["", f"{name}, {n} processors, prices {first.name}"]
                lines += [_line(line, widths[:shown]) for line in [_HEAD, *block]]
    if reasons:
        lines += ["", f"{sum(bool(row.reason) for row in rows)} of {len(rows)} cannot work:"]
        for reason, number in reasons.items():
            lines += wrapped(f"({number}) {reason}", width, "  ", "      ")
    return "\n".join(lines) + "\n"


def wrapped(text: str, width: int | None, first: str = "", then: str = "") -> list[str]:
    """The text in lines of at most `width`, but for longer words; without it, in one line."""
    return wrap(
        text,
        len(first) + len(text) if width is None else min(width, _PROSE),
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _needs(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _fitting(widths: Sequence[int], width: int | None) -> int:
    """How many columns there is room for, at least one beside the names."""
    shown = len(widths)
    while width is not None and shown > 3 and _needs(widths[:shown]) > width:
        shown -= 1
    return shown


def _line(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    left = [cells[at].ljust(widths[at]) for at in (0, 1)]
    if len(cells) == 3:
        return "  ".join([*left, cells[2]])
    return "  ".join([*left, *(c.rjust(w) for c, w in zip(cells[2:], widths[2:], strict=False))])


def _reason(row: Row, reasons: dict[str, int]) -> tuple[str, ...]:
    number = reasons.setdefault(row.reason, len(reasons) + 1)
    return row.combination.runtime, row.combination.design, f"cannot ({number})"


def _figures(row: Row, profile: Profile) -> tuple[str, ...]:
    f = row.figures[profile.name]
    m = f.m
    lost = [each.lost for each in row.figures.values()]
    per = [
        m.per_change(kind)
        for kind in ("EMODPR", "ETRACK", "ipi", "irq", "AEX", "fault", "syscall", "EEXIT")
    ]
    return (
        row.combination.runtime,
        row.combination.design,
        f"{profile.us(m.caller):.1f}",
        f"{profile.us(f.lost):.1f}",
        f"{profile.us(min(lost)):.0f}..{profile.us(max(lost)):.0f}",
        _percent(f),
        str(m.faults),
        *(_us(profile, m.latency_at(q)) for q in (500, 990, 999)),
        *(f"{value:.1f}" for value in per),
        str(m.vmas),
    )


def _percent(f: Figures) -> str:
    return "-" if f.throughput is None else f"{100 * f.throughput:.1f} %"


def _us(profile: Profile, cycles: int | None) -> str:
    return "-" if cycles is None else f"{profile.us(cycles):.1f}"


_DESIGN: Final = 14  # the width of the longest name in DESIGNS, and one more


def conclusions_text(
    conclusions: Sequence[Conclusion], profiles: Sequence[Profile], width: int | None = None
) -> str:
    """The conclusions by metric, first those that hold at all corners."""
    corners = ", ".join(profile.name for profile in profiles)
    lines = wrapped(
        f"conclusions: the left design is never worse than the right one. better, equal: in so "
        f"many combinations, at {profiles[0].name} prices. The mark is what holds "
        f"{corners_text(len(profiles))} ({corners}): {MARKS}.",
        width,
    )
    lines.insert(0, "")
    for metric in dict.fromkeys(c.metric for c in conclusions):
        lines.append(f"by {metric}")
        of_metric = [c for c in conclusions if c.metric == metric]
        wide = max((len(name) for c in of_metric for name in (c.better, c.worse)), default=0)
        wide = max(wide, _DESIGN)
        for c in sorted(of_metric, key=lambda c: not c.holds):
            count = f"{c.wins:>3} better, {c.ties:>3} equal of {c.rows:<3}"
            lines.append(f"  {c.better:<{wide}} {c.worse:<{wide}} {count}  {c.mark()}")
    return "\n".join(lines) + "\n"
