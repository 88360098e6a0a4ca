"""The driver: restricting, growing, evicting, building, per page through the ioctls and faults."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.measure import Figure
from softsgx.image.image import EnclaveImage, Segment
from softsgx.sim import RETRY, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import REG, R, W
from softsgx.system import EnclaveThread, HostThread, Machine, load
from softsgx.system.loaded_enclave import Enclave
from softsgx.system.loader import build, default_image, reserve

MIB = 1 << 20
# 1,000,000 pages take a minute and 2 GiB; they are measured on demand: SOFTSGX_BENCH_LARGE=1.
SIZES = (1_000, 10_000, 1_000_000) if os.environ.get("SOFTSGX_BENCH_LARGE") else (1_000, 10_000)
MICROSECONDS = 1e6


def figures() -> list[Figure]:
    """All figures of this module."""
    restricts = [restrict(pages) for pages in SIZES]
    return [*restricts, augment(), evict(), _build(), _add_unmeasured()]


def _timed(machine: Machine, body: Callable[[], Steps[object]], pages: int) -> float:
    start = time.process_time()
    machine.run(body())
    return (time.process_time() - start) / pages * MICROSECONDS


def _occupy(machine: Machine, enclave: Enclave, second: HostThread) -> None:
    """Leave a thread inside the enclave on processor 1."""

    def inside(t: EnclaveThread) -> Steps[None]:
        yield from t.load(enclave.data[0], 8)
        while True:
            yield (RETRY, "spin", False)

    body = enclave.entry(inside).enter(second.thread, 2, enclave.tcs[1])

    def start() -> Steps[None]:
        task = yield (RETRY, "start", False)
        task.execution.spawn(body, "inside", 1, daemon=True)
        while not machine.processor.lps[1].enclave_mode:
            yield (RETRY, "start", False)

    machine.run(start())


def restrict(pages: int, driver: Path | None = None) -> Figure:
    """RESTRICT_PERMISSIONS of so many pages, on the driver in Python or on an object."""
    machine = Machine(epc=(pages + pages // 256 + 1024) * PAGE_SIZE, driver=driver)
    host = machine.thread()
    enclave = machine.run(load(host, pages=pages, threads=2))
    _occupy(machine, enclave, machine.thread(host.process, 1, "second"))
    length = pages * PAGE_SIZE
    times = [
        _timed(machine, lambda: enclave.restrict(host, enclave.data[0], length, R), pages)
        for _ in range(3 if pages <= SIZES[1] else 1)
    ]
    what = f"RESTRICT_PERMISSIONS of {pages:,} pages, one processor inside, per page"
    return Figure(what, median(times), min(times), "us", 20)


def augment(driver: Path | None = None) -> Figure:
    """Pages that are added when they are accepted."""
    pages, times = 2_000, []
    for _ in range(3):
        machine = Machine(epc=(pages + 1024) * PAGE_SIZE, driver=driver)
        host = machine.thread()
        enclave = machine.run(load(host, pages=1, hole=pages))

        def grow(t: EnclaveThread, first: int = enclave.heap) -> Steps[None]:
            for number in range(pages):
                status = yield from t.accept_new(first + number * PAGE_SIZE)
                assert status == 0

        body = enclave.call
        times.append(_timed(machine, lambda b=body, h=host, g=grow: b(h, g), pages))  # type: ignore[misc]
    what = "EAUG by the fault of an EACCEPT, per page"
    return Figure(what, median(times), min(times), "us", 40)


def evict(driver: Path | None = None) -> Figure:
    """A 64 MiB enclave in 4 MiB of EPC: every touch evicts one page and reloads another."""
    pages = 64 * MIB // PAGE_SIZE
    machine = Machine(epc="4M", driver=driver)
    host = machine.thread()
    enclave = machine.run(load(host, pages=pages))

    def touch(t: EnclaveThread) -> Steps[None]:
        for number, address in enumerate(enclave.data):
            yield from t.store(address, number.to_bytes(8, "little"))

    def check(t: EnclaveThread) -> Steps[int]:
        wrong = 0
        for number, address in enumerate(enclave.data):
            wrong += (yield from t.load(address, 8)) != number.to_bytes(8, "little")
        return wrong

    first = _timed(machine, lambda: enclave.call(host, touch), pages)
    start = time.process_time()
    wrong = machine.run(enclave.call(host, check))
    second = (time.process_time() - start) / pages * MICROSECONDS
    assert wrong == 0, f"{wrong} pages lost their contents"
    times = [first, second]
    what = "64 MiB enclave in 4 MiB of EPC: evict and reload, per page"
    return Figure(what, median(times), min(times), "us", 80, "no byte lost")


def _build() -> Figure:
    length = 64 * MIB
    base = default_image(pages=0)
    at = max(segment.end for segment in base.segments)
    content = bytes(range(256)) * (length // 256)
    data = Segment(at, length, REG | R | W, content, label="data")
    image = EnclaveImage(size=2 * length, segments=(*base.segments, data))
    times = []
    for _ in range(2):
        machine = Machine(epc=2 * length)
        host = machine.thread()

        def body(host: HostThread = host) -> Steps[None]:
            fd = yield from host.open()
            start = yield from reserve(host, image.size)
            yield from build(host, fd, start, image)

        begin = time.process_time()
        machine.run(body())
        times.append(time.process_time() - begin)
    what = "64 MiB measured enclave through ADD_PAGES"
    return Figure(what, median(times), min(times), "s", 3)


_UNMEASURED = """
import sys, time
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import Machine, load
pages = int(sys.argv[1])
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
machine = Machine(epc=(pages + pages // 256 + 1024) * PAGE_SIZE)
host = machine.thread()
before, begin = resident(), time.process_time()
enclave = machine.run(load(host, pages=pages))
print((time.process_time() - begin) / pages, (resident() - before) // pages)
"""


def _add_unmeasured() -> Figure:
    """A large enclave of zeros: 262,144 pages would be 1 GiB; with SOFTSGX_BENCH_LARGE they are.

    In a process of its own, for the memory it takes.
    """
    pages = 262_144 if SIZES[-1] == 1_000_000 else 32_768
    command = [sys.executable, "-c", _UNMEASURED, str(pages)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    each = float(out[0]) * MICROSECONDS
    what = f"load of an enclave of {pages:,} unmeasured pages, per page"
    return Figure(what, each, each, "us", 30, f"{out[1]} bytes a page resident")


def main(show: Callable[[str], None]) -> None:
    """Print the section."""
    from bench.measure import table

    show(table("Linux driver", figures()))
