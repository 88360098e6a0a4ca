"""EEXIT, ENCLU leaf 04H: leave the enclave. SDM 3D, EEXIT."""

from softsgx.cpu import cet
from softsgx.cpu.aex import leave_enclave
from softsgx.cpu.fault import GP
from softsgx.cpu.lp import LogicalProcessor
from softsgx.spec.bits import canonical
from softsgx.spec.msr import RFLAGS_TF
from softsgx.spec.registers import RCX, RFLAGS, RIP
from softsgx.spec.tcs import TCS_OFF_AEP

_BY_EEXIT = -1


def eexit(lp: LogicalProcessor, rbx: int, _rcx: int, _rdx: int) -> None:
    """Go on outside at RBX; RCX := AEP. Every other register keeps what the enclave left in it."""
    if not canonical(rbx):
        raise GP("EEXIT.01")  # RBX (target) not canonical

    memory = lp.processor.memory
    tcs = lp.processor.epc.physical(lp.tcs_page)
    aep = int.from_bytes(memory.read(tcs + TCS_OFF_AEP, 8), "little")
    if not lp.dbgoptin:
        lp.regs[RFLAGS] = lp.regs[RFLAGS] & ~RFLAGS_TF | lp.outside[3]
    lp.regs[RIP] = rbx
    lp.regs[RCX] = aep
    if lp.processor.part.cet:
        cet.leave_by_eexit(lp)
    leave_enclave(lp, "EEXIT", _BY_EEXIT)
