"""Thread stacks with guard pages: one page without rights for each live thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.lab.workloads.base import Workload, fill
from softsgx.spec.epcm import R, W

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps

_STACK = 3


class Stacks(Workload):
    """Ten threads start, each with a stack of 2 pages and a guard page below; six of them end."""

    name = "stacks"
    about = "guard pages: one page to NONE for each new thread, back to RW when it ends"
    pages = 10 * _STACK

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """Make the stacks, then open the guard pages of those that end."""
        for stack in range(10):
            yield from t.wait(80_000 + rng.below(80_000))
            yield from fill(t, bench, stack * _STACK + 1, 2)
            yield from bench.change(t, stack * _STACK, 1, 0)
        gone = list(range(10))
        rng.shuffle(gone)
        for stack in gone[:6]:
            yield from t.wait(80_000)
            yield from bench.change(t, stack * _STACK, 1, R | W)
            yield from fill(t, bench, stack * _STACK, 1)
