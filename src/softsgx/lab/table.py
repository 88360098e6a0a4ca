"""A comparison as text: a line for each combination, then the conclusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from softsgx.lab.compare import Comparison, Conclusion, Figures, Row
from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.matrix import verdicts
from softsgx.lab.failures.outcome import Outcome
from softsgx.lab.prices import Profile

_HEAD: Final = (
    "runtime", "design", "call", "lost", "lost, corners", "work", "fault 50", "99 %", "99.9 %",
    "EMODPR", "ETRACK", "rounds", "blast", "AEX", "faults", "calls", "exits", "areas",
)  # fmt: skip
LEGEND: Final = """\
call: time of a change, seen by its caller; lost: time lost on all processors per change, in us;
corners: the least and the greatest of it over all prices. work: share of the innocents' work lost.
fault: latency of an innocent's page fault, in us. Then per change: EMODPR, ETRACK, rounds of
interrupts, blast (processors interrupted), AEX, faults of all threads, system calls, exits (EEXIT).
areas: VMAs added."""


def table(comparison: Comparison, ns: Sequence[int]) -> str:
    """The rows for these numbers of processors; a block for each workload and number."""
    plan = comparison.plan
    first = plan.profiles[0]
    names = ", ".join(profile.name for profile in plan.profiles)
    lines = [f"prices: {first.name} (corners: {names}); seed {plan.seed}", LEGEND]
    rows = comparison.rows()
    for name in plan.workloads:
        for n in ns:
            block = [r for r in rows if (r.combination.workload, r.combination.n) == (name, n)]
            if block:
                lines += ["", f"{name}, {n} processors, prices {first.name}", *_block(block, first)]
    return "\n".join(lines) + "\n"


def _block(rows: list[Row], profile: Profile) -> list[str]:
    cells: list[tuple[str, ...]] = [_HEAD]
    cells += [_reason(row) if row.reason else _figures(row, profile) for row in rows]
    full = [line for line in cells if len(line) == len(_HEAD)]
    widths = [max(len(line[at]) for line in full) for at in range(len(_HEAD))]
    widths[:2] = [max(len(line[at]) for line in cells) for at in (0, 1)]
    return [_line(line, widths) for line in cells]


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = [cells[at].ljust(widths[at]) for at in (0, 1)]
    if len(cells) == 3:
        return "  ".join([*left, cells[2]])
    return "  ".join([*left, *(c.rjust(w) for c, w in zip(cells[2:], widths[2:], strict=True))])


def _reason(row: Row) -> tuple[str, ...]:
    return row.combination.runtime, row.combination.design, f"cannot: {row.reason}"


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
        *(_us(profile, m.latency_at(q)) for q in (500, 990, 999)),
        *(f"{value:.1f}" for value in per),
        str(m.vmas),
    )


def _percent(f: Figures) -> str:
    return "-" if f.throughput is None else f"{100 * f.throughput:.1f} %"


def _us(profile: Profile, cycles: int | None) -> str:
    return "-" if cycles is None else f"{profile.us(cycles):.1f}"


_DESIGN: Final = 14  # the width of the longest name in DESIGNS, and one more


def conclusions_text(conclusions: Sequence[Conclusion], profiles: Sequence[Profile]) -> str:
    """The conclusions by metric, first those that hold at all corners."""
    corners = ", ".join(profile.name for profile in profiles)
    lines = [f"\nconclusions: the left one is never worse; figures at {profiles[0].name} prices"]
    for metric in dict.fromkeys(c.metric for c in conclusions):
        lines.append(f"by {metric}")
        of_metric = [c for c in conclusions if c.metric == metric]
        wide = max((len(name) for c in of_metric for name in (c.better, c.worse)), default=0)
        wide = max(wide, _DESIGN)
        for c in sorted(of_metric, key=lambda c: not c.holds):
            count = f"{c.wins:>3} better, {c.ties:>3} equal of {c.rows:<3}"
            lines.append(f"  {c.better:<{wide}} {c.worse:<{wide}} {count}  {c.mark()} ({corners})")
    return "\n".join(lines) + "\n"


def matrix_text(outcomes: Sequence[Outcome], among: Sequence[Outcome] | None = None) -> str:
    """The failures: a block for each, a line for each design, evidence and schedule below it.

    `among` are all outcomes of these designs, if `outcomes` are only some of them.
    """
    lines = ["\nfailures: what the caller learns, and what is left"]
    for failure in dict.fromkeys(outcome.failure for outcome in outcomes):
        lines += ["", f"{failure}: {FAILURES[failure].about}"]
        for outcome in outcomes:
            if outcome.failure == failure:
                words = "; ".join(verdicts(outcome, among or outcomes))
                lines.append(f"  {outcome.design:<14} {words}")
                lines.append(f"  {'':<14}   {outcome.evidence()}; schedule {outcome.schedule}")
    return "\n".join(lines) + "\n"
