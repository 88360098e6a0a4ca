"""A comparison as plain data: everything that tables and plots show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from softsgx import __version__
from softsgx.lab.compare import Comparison, Figures, Row
from softsgx.lab.designs import design_named
from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.matrix import failure_named, verdicts
from softsgx.lab.failures.outcome import Outcome
from softsgx.lab.measurement import QUANTILES
from softsgx.lab.verdict import verdict
from softsgx.lab.workloads import workload

FORMAT: Final = 1


def as_json(comparison: Comparison, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One JSON object, the same on any machine; times are cycles of the profile's clock."""
    plan = comparison.plan
    return {
        "softsgx": __version__,
        "format": FORMAT,
        "seed": plan.seed,
        "verdict": verdict(comparison, outcomes),
        "runs": {"finished": comparison.finished, "wanted": comparison.wanted},
        "profiles": {p.name: dict(p.cycles) for p in plan.profiles},
        "designs": {name: design_named(name).about for name in plan.designs},
        "runtimes": list(plan.runtimes),
        "workloads": {name: workload(name).about for name in plan.workloads},
        "processors": list(plan.ns),
        "latency_per_mille": list(QUANTILES),
        "rows": [_row(row) for row in comparison.rows()],
        "conclusions": [
            {**c._asdict(), "holds_at_all_corners": c.holds} for c in comparison.conclusions()
        ],
        "failures": {name: FAILURES[name].about for name in _names(outcomes)},
        "outcomes": [outcome_json(outcome, outcomes) for outcome in outcomes],
    }


def _names(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(outcome.failure for outcome in outcomes))


def _row(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = row.combination._asdict()
    if row.reason:
        return {**fields, "cannot": row.reason}
    return {**fields, "figures": {name: _figures(f) for name, f in row.figures.items()}}


def _figures(f: Figures) -> dict[str, Any]:
    m = f.m
    return {
        "changes": m.changes,
        "pages": m.pages,
        "call": m.caller,
        "lost_per_change": f.lost,
        "lost_by_others": f.others,
        "work_lost": f.throughput,
        "faults": m.faults,
        "fault_latency": m.latencies,
        "counts": m.counts,
        "blast": m.per_change("irq"),
        "areas": m.vmas,
        "elapsed": m.elapsed,
        "points": m.points,
    }


def outcome_json(outcome: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One failure in one design; `outcomes` are all failures of the design."""
    fields: dict[str, Any] = outcome._asdict()
    fields["verdicts"] = verdicts(outcome, outcomes)
    fields["failure_named"] = failure_named(outcome, outcomes)
    fields["evidence"] = outcome.evidence()
    return fields
