"""Calls into and out of an enclave, without exits, and from a mutex that sleeps outside."""

from __future__ import annotations

from typing import Final

from softsgx.lab.join import THREADS, put_tasks, take_tasks
from softsgx.lab.prices import Profile
from softsgx.lab.validate.target import Target

# EDBT'25, mutex-contention.csv, sgx, means of ten runs, cycles of the TSC; `_FREE` without a lock.
_PARTITION_1: Final = 93_505_262
_PARTITION_2_FREE: Final = 97_330_206
_JOIN: Final = 441_171_387
_JOIN_FREE: Final = 57_395_664
_TOTAL: Final = 878_681_478
_TOTAL_FREE: Final = 248_075_688
_TASKS: Final = 128  # of the second partitioning, and what each adds to the join
# How many tasks are taken: what is between is the steady state, without the start and the end.
_TAKEN: Final = (128, 512)
# How many of its tasks each thread adds.
_ADDED: Final = 32


def entries(profile: Profile) -> list[Target]:
    """Empty calls: prices, which these figures have given."""
    c = profile.cycles
    bare = c["EENTER"] + c["EEXIT"]
    source, note = "bare-SGX", "a price, not a result"
    return [
        Target("empty ecall, bare", source, "cycles", 9_460, bare, 1.1, note),
        Target("empty call, Intel SDK", source, "cycles", 12_526, c["ocall"], 1.1, note),
    ]


def exitless(profile: Profile) -> list[Target]:
    """Calls that do not exit."""
    saved = profile.us(profile.cycles["ocall"] - profile.cycles["exitless"])
    return [
        Target(
            "Redis SET, exitless over not", "Gramine", "us a request",
            1e6 / 43_010.75 - 1e6 / 68_119.89, 2 * saved, model_to=3 * saved,
            note="performance.rst; 2 to 3 calls a request, which is not told; prices, not a result",
        )
    ]  # fmt: skip


def mutex(profile: Profile) -> list[Target]:
    """A queue of tasks behind the SDK's mutex, against one without a lock."""
    tasks = _TASKS * _TASKS
    free = _JOIN_FREE * THREADS // tasks
    few, many = (take_tasks(profile, taken, free).elapsed for taken in _TAKEN)
    task = (many - few) / (_TAKEN[1] - _TAKEN[0])
    each = _PARTITION_2_FREE * THREADS // _TASKS
    added = put_tasks(profile, _ADDED, each).elapsed - each
    apart = _PARTITION_1 + _PARTITION_2_FREE + task * tasks
    # All threads add at the same time, as often as each has tasks.
    meeting = apart + added * (_TASKS / _ADDED) * (_TASKS / THREADS)
    source = "EDBT'25"
    return [
        Target(
            "sleeping mutex, join phase", source, "cycles per task", _JOIN / tasks, task,
            note="mutex-contention.csv; every hand-over: a call out to wake, the wake-up, and the "
            "return into the enclave",
        ),
        Target(
            "sleeping mutex over lock-free", source, "times slower", _TOTAL / _TOTAL_FREE,
            apart / _TOTAL_FREE, model_to=meeting / _TOTAL_FREE,
            note="mutex-contention.csv, the whole join. Whether threads meet at the mutexes of its "
            "second partitioning varies: the source has 145 to 455 million cycles for that; the "
            "model has never and always.",
        ),
    ]  # fmt: skip
