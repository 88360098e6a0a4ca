"""JIT: write code, seal it RX, run it, reopen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.lab.workloads.base import Workload, fill
from softsgx.spec.epcm import R, W, X

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps


class Jit(Workload):
    """One compiling thread; regions of 2 to 5 pages go RW -> RX -> RW."""

    name = "jit"
    about = "one thread writes code, seals it RX, runs it, reopens it"

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """Eight functions, one after the other."""
        for _ in range(8):
            count = 2 + rng.below(4)
            first = rng.below(self.pages - count)
            yield from t.wait(60_000 + rng.below(60_000))
            yield from fill(t, bench, first, count)
            yield from bench.change(t, first, count, R | X)
            for page in range(first, first + count):
                yield from t.fetch(bench.address(page))
            yield from t.wait(60_000 + rng.below(60_000))
            yield from bench.change(t, first, count, R | W)
