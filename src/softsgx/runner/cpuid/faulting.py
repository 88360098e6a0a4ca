"""When CPUID faulting is used: `--cpuid`.

With CPUID faulting (arch_prctl, ARCH_SET_CPUID) no CPUID escapes. But the kernel writes an MSR
whenever it switches between a thread that has it and one that does not, and each stop of a
supervised thread takes two to four switches. On bare metal that costs little; under a hypervisor
each write may cost 10 us, where a stop costs 17. A run that needs speed there can switch it off
when a thread first enters an enclave, since programs look for features before that, or not use it.
"""

from __future__ import annotations

import mmap
import struct
import time
from enum import Enum
from typing import Final

from softsgx.runner.errors import RunnerError
from softsgx.runner.host.abi import ARCH_SET_CPUID
from softsgx.runner.host.probes import (
    Child,
    Refused,
    arch_prctl,
    try_cpuid_faulting,
)
from softsgx.runner.options import CPUID_CHOICES

SWITCH_US_DEAR: Final = 2.0  # at this cost of one change a stop of 17 us takes 25
_CHANGES: Final = 40


class CpuidTraps(Enum):
    """When CPUID faults. Unless ALWAYS, each proven CPUID instruction is also replaced."""

    ALWAYS = "every CPUID is served"
    UNTIL_ENTRY = "every CPUID is served until a thread first enters an enclave"
    NEVER = "only a CPUID that disassembly finds shows SGX"


def choose(option: str) -> CpuidTraps:
    """What `--cpuid` means on this machine. RunnerError if the machine cannot do it."""
    if option not in CPUID_CHOICES:
        raise RunnerError("--cpuid", f"{option!r}: known are {', '.join(CPUID_CHOICES)}")
    if option == "patch":
        return CpuidTraps.NEVER
    try:
        try_cpuid_faulting()
    except (Refused, OSError) as error:
        if option == "auto":
            return CpuidTraps.NEVER
        raise RunnerError(f"--cpuid {option}", f"CPUID faulting: {error}") from None
    return CpuidTraps.UNTIL_ENTRY if option == "until-entry" else CpuidTraps.ALWAYS


def switch_us() -> float:
    """The cost in microseconds of one switch between threads with and without CPUID faulting.

    The least of many measurements: whatever else the machine does only adds to it.
    """
    found = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the child

    def body() -> int:
        call, best = arch_prctl(), 1.0
        for _ in range(_CHANGES):
            began = time.perf_counter()
            call(ARCH_SET_CPUID, 0)
            call(ARCH_SET_CPUID, 1)
            best = min(best, time.perf_counter() - began)
        struct.pack_into("<d", found, 0, best / 2 * 1e6)
        return 0

    with Child(body) as child:
        status = child.wait()
    if status:
        raise Refused(f"a child process ended with status {status:#x}")
    return float(struct.unpack_from("<d", found)[0])
