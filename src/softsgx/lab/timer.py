"""The kernel's timer interrupt: HZ times a second each processor leaves its enclave.

An exit by the timer is an AEX, the handler, and ERESUME. It happens to a thread that only computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.lab.enclaves import with_hole
from softsgx.lab.threads import Threads
from softsgx.sim import IRQ, Interrupt, Steps

if TYPE_CHECKING:
    from softsgx.lab.measured import MeasuredThread
    from softsgx.lab.prices import Profile

# LOCAL_TIMER_VECTOR of Linux.
_VECTOR: Final = 0xEC


def timer_exits(profile: Profile, hz: int, ms: int) -> int:
    """How often a thread that computes for `ms` milliseconds leaves the enclave."""
    second = profile.cycles["clock_mhz"] * 1_000_000
    threads = Threads(profile, with_hole(1, 0), 1, 256, tick=second // hz)
    threads.warm()
    lp = threads.machine.processor.lps[0]
    take = threads.machine.kernel.take_interrupt
    computing = True

    def program(t: MeasuredThread) -> Steps[None]:
        nonlocal computing
        yield from t.compute(second * ms // 1000)
        computing = False

    def handler() -> Steps[None]:
        yield (IRQ, Interrupt(lp), True)
        take(lp, _VECTOR)

    def timer() -> Steps[None]:
        while computing:
            me = yield ("tick", ("lp", lp.id), False)
            if computing:
                me.execution.spawn(handler(), "timer", lp.id, interrupt=True)

    return threads.run(program, (timer(), None)).counts.get("ERESUME", 0)
