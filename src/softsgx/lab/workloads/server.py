"""A server: worker threads allocate at a fixed rate, one thread seals a buffer now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.lab.workloads.base import Workload, fill
from softsgx.spec.epcm import R, W

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps

_INTERVAL = 400_000


class Server(Workload):
    """Workers allocate faster than in other workloads; a seal or reopen every 400,000 cycles."""

    name = "server"
    about = "workers allocate at a fixed rate; a buffer is sealed or reopened every 400,000 cycles"
    pages = 16
    touch_every = 16_000

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """Seal and reopen six buffers, at fixed times."""
        due = t.seat.now()
        for turn in range(12):
            due += _INTERVAL
            yield from t.wait(max(1000, due - t.seat.now()))
            first = turn // 2 * 2
            if turn % 2:
                yield from bench.change(t, first, 2, R | W)
            else:
                yield from fill(t, bench, first, 2)
                yield from bench.change(t, first, 2, R)
