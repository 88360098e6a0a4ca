"""A workload: threads that change permissions, next to innocents that compute and allocate.

A workload is a program of N threads on N logical processors. The first `changers` of them change
permissions. All others are innocents: they compute, and touch fresh pages, which the kernel adds
and they accept, at a fixed rate for all of them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from softsgx.lab.bench import Bench
    from softsgx.lab.measured import MeasuredThread
    from softsgx.sim import Rng, Steps

# Cycles that an innocent computes at a stretch, at least and at most.
STRETCH = (60_000, 120_000)


class Workload:
    """One program. `pages` is the memory whose rights change.

    `touch_every`: cycles between two first touches of all innocents together. A rate per thread
    would saturate the one mutex of the enclave for large N, whatever the design.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    pages: int = 16
    touch_every: int = 40_000

    def changers(self, n: int) -> int:
        """How many of n threads change permissions."""
        return 1

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """The program of a thread that changes permissions; its number is t.seat.number."""
        raise NotImplementedError
        yield

    def innocent(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """The program of the other threads."""
        seat, low, high = t.seat, *STRETCH
        every = self.touch_every * (bench.combination.n - self.changers(bench.combination.n))
        touch = seat.now() + rng.below(every)
        while not bench.done:
            yield from t.compute(low + rng.below(high - low))
            if seat.now() >= touch and bench.arenas[seat.number]:
                page = bench.arenas[seat.number].pop()
                bench.check_accepted(page, (yield from t.accept_new(page)))
                touch += every


def fill(t: MeasuredThread, bench: Bench, first: int, count: int) -> Steps[None]:
    """Write into pages, one store each."""
    for page in range(first, first + count):
        yield from t.store(bench.address(page), bytes(8))
