"""Copy-on-write: a range is sealed at once and reopened page by page when it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.lab.workloads.base import Workload, fill
from softsgx.spec.epcm import R, W

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps


class Cow(Workload):
    """Two snapshots of 12 pages: RW -> R at once, then each written page back to RW alone."""

    name = "cow"
    about = "snapshots: 12 pages RW -> R at once, each page back to RW at its first write"
    pages = 12

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """Snapshot, then write two thirds of the pages in any order."""
        for _ in range(2):
            yield from t.wait(150_000)
            yield from bench.change(t, 0, self.pages, R)
            order = list(range(self.pages))
            rng.shuffle(order)
            for page in order[:8]:
                yield from t.wait(30_000 + rng.below(40_000))
                yield from bench.change(t, page, 1, R | W)
                yield from fill(t, bench, page, 1)
