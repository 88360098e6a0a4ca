"""Many combinations under several profiles, and the conclusions from them.

A conclusion is a statement "A is never worse than B" over all combinations in which both work. It
holds at all corners if it is true with the prices of every profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, NamedTuple

from softsgx.lab.bench import NO_CHANGE, Combination, measure, without_changes
from softsgx.lab.measurement import (
    Measurement,
    lost_per_change,
    others_lost,
    throughput_lost,
)
from softsgx.lab.prices import Profile
from softsgx.lab.workloads import workload
from softsgx.sim import Rng

N_MAX: Final = 256
"""Logical processors, at most."""

NS_DEFAULT: Final = (1, 4, 16, 64)
"""The numbers of logical processors that are compared by default."""


class Cell(NamedTuple):
    """One run: a combination under a profile. Picklable, so that any process may run it."""

    combination: Combination
    profile: Profile
    seed: int

    @property
    def size(self) -> int:
        """How long it takes, compared with other cells.

        The times of all cells by default, on one machine, are 0.35, 0.07, 0.03 and 0.01 s on 64,
        16, 4 and 1 processors.
        """
        return self.combination.n + 3


@dataclass(frozen=True)
class Plan:
    """The comparison to make. Tables show the figures of the first profile."""

    designs: tuple[str, ...]
    runtimes: tuple[str, ...]
    workloads: tuple[str, ...]
    ns: tuple[int, ...]
    profiles: tuple[Profile, ...]
    seed: int

    def cells(self) -> list[Cell]:
        """All runs, the longest first; those without changes before those compared with them.

        With as many processors the order is mixed: then those that are done tell how long the
        others take.
        """
        wanted: list[Combination] = []
        for n in sorted(self.ns, reverse=True):
            wanted += [Combination(NO_CHANGE, NO_CHANGE, name, n) for name in self.workloads]
            others = [
                Combination(design, runtime, name, n)
                for name in self.workloads
                for design in self.designs
                for runtime in self.runtimes
            ]
            Rng(0).shuffle(others)
            wanted += others
        return [Cell(c, profile, self.seed) for c in wanted for profile in self.profiles]


def run_cell(cell: Cell) -> Measurement:
    """Measure one cell."""
    return measure(cell.combination, workload(cell.combination.workload), cell.profile, cell.seed)


@dataclass(frozen=True)
class Figures:
    """One combination under one profile, compared with the run without changes."""

    m: Measurement
    lost: float
    others: float
    throughput: float | None


class Row(NamedTuple):
    """One combination: its figures by profile. `reason` is not empty if it cannot work."""

    combination: Combination
    reason: str
    figures: Mapping[str, Figures]


class Conclusion(NamedTuple):
    """By `metric`, `better` is never worse than `worse`.

    With the first profile it is better in `wins` of the `rows` and equal in `ties`. In `corners` of
    the rows it is not worse with any profile.
    """

    metric: str
    better: str
    worse: str
    rows: int
    wins: int
    ties: int
    corners: int

    @property
    def holds(self) -> bool:
        """Whether it is true in every row with every profile, and better in some."""
        return self.corners == self.rows and self.wins > 0

    def mark(self) -> str:
        """How far it holds at all corners, as text; see MARKS."""
        if self.holds:
            return "HOLDS"
        if self.corners == self.rows:
            return "equal"
        return f"not in {self.rows - self.corners}"


MARKS: Final = "HOLDS: in all combinations; equal: the same in all; not in K: but for K of them"
"""What the marks of conclusions mean; all of them at every corner."""


class Comparison:
    """The measurements of a plan, or of a part of it."""

    def __init__(self, plan: Plan, measured: Iterable[Measurement]) -> None:
        self.plan = plan
        self._by_key = {
            (Combination(m.design, m.runtime, m.workload, m.n), m.profile): m for m in measured
        }
        self.finished = len(self._by_key)
        self.wanted = len(plan.cells())

    def rows(self) -> list[Row]:
        """Every combination that was measured with all profiles, in the order of the plan."""
        plan = self.plan
        rows = [
            self._row(Combination(design, runtime, name, n))
            for name in plan.workloads
            for n in plan.ns
            for runtime in plan.runtimes
            for design in plan.designs
        ]
        return [row for row in rows if row is not None]

    def _row(self, combination: Combination) -> Row | None:
        base = without_changes(combination)
        figures: dict[str, Figures] = {}
        reason = ""
        for profile in self.plan.profiles:
            m = self._by_key.get((combination, profile.name))
            without = self._by_key.get((base, profile.name))
            if m is None or without is None:
                return None
            reason = reason or m.reason
            figures[profile.name] = Figures(
                m, lost_per_change(m, without), others_lost(m, without), throughput_lost(m, without)
            )
        return Row(combination, reason, figures)

    def conclusions(self) -> list[Conclusion]:
        """Every pair of designs, by every metric, the better design first."""
        by_place: dict[tuple[str, str, int], dict[str, Row]] = {}
        for row in self.rows():
            c = row.combination
            if not row.reason:
                by_place.setdefault((c.runtime, c.workload, c.n), {})[c.design] = row
        found = []
        for metric, value in METRICS.items():
            for one, other in combinations(self.plan.designs, 2):
                both = [
                    (place[one], place[other])
                    for place in by_place.values()
                    if one in place and other in place
                ]
                conclusion = self._conclude(metric, value, one, other, both)
                if conclusion is not None:
                    found.append(conclusion)
        return found

    def _conclude(
        self, metric: str, value: _Value, one: str, other: str, both: Sequence[tuple[Row, Row]]
    ) -> Conclusion | None:
        names = [profile.name for profile in self.plan.profiles]
        signs = []
        for a, b in both:
            pairs = [(value(a.figures[name]), value(b.figures[name])) for name in names]
            known = [(x, y) for x, y in pairs if x is not None and y is not None]
            if len(known) == len(pairs):
                signs.append([_sign(x, y) for x, y in known])
        if not signs:
            return None
        first = [sign[0] for sign in signs]
        better = -1 if first.count(-1) >= first.count(1) else 1
        return Conclusion(
            metric,
            *((one, other) if better < 0 else (other, one)),
            rows=len(signs),
            wins=first.count(better),
            ties=first.count(0),
            corners=sum(all(part in (better, 0) for part in sign) for sign in signs),
        )


EQUAL: Final = 0.005
"""A smaller relative difference counts as none."""

_Value = Callable[[Figures], float | None]


def _sign(x: float, y: float) -> int:
    if abs(x - y) <= EQUAL * max(abs(x), abs(y)):
        return 0
    return -1 if x < y else 1


METRICS: Final[dict[str, _Value]] = {
    "time lost per change": lambda f: f.lost,
    "time of the call": lambda f: f.m.caller,
    "an innocent's page fault, 99 %": lambda f: f.m.latency_at(990),
    "processors interrupted per change": lambda f: f.m.per_change("irq"),
}
