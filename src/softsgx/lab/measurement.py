"""The figures of one run: counts, times, latencies. Times are cycles of the profile's clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# Quantiles of latencies that are kept, in parts per thousand: enough for a curve.
QUANTILES: Final = (0, *range(50, 951, 50), 990, 999, 1000)
COUNTED: Final = (
    *("EMODPR", "ETRACK", "ipi", "irq", "AEX", "fault", "syscall"),
    *("EACCEPT", "EMODPE", "EAUG", "EEXIT"),
)


@dataclass(frozen=True)
class Measurement:
    """One combination under one profile. `reason` is not empty if it cannot work.

    design, runtime, workload, n   the combination
    profile, seed                  prices and seed
    changes, pages                 permission changes completed, pages changed by them
    caller                         mean cycles of a change, seen by its caller
    others_window, others_useful   cycles that all innocents ran, and spent computing
    faults, latency                innocents' page faults; their latency at QUANTILES
    counts                         points by kind, and AEX
    vmas                           how many VMAs were added
    elapsed, points                cycles from start to end; points executed
    """

    design: str
    runtime: str
    workload: str
    n: int
    profile: str
    seed: int
    reason: str
    changes: int
    pages: int
    caller: float
    others_window: int
    others_useful: int
    faults: int
    latency: tuple[int, ...]
    vmas: int
    elapsed: int
    points: int
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def utilisation(self) -> float | None:
        """Share of the innocents' time that was work; None without innocents."""
        return self.others_useful / self.others_window if self.others_window else None

    def per_change(self, kind: str) -> float:
        """How many of a kind there were per change."""
        return self.counts.get(kind, 0) / self.changes if self.changes else 0.0

    def latency_at(self, per_mille: int) -> int | None:
        """Latency at one of QUANTILES; None if there were too few faults for it."""
        return self.latencies[QUANTILES.index(per_mille)] if self.latency else None

    @property
    def latencies(self) -> list[int | None]:
        """The latency at each of QUANTILES, None where there were too few faults for it."""
        return [
            cycles if supported(per_mille, self.faults) else None
            for per_mille, cycles in zip(QUANTILES, self.latency, strict=False)
        ]


def supported(per_mille: int, samples: int) -> bool:
    """Whether at least one of the samples lies on either side of a quantile.

    The least and the greatest are no estimates: a single sample has them.
    """
    if per_mille in (0, 1000):
        return samples > 0
    return min(per_mille, 1000 - per_mille) * samples >= 1000


def quantile(ordered: list[int], per_mille: int) -> int:
    """The quantile by nearest rank: 0 is the least value, 1000 the greatest."""
    rank = -(-per_mille * len(ordered) // 1000)
    return ordered[max(0, rank - 1)]


def lost_per_change(m: Measurement, base: Measurement) -> float:
    """Cycles that a change costs on all processors: the caller's time and the innocents' loss."""
    return m.caller + others_lost(m, base)


def others_lost(m: Measurement, base: Measurement) -> float:
    """Cycles of work that the innocents lose per change."""
    u, u0 = m.utilisation, base.utilisation
    if u is None or u0 is None or not m.changes:
        return 0.0
    return (u0 - u) * m.others_window / m.changes


def throughput_lost(m: Measurement, base: Measurement) -> float | None:
    """Share of the innocents' work that is lost while permissions are changed."""
    u, u0 = m.utilisation, base.utilisation
    return None if u is None or not u0 else 1 - u / u0
