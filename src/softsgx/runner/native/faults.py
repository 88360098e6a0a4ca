"""What stopped a thread that runs natively in an enclave: from a signal to an exception.

The kernel's siginfo tells vector and address, but of a page fault neither whether it was a write
nor a fetch: the instruction tells that.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from softsgx.cpu.fault import GP, UD, Fault
from softsgx.linux.process import BUS_ADRALN, FPE_INTDIV, SI_KERNEL, TRAP_TRACE
from softsgx.mem.pagetable import PTE_P, PTE_PFN_MASK
from softsgx.mem.tlb import FETCH
from softsgx.runner.code.disassembler import Code
from softsgx.runner.code.encoding import LONGEST
from softsgx.runner.code.maddr import access_kind
from softsgx.runner.code.scan import illegal
from softsgx.runner.code.trapped import INFO, SYNCHRONOUS
from softsgx.spec import faults
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.registers import RIP

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor

UNBLOCK: Final = sum(1 << (number - 1) for number in SYNCHRONOUS)

_FSW_ES: Final = 1 << 7


class PageFault(Fault):
    """A page fault by the real page tables; the model may allow the access."""

    def __init__(self, address: int) -> None:
        super().__init__(faults.PF, "NATIVE.01", 0, address)


def exception(lp: LogicalProcessor, number: int, info: bytes) -> Fault:
    """The exception that became this signal; sets RIP to its instruction."""
    _, _, code, address = INFO.unpack_from(info)
    rip = lp.regs[RIP]
    if number == signal.SIGTRAP:
        return _trap(lp, code)
    if not lp.elrange_base <= rip < lp.elrange_end:
        return GP("ACCESS.01")  # fetch outside ELRANGE while in enclave mode
    if number == signal.SIGFPE:
        if code == FPE_INTDIV:
            return Fault(faults.DE, "CODE.04")
        x87 = int.from_bytes(lp.x.legacy[2:4], "little") & _FSW_ES
        return Fault(faults.MF if x87 else faults.XM, "CODE.04")
    if number == signal.SIGSEGV and code != SI_KERNEL:
        return PageFault(address)
    if number == signal.SIGSEGV:
        return _protection(lp, rip)
    if number == signal.SIGBUS and code == BUS_ADRALN:
        return Fault(faults.AC, "CODE.04")
    if number == signal.SIGBUS:
        return Fault(faults.SS, "CODE.04") if code == SI_KERNEL else PageFault(address)
    return UD("CODE.01")


def _trap(lp: LogicalProcessor, code: int) -> Fault:
    """INT3 and INT1 trap after their instruction; inside an enclave they are faults."""
    rip = lp.regs[RIP] - 1
    before = code_at(lp, rip, 1)
    if code == SI_KERNEL and before == b"\xcc":
        lp.regs[RIP] = rip
        return Fault(faults.BP, "CODE.03") if lp.dbgoptin else UD("CODE.02")
    if before == b"\xf1" and code != TRAP_TRACE:
        lp.regs[RIP] = rip
        return UD("CODE.02")
    return Fault(faults.DB, "CODE.04")


def before_trap(lp: LogicalProcessor) -> None:
    """Set RIP back to an INT3 or INT1, to be executed again."""
    if code_at(lp, lp.regs[RIP] - 1, 1) in (b"\xcc", b"\xf1"):
        lp.regs[RIP] -= 1


def _protection(lp: LogicalProcessor, rip: int) -> Fault:
    """#GP, or #UD for a privileged instruction that is illegal inside an enclave."""
    found = Code(code_at(lp, rip, LONGEST), rip).first()
    if found is not None and illegal(found.mnemonic.split()[-1], found.operands):
        return UD("CODE.02")  # an instruction that is illegal inside an enclave
    return GP("CODE.04")


def access_of(lp: LogicalProcessor, address: int, mapped: int) -> int:
    """READ, WRITE or FETCH: the access that faulted. `mapped`: the present rights of its page."""
    rip = lp.regs[RIP]
    if address == rip and not mapped & FETCH:
        return FETCH
    code = code_at(lp, rip, LONGEST)
    return access_kind(lp, code, address, bool(mapped & FETCH))


def code_at(lp: LogicalProcessor, rip: int, size: int) -> bytes:
    """Up to `size` instruction bytes of an enclave, as far as their pages are present."""
    processor = lp.processor
    offset = rip & PAGE_MASK
    if offset + size <= PAGE_SIZE:
        pte = lp.space.ptes.get(rip >> PAGE_SHIFT, 0)
        return processor.memory.read(pte & PTE_PFN_MASK | offset, size) if pte & PTE_P else b""
    out = b""
    while len(out) < size:
        at = rip + len(out)
        pte = lp.space.ptes.get(at >> PAGE_SHIFT, 0)
        if not pte & PTE_P:
            break
        length = min(size - len(out), PAGE_SIZE - (at & PAGE_MASK))
        out += processor.memory.read(pte & PTE_PFN_MASK | at & PAGE_MASK, length)
    return out
