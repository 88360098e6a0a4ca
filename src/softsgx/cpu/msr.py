"""RDMSR and WRMSR of the registers that concern SGX. SDM 3D, 42.2 "IA32_FEATURE_CONTROL"; SDM 4.

The functions here are methods of `LogicalProcessor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.cpu.fault import GP
from softsgx.spec.bits import canonical
from softsgx.spec.cet import IA32_U_CET, U_CET_RESERVED, U_CET_SUPPRESS, U_CET_TRACKER
from softsgx.spec.msr import (
    FEATURE_LOCK,
    FEATURE_SGX_LC,
    IA32_FEATURE_CONTROL,
    IA32_SGXLEPUBKEYHASH,
)

if TYPE_CHECKING:
    from softsgx.cpu.state import LpState


def rdmsr(self: LpState, msr: int) -> int:
    """IA32_FEATURE_CONTROL, IA32_U_CET or an IA32_SGXLEPUBKEYHASH register.

    #GP(0) if the part has none.
    """
    if msr == IA32_FEATURE_CONTROL:
        return self.feature_control
    if msr in IA32_SGXLEPUBKEYHASH and not self.processor.part.launch_control:
        raise GP("RDMSR.01")  # IA32_SGXLEPUBKEYHASH on a part without launch control
    if msr == IA32_U_CET:
        if not self.processor.part.cet:
            raise GP("RDMSR.02")  # IA32_U_CET on a part without CET
        return self.u_cet
    at = 8 * _hash_msr(msr)
    return int.from_bytes(self.lepubkeyhash[at : at + 8], "little")


def wrmsr(self: LpState, msr: int, value: int) -> None:
    """Write an MSR; #GP(0) if it is locked, not enabled, absent, or cannot hold the value."""
    if not isinstance(value, int):
        raise TypeError(f"value: {value!r} is not an integer")
    if not 0 <= value < 1 << 64:
        raise ValueError(f"value: {value:#x} is not a 64-bit register value")
    if msr == IA32_FEATURE_CONTROL:
        if self.feature_control & FEATURE_LOCK:
            raise GP("WRMSR.01")  # IA32_FEATURE_CONTROL is locked
        self.feature_control = value
        return
    if msr == IA32_U_CET:
        _write_u_cet(self, value)
        return
    at = 8 * _hash_msr(msr)
    enabled = FEATURE_LOCK | FEATURE_SGX_LC
    if not self.processor.part.launch_control or self.feature_control & enabled != enabled:
        raise GP("WRMSR.02")  # IA32_SGXLEPUBKEYHASH: launch control not locked and enabled
    old = self.lepubkeyhash
    self.lepubkeyhash = old[:at] + value.to_bytes(8, "little") + old[at + 8 :]


def _write_u_cet(lp: LpState, value: int) -> None:
    if lp.secs is not None:
        raise RuntimeError("WRMSR is not possible inside an enclave: CPL is 3")
    if not lp.processor.part.cet:
        raise GP("WRMSR.03")  # IA32_U_CET on a part without CET
    tracker = U_CET_TRACKER | U_CET_SUPPRESS
    if value & U_CET_RESERVED or value & tracker == tracker or not canonical(value):
        # IA32_U_CET: reserved bit, TRACKER with SUPPRESS, or bitmap base not canonical
        raise GP("WRMSR.04")
    lp.u_cet = value


def _hash_msr(msr: int) -> int:
    if not isinstance(msr, int):
        raise TypeError(f"msr: {msr!r} is not a number")
    if msr not in IA32_SGXLEPUBKEYHASH:
        raise ValueError(f"MSR {msr:#x} is not one of SGX; 3AH, 6A0H and 8CH to 8FH are")
    return msr - IA32_SGXLEPUBKEYHASH[0]
