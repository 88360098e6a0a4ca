"""Garbage collector with read barriers: pages without any right, opened one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.lab.workloads.base import Workload
from softsgx.spec.epcm import R, W

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps

_CYCLES = 2


class Gc(Workload):
    """The collector closes half of the heap (no rights); pages are opened as they are needed.

    A thread that meets a closed page opens it: the collector in order, up to three mutators at
    random. A read barrier must refuse even a read, so the rights are NONE.
    """

    name = "gc"
    about = "read barriers: heap pages closed to NONE, opened one by one by collector and mutators"
    pages = 16

    def changers(self, n: int) -> int:
        """The collector and up to three mutators."""
        return max(1, min(4, n // 2))

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """Thread 0 collects, the others need objects."""
        if t.seat.number:
            yield from self._mutate(t, bench, rng)
            return
        half = self.pages // 2
        for cycle in range(_CYCLES):
            yield from t.wait(150_000)
            first = cycle % 2 * half
            yield from bench.change(t, first, half, 0)
            for page in range(first, first + half):
                if bench.rights(page) == 0:
                    yield from bench.change(t, page, 1, R | W)
                yield from t.load(bench.address(page))
                yield from t.wait(30_000)

    def _mutate(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        for _ in range(4):
            yield from t.wait(100_000 + rng.below(400_000))
            page = rng.below(self.pages)
            if bench.rights(page) == 0:
                yield from bench.change(t, page, 1, R | W)
