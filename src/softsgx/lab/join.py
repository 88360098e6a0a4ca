"""The two phases of a radix join whose tasks lie in a queue that a sleeping mutex protects.

The program of EDBT'25 (sgxv2-analytical-query-processing-benchmarks, radix_join.cpp with
MUTEX_QUEUE and CONSTANT_RADIX_BITS): each of 128 tasks of the second partitioning puts 128 tasks
of the join into a queue, taking one mutex for the slot and one for the queue; then the threads
take them out one by one. What a task computes is measured there, with a queue without a lock.
"""

from __future__ import annotations

from typing import Final

from softsgx.lab.enclaves import with_hole
from softsgx.lab.measured import MeasuredThread
from softsgx.lab.prices import Profile
from softsgx.lab.sleeping import Event, SleepingMutex
from softsgx.lab.threads import EnclaveBody, Threads
from softsgx.sim import Steps, VirtualTime

THREADS: Final = 16
# How long a mutex of the queue is held: some lines of cache come from another core. Without any
# time no two threads would meet; the result hardly depends on it, a hand-over takes 100 times that.
HELD: Final = 200
_EPC_PAGES: Final = 512


def take_tasks(profile: Profile, tasks: int, cycles: int) -> VirtualTime:
    """The time until all tasks of the join, of `cycles` each, have been taken out and done."""
    queue = SleepingMutex(_events())
    left = tasks

    def program(t: MeasuredThread) -> Steps[None]:
        nonlocal left
        while True:
            yield from queue.lock(t)
            taken, left = left > 0, max(0, left - 1)
            yield from t.compute(HELD)
            yield from queue.unlock(t)
            if not taken:
                return
            yield from t.compute(cycles)

    return _run(profile, program)


def put_tasks(profile: Profile, tasks: int, cycles: int) -> VirtualTime:
    """The time until every thread has computed `cycles` and then put so many tasks into the queue.

    All begin at once and compute for the same time, so that they meet at the mutexes.
    """
    events = _events()
    slots, queue = SleepingMutex(events), SleepingMutex(events)

    def program(t: MeasuredThread) -> Steps[None]:
        yield from t.compute(cycles)
        for _ in range(tasks):
            for mutex in (slots, queue):
                yield from mutex.lock(t)
                yield from t.compute(HELD)
                yield from mutex.unlock(t)

    return _run(profile, program)


def _events() -> dict[int, Event]:
    return {number: Event(f"thread {number}") for number in range(THREADS)}


def _run(profile: Profile, program: EnclaveBody) -> VirtualTime:
    threads = Threads(profile, with_hole(THREADS, 0), THREADS, _EPC_PAGES)
    threads.warm()
    return threads.run(program)
