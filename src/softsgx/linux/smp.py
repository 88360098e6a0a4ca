"""Interprocessor interrupts of the kernel. Linux 6.12, kernel/smp.c, arch/x86/mm/tlb.c.

A processor that takes an interrupt inside an enclave leaves it by an AEX, which drops all its
translations: that is why the driver's handler need not do anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from softsgx.sim.ipi import ipi

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.linux.mm import Mm
    from softsgx.linux.process import Thread
    from softsgx.sim import Steps

CALL_FUNCTION_VECTOR = 0xFB
TLB_FLUSH_VECTOR = 0xFD


def on_each_cpu_mask(current: Thread, cpus: Iterable[int]) -> Steps[None]:
    """Interrupt the given processors and wait until each took it; the function called is empty."""
    lps = current.kernel.processor.lps
    take = current.kernel.take_interrupt

    def no_op(lp: LogicalProcessor) -> None:
        take(lp, CALL_FUNCTION_VECTOR)

    yield from ipi([lps[cpu] for cpu in sorted(cpus)], no_op)


def flush_tlb_mm(current: Thread, mm: Mm) -> Steps[None]:
    """flush_tlb_range: drop the translations of an address space on every processor that has it."""
    lps = current.kernel.processor.lps
    take = current.kernel.take_interrupt

    def flush(lp: LogicalProcessor) -> None:
        take(lp, TLB_FLUSH_VECTOR)
        lp.flush_tlb("IPI")

    targets = [lps[cpu] for cpu in sorted(mm.cpumask) if cpu != current.cpu]
    if current.cpu in mm.cpumask:
        lps[current.cpu].flush_tlb("mprotect")
    if targets:
        yield from ipi(targets, flush)
