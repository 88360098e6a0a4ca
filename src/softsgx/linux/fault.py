"""Page faults: the x86 part before the driver, and the signal for a fault it does not repair.

Linux 6.12, arch/x86/mm/fault.c (do_user_addr_fault), mm/memory.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.events.kernel import PageFaultBegun, PageFaultEnded
from softsgx.linux.errno import EFAULT
from softsgx.linux.mm import TASK_SIZE, VM_EXEC, VM_READ, VM_WRITE, Vma, anonymous_page
from softsgx.linux.process import (
    BUS_ADRERR,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SEGV_PKUERR,
    SIGBUS,
    SIGSEGV,
    Signal,
    Thread,
    kernel_entry,
)
from softsgx.linux.sgx.encl import VM_FAULT_BUSY, VM_FAULT_NOPAGE, VM_FAULT_OOM, VM_FAULT_SIGBUS
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_P, PTE_PFN_MASK, PTE_W
from softsgx.sim.point import RETRY
from softsgx.spec import faults
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT
from softsgx.spec.faults import PFEC_P, PFEC_PK, PFEC_SGX, PFEC_U, PFEC_W

if TYPE_CHECKING:
    from softsgx.sim import Steps


@kernel_entry
def do_user_addr_fault(current: Thread, error_code: int, address: int) -> Steps[Signal | None]:
    """A #PF of a user access: None if it was repaired and the access may be tried again.

    The signal's error code is what user space sees, also through the vDSO.
    """
    steps = _do_user_addr_fault(current, error_code, address)
    log = current.kernel.processor.log
    return _traced(current, error_code, address, steps) if log.on else steps


def _traced(
    current: Thread, error_code: int, address: int, steps: Steps[Signal | None]
) -> Steps[Signal | None]:
    log = current.kernel.processor.log
    log.emit(PageFaultBegun(current.cpu, current.name, address, error_code))
    signal = yield from steps
    outcome = "repaired" if signal is None else signal.text
    log.emit(PageFaultEnded(current.cpu, current.name, address, error_code, outcome))
    return signal


def _do_user_addr_fault(current: Thread, error_code: int, address: int) -> Steps[Signal | None]:
    mm = current.mm
    if not 0 <= address < TASK_SIZE:
        # sanitize_error_code: nothing is disclosed about the kernel's page tables.
        return _signal(SIGSEGV, SEGV_MAPERR, address, error_code | PFEC_P)
    with (yield from mm.mmap_lock.acquire_read()):
        vma = mm.vma_lookup(address)
        if vma is None:
            return _signal(SIGSEGV, SEGV_MAPERR, address, error_code)
        if error_code & PFEC_PK:
            return _signal(SIGSEGV, SEGV_PKUERR, address, error_code)
        if error_code & PFEC_SGX:
            # The EPCM refused, which the kernel cannot repair. The driver is not called.
            return _signal(SIGSEGV, SEGV_ACCERR, address, error_code)
        if _access_error(vma, error_code):
            return _signal(SIGSEGV, SEGV_ACCERR, address, error_code)
        result = yield from handle_mm_fault(current, vma, address, error_code)
    if result == VM_FAULT_NOPAGE:
        return None
    if result == VM_FAULT_BUSY:
        yield (RETRY, mm.name, False)
        return None
    if result == VM_FAULT_OOM:
        # Memory reclaim or the OOM killer makes room; the instruction is tried again.
        yield ("oom", mm.name, True)
        return None
    assert result == VM_FAULT_SIGBUS, result
    return _signal(SIGBUS, BUS_ADRERR, address, error_code)


def _access_error(vma: Vma, error_code: int) -> bool:
    """access_error: whether the area forbids the access."""
    if error_code & PFEC_W:
        return not vma.flags & VM_WRITE
    if error_code & PFEC_P:
        return True
    return not vma.flags & (VM_READ | VM_EXEC | VM_WRITE)


def handle_mm_fault(current: Thread, vma: Vma, address: int, error_code: int) -> Steps[str]:
    """The handler of the area. mmap_lock held for reading."""
    mm = current.mm
    if not vma.sgx:
        anonymous_page(mm, vma, address & ~PAGE_MASK)
        return VM_FAULT_NOPAGE
    pte = mm.space.lookup(address)
    if pte & PTE_P and error_code & PFEC_W and not pte & PTE_W:
        return (yield from _wp_pfn_shared(current, vma, address, pte))
    if pte & PTE_P:
        # Another thread was faster, or a TLB was stale: spurious, the access is tried again.
        return VM_FAULT_NOPAGE
    return (yield from current.kernel.driver.fault(current, vma, address))


def _wp_pfn_shared(current: Thread, vma: Vma, address: int, pte: int) -> Steps[str]:
    """A write to a page mapped read-only in a writable area."""
    refused = yield from current.kernel.driver.pfn_mkwrite(current, vma, address)
    if refused != VM_FAULT_NOPAGE:
        return refused
    yield ("pte", (current.mm.name, address & ~PAGE_MASK), True)
    current.mm.space.set(address, pte | PTE_A | PTE_D | PTE_W)
    return VM_FAULT_NOPAGE


def fault_in_user(current: Thread, address: int, write: bool) -> Steps[int]:
    """For copies to and from user memory: fault the page in and return its pfn, or -EFAULT.

    Spins while the reclaimer holds the page.
    """
    code = PFEC_U | (PFEC_W if write else 0)
    while True:
        if current.mm.space.lookup(address) & PTE_P:
            code |= PFEC_P
        signal = yield from do_user_addr_fault(current, code, address)
        if signal is not None:
            return -EFAULT
        pte = current.mm.space.lookup(address)
        if pte & PTE_P and (not write or pte & PTE_W):
            return (pte & PTE_PFN_MASK) >> PAGE_SHIFT
        code &= ~PFEC_P


def _signal(number: int, code: int, address: int, error_code: int) -> Signal:
    return Signal(number, code, address, faults.PF, error_code)
