"""EEXIT, ENCLU leaf 04H: leave the enclave. SDM 3D, EEXIT."""

from softsgx.cpu import cet
from softsgx.cpu.aex import leave_enclave
from softsgx.cpu.fault import GP
from softsgx.cpu.lp import LogicalProcessor
from softsgx.spec.bits import canonical
from softsgx.spec.msr import RFLAGS_TF
from softsgx.spec.registers import RCX, RFLAGS, RIP
from softsgx.spec.structure import unpack_u64
from softsgx.spec.tcs import TCS_OFF_AEP

_BY_EEXIT = -1


def eexit(lp: LogicalProcessor, rbx: int, _rcx: int, _rdx: int) -> None:
    """Leave to RBX; RCX := AEP. Every other register keeps what the enclave left in it."""
    if not canonical(rbx):
        raise GP("EEXIT.01")  # RBX (target) not canonical

    processor = lp.processor
    tcs = processor.memory.writable(processor.epc.pfn(lp.tcs_page))
    if not lp.dbgoptin:
        lp.regs[RFLAGS] = lp.regs[RFLAGS] & ~RFLAGS_TF | lp.outside[3]
    lp.regs[RIP] = rbx
    (lp.regs[RCX],) = unpack_u64(tcs, TCS_OFF_AEP)
    if processor.part.cet:
        cet.leave_by_eexit(lp)
    leave_enclave(lp, tcs, "EEXIT", _BY_EEXIT)
