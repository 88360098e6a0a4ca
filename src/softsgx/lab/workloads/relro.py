"""RELRO: a loader applies relocations and makes them read-only, once for each library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.lab.workloads.base import Workload, fill
from softsgx.spec.epcm import R

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps


class Relro(Workload):
    """Six libraries of 3 to 6 pages of relocated data, RW -> R for good."""

    name = "relro"
    about = "a loader relocates six libraries and seals each R, once"
    pages = 36

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """The loader: one change of many pages for each library."""
        for library in range(6):
            first, count = library * 6, 3 + rng.below(4)
            yield from fill(t, bench, first, count)
            yield from t.wait(200_000 + rng.below(100_000))
            yield from bench.change(t, first, count, R)
            yield from t.load(bench.address(first))
