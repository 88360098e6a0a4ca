"""The lab: priced points, and how long combinations take."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from bench.measure import Figure
from softsgx.lab.bench import Bench, Combination
from softsgx.lab.designs import DESIGNS
from softsgx.lab.failures.matrix import matrix
from softsgx.lab.prices import PROFILES
from softsgx.lab.workloads import workload

MICROSECONDS = 1e6


def figures() -> list[Figure]:
    """All figures of this module."""
    return [*(_points(n) for n in (1, 4, 64, 256)), _setup(), _matrix()]


def _bench(n: int) -> Bench:
    combination = Combination("ioctl", "gramine", "jit", n)
    return Bench(combination, workload("jit"), PROFILES["default"], 1)


def _points(n: int) -> Figure:
    """One run of the JIT under the ioctl; the setup is not counted."""
    times = []
    for _ in range(5):
        bench = _bench(n)
        start = time.perf_counter()
        points = bench.run().points
        times.append((time.perf_counter() - start) / points * MICROSECONDS)
    what = f"priced point, jit, ioctl, gramine, {n} processors"
    return Figure(what, median(times), min(times), "us", 10, f"{points} points")


def _setup() -> Figure:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        _bench(64)
        times.append((time.perf_counter() - start) * 1000)
    return Figure("machine and enclave of 64 threads", median(times), min(times), "ms")


def _matrix() -> Figure:
    start = time.perf_counter()
    cells = len(matrix(tuple(DESIGNS)))
    seconds = time.perf_counter() - start
    return Figure(f"all failures in all designs, {cells} cells", seconds, seconds, "s")


def main(show: Callable[[str], None]) -> None:
    """Print the section."""
    from bench.measure import table

    show(table("Lab", figures()))
