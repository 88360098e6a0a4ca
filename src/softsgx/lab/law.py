"""RESTRICT_PERMISSIONS over many pages, then EACCEPT of each, timed: cost by page and processor.

The V2 series has RELAX_PERMISSIONS as well. It zaps the PTEs, so a second one finds none, and
neither does RESTRICT after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.lab.bench import Bench, Combination
from softsgx.lab.designs.ioctl_v2 import IoctlV2
from softsgx.lab.workloads.base import Workload
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.system.enclave import EnclaveThread

if TYPE_CHECKING:
    from softsgx.lab.measured import MeasuredThread
    from softsgx.lab.prices import Profile
    from softsgx.sim import Rng, Steps


class Law(Workload):
    """One thread restricts and accepts; the others are inside, and compute.

    `ioctl` and `accepting` are the cycles of RESTRICT alone, and of all EACCEPT; `relaxing` those
    of RELAX of mapped pages, and of pages that it has zapped. V2 restricts these.
    """

    name = "law"
    about = "one RESTRICT_PERMISSIONS over many pages"
    touch_every = 1 << 60

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.ioctl = 0
        self.accepting = 0
        self.relaxing: list[int] = []

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """Call out, then enter once for each page and accept it."""
        # All threads must be inside before the call.
        yield from t.wait(1_000_000)
        if isinstance(bench.design, IoctlV2):
            for _ in range(2):
                yield from t.ocall(self._relax, t, bench, bench.design)
        self.before = dict(bench.time.counts)
        yield from t.ocall(self._restrict, t, bench)
        start = t.seat.now()
        for page in range(self.pages):
            # Without the software of a runtime: a program that calls the vDSO itself.
            yield from EnclaveThread.ocall(t, _nothing)
            status = yield from t.accept_restricted(bench.address(page), R)
            assert status == 0
        self.accepting = t.seat.now() - start
        self.after = dict(bench.time.counts)

    def _relax(
        self, _host: object, t: MeasuredThread, bench: Bench, design: IoctlV2
    ) -> Steps[None]:
        start, host = t.seat.now(), t.seat.host
        length = self.pages * PAGE_SIZE
        errno, block = yield from design.relax(host, bench.enclave, bench.address(0), length, R | W)
        assert (errno, block.count) == (0, length)
        self.relaxing.append(t.seat.now() - start)

    def _restrict(self, _host: object, t: MeasuredThread, bench: Bench) -> Steps[None]:
        start, host = t.seat.now(), t.seat.host
        length = self.pages * PAGE_SIZE
        errno, block = yield from bench.design.restrict(
            host, bench.enclave, bench.address(0), length, R
        )
        assert (errno, block.count) == (0, length)
        self.ioctl = t.seat.now() - start

    def count(self, kind: str) -> int:
        """How many points of a kind there were."""
        return self.after.get(kind, 0) - self.before.get(kind, 0)


def _nothing(_host: object) -> Steps[None]:
    """Leave the enclave and enter it again."""
    return
    yield


def law(profile: Profile, n: int, pages: int, design: str = "ioctl") -> Law:
    """The law of a design measured on n processors."""
    workload = Law(pages)
    bench = Bench(Combination(design, "intel-emm", "law", n), workload, profile, 1)
    found = bench.run()
    assert not found.reason, found.reason
    return workload
