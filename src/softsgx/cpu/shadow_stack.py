"""What instructions do to the CET state, once decoded: methods of LogicalProcessor.

CALL, RET, RSTORSSP and their kin reach memory by shadow-stack accesses of 8 bytes at CPL 3; an
indirect CALL or JMP and ENDBR64 move the tracker. SDM 1, "Control-flow Enforcement
Technology (CET)"; SDM 3A, 4.6 "Access Rights".
"""

from __future__ import annotations

from softsgx.cpu.access import check_shadow_access
from softsgx.cpu.memory import LpMemory
from softsgx.cpu.state import LpState
from softsgx.mem.tlb import ABORT, SHADOW_READ, SHADOW_WRITE
from softsgx.spec.bits import MASK64, PAGE_MASK
from softsgx.spec.cet import ENDBR_EN, U_CET_SUPPRESS, U_CET_TRACKER
from softsgx.spec.msr import CR4_CET


def shadow_load(self: LpMemory, address: int) -> int:
    """Read 8 bytes by a shadow-stack access, as RET does."""
    _check(self, address)
    entry = self.translate(address, SHADOW_READ)
    if entry & ABORT:
        return MASK64
    return self.processor.memory.read_int(entry & ~PAGE_MASK | address & PAGE_MASK, 8)


def shadow_store(self: LpMemory, address: int, value: int) -> None:
    """Write 8 bytes by a shadow-stack access, as CALL does."""
    _check(self, address)
    entry = self.translate(address, SHADOW_WRITE)
    if not entry & ABORT:
        physical = entry & ~PAGE_MASK | address & PAGE_MASK
        self.processor.memory.write(physical, value.to_bytes(8, "little"))


def _check(lp: LpState, address: int) -> None:
    check_shadow_access(lp, SHADOW_READ)
    if address & 7:
        raise ValueError(f"address {address:#x}: a shadow-stack access of 8 bytes is aligned")


def indirect_branch(self: LpState) -> None:
    """What an indirect CALL or JMP does to the tracker: it waits for ENDBRANCH."""
    if self.cr4 & CR4_CET and self.u_cet & ENDBR_EN and not self.u_cet & U_CET_SUPPRESS:
        self.u_cet |= U_CET_TRACKER


def endbranch(self: LpState) -> None:
    """What ENDBR64 does to the tracker: it is idle and no longer suppressed."""
    self.u_cet &= ~(U_CET_TRACKER | U_CET_SUPPRESS)
