"""Interprocessor interrupts of the kernel. Linux 6.12, kernel/smp.c, arch/x86/mm/tlb.c.

A processor that takes an interrupt inside an enclave leaves it by an AEX, which drops all its
translations. So the driver's handler is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from softsgx.sim.ipi import ipi

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.linux.mm import Mm
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps, Task

CALL_FUNCTION_VECTOR = 0xFB
RESCHEDULE_VECTOR = 0xFC
TLB_FLUSH_VECTOR = 0xFD


@contextmanager
def preempt_disabled(me: Task | None) -> Iterator[None]:
    """preempt_disable to preempt_enable: no other task runs on the processor of `me`."""
    if me is None or me.cpu is None:
        yield
        return
    me.execution.enter_interrupt(me)
    try:
        yield
    finally:
        me.execution.leave_interrupt(me)


def on_each_cpu_mask(current: Thread, cpus: Iterable[int]) -> Steps[None]:
    """Interrupt the given processors, and wait until each has run the function, an empty one."""
    lps = current.kernel.processor.lps
    yield from ipi([lps[cpu] for cpu in sorted(cpus)], _handler(current, CALL_FUNCTION_VECTOR))


def smp_send_reschedule(current: Thread, cpus: Iterable[int]) -> Steps[None]:
    """Kick the given processors: threads there check for signals, after an AEX if in an enclave.

    The kernel's takes one processor, and does not wait for it.
    """
    lps = current.kernel.processor.lps
    targets = [lps[cpu] for cpu in sorted(cpus) if cpu != current.cpu]
    if targets:
        yield from ipi(targets, _handler(current, RESCHEDULE_VECTOR))


def flush_tlb_mm(current: Thread, mm: Mm) -> Steps[None]:
    """flush_tlb_range: drop the translations of an address space on every processor that has it."""
    lps = current.kernel.processor.lps
    take = _handler(current, TLB_FLUSH_VECTOR)

    def flush(lp: LogicalProcessor) -> None:
        take(lp)
        lp.flush_tlb("IPI")

    targets = [lps[cpu] for cpu in sorted(mm.cpumask) if cpu != current.cpu]
    if current.cpu in mm.cpumask:
        lps[current.cpu].flush_tlb("flush_tlb_mm")
    if targets:
        yield from ipi(targets, flush)


def _handler(current: Thread, vector: int) -> Callable[[LogicalProcessor], None]:
    """The handler that makes a processor take this interrupt."""
    take = current.kernel.take_interrupt

    def taken(lp: LogicalProcessor) -> None:
        take(lp, vector)

    return taken
