"""Enclaves that use their heap: one that grows as in Intel's SDK, or a static one."""

from __future__ import annotations

from typing import Any

from softsgx.lab.enclaves import static_heap, with_hole
from softsgx.lab.measured import MeasuredThread
from softsgx.lab.prices import Profile
from softsgx.lab.threads import Threads
from softsgx.sim import Mutex, Steps, VirtualTime
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system.runtimes import ORDERS, TrustedManager
from softsgx.system.runtimes.untrusted import Untrusted


def grow(profile: Profile, threads: int, chunks: int, pages: int, cycles: int) -> VirtualTime:
    """Threads compute, allocate `chunks` chunks each of `pages` fresh pages, and write to them.

    As in linux-sgx 2.24 (malloc.c, sbrk.c, ema.c): malloc() holds its lock, which spins, while
    sbrk() commits the pages. EACCEPT comes first: it faults, the kernel adds the page, and it is
    executed again. So all threads together add one page at a time. `cycles` is what a thread
    computes for each page.
    """
    total = threads * chunks * pages
    inside = Threads(profile, with_hole(threads, total), threads, total + 4 * threads + 192)
    inside.warm()
    enclave = inside.enclave
    manager = TrustedManager(Untrusted(enclave), ORDERS["intel-emm"])
    manager.reserve(enclave.heap, total * PAGE_SIZE)
    malloc, length = Mutex("malloc"), pages * PAGE_SIZE
    top = enclave.heap

    def program(t: MeasuredThread) -> Steps[None]:
        nonlocal top
        for _ in range(chunks):
            yield from t.compute(cycles * pages)
            with (yield from malloc.acquire()):
                chunk, top = top, top + length
                yield from manager.commit(t, chunk, length)
            for page in range(chunk, chunk + length, PAGE_SIZE):
                yield from t.store(page, bytes(8))

    return inside.run(program)


def heap_touched(profile: Profile, pages: int, first: bool) -> tuple[int, int]:
    """AEX during start-up and after it; `first`: whether start-up touches the heap."""
    inside = Threads(profile, static_heap(pages), 1, 2048)
    time, base = inside.time, inside.enclave.base
    after_init = 0

    def program(t: Any) -> Steps[None]:
        nonlocal after_init
        heap = range(base + 2 * PAGE_SIZE, base + (2 + pages) * PAGE_SIZE, PAGE_SIZE)
        if first:
            for page in heap:
                yield from t.load(page)
        after_init = time.counts.get("ERESUME", 0)
        for page in heap:
            yield from t.store(page, bytes(8))

    inside.run(program)
    return after_init, time.counts.get("ERESUME", 0) - after_init
