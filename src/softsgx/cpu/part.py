"""What kind of processor this is: the features it announces, and CPUID made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from softsgx.cpu.arguments import check_range, check_types
from softsgx.sim import Unmodelled
from softsgx.spec import leaves
from softsgx.spec.attributes import (
    ATTR_AEXNOTIFY,
    ATTR_CET,
    ATTR_DEBUG,
    ATTR_EINITTOKENKEY,
    ATTR_KSS,
    ATTR_MODE64BIT,
    ATTR_PROVISIONKEY,
    MISC_CPINFO,
    MISC_EXINFO,
    XFRM_LEGACY,
    legal_xcr0,
)
from softsgx.spec.bits import MASK32
from softsgx.spec.cpuid import (
    LEAF7_EBX_SGX,
    LEAF7_ECX_CET_SS,
    LEAF7_ECX_SGX_LC,
    LEAF7_EDX_CET_IBT,
    LEAF12_EDECCSSA,
    LEAF12_OVERSUB,
    LEAF12_SGX1,
    LEAF12_SGX2,
    NOTHING,
    Registers,
    epc_section,
)
from softsgx.spec.ssa import compute_xsave_size

# CPUID leaf 0DH for the components this model knows: bit -> (size, offset in the standard format).
XSAVE_COMPONENTS = MappingProxyType(
    {
        2: (256, 576),  # AVX
        5: (64, 1088),  # AVX-512 opmask
        6: (512, 1152),  # AVX-512 ZMM_Hi256
        7: (1024, 1664),  # AVX-512 Hi16_ZMM
        9: (8, 2688),  # PKRU
        17: (64, 2752),  # AMX XTILECFG
        18: (8192, 2816),  # AMX XTILEDATA
    }
)


# Supervisor components: XCR0, and so XFRM, never has them. An enclave's CET state is saved apart,
# in the CET state save area. SDM 1, 13.1 "XSAVE-Supported Features and State-Component Bitmaps".
_XSS_ONLY = 1 << 11 | 1 << 12


@cache
def xsave_size(xfrm: int) -> int:
    """Bytes of the XSAVE area for XFRM, with the component layout of this model."""
    return compute_xsave_size(xfrm, dict(XSAVE_COMPONENTS))


# Leaves with a number in the manual that no part has here, and that have no body.
UNMODELLED_LEAVES: Final = frozenset({"EVERIFYREPORT2", "EUPDATESVN"})


def _feature(default: Any, what: str) -> Any:
    """A field of Part; docs/readings.md and `--cpu-option help` list what it says."""
    return field(default=default, metadata={"what": what})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The announced features of a processor. The default is a current server part without CET.

    `xfrm` is the set of XCR0 bits the part supports; sizes are log2 of bytes. `cet` brings shadow
    stacks, indirect-branch tracking and ATTRIBUTES.CET; `cpinfo`, with it, MISCSELECT.CPINFO.

    ENCLV, EVERIFYREPORT2 and EUPDATESVN are not modelled: asking for one raises `Unmodelled`.
    Executing one raises `Unmodelled` as well, unless `absent_leaves_fault` is set: then the
    processor does what a part without them does, which is what an unmodified program must see.
    """

    sgx2: bool = _feature(True, "SGX2: EAUG, EMODPR, EMODT, EACCEPT, EACCEPTCOPY, EMODPE.")
    oversub: bool = _feature(True, "The oversubscription leaves: ELDBC, ELDUC, ERDINFO, ETRACKC.")
    edeccssa: bool = _feature(True, "ENCLU[EDECCSSA].")
    kss: bool = _feature(True, "Key separation and sharing, ATTRIBUTES.KSS.")
    aexnotify: bool = _feature(True, "ATTRIBUTES.AEXNOTIFY and TCS.FLAGS.AEXNOTIFY.")
    exinfo: bool = _feature(True, "MISCSELECT.EXINFO: #PF and #GP are reported inside.")
    launch_control: bool = _feature(
        True, "IA32_SGXLEPUBKEYHASH can be written; without it Linux has no driver."
    )
    xfrm: int = _feature(0b111, "The XCR0 bits of the part; those of a run depend on the engine.")
    max_size_32: int = _feature(31, "log2 of the largest enclave outside of 64-bit mode.")
    max_size_64: int = _feature(46, "log2 of the largest enclave in 64-bit mode.")
    cpusvn: bytes = _feature(
        bytes([0x0B, 0x0B, 0x10, 0x0F, 0xFF, 0xFF, 1]) + bytes(9),
        "CPUSVN, the security version of the part: 16 bytes.",
    )
    absent_leaves_fault: bool = _feature(
        False, "Leaves that are not modelled fault as on a part without them."
    )
    cet: bool = _feature(False, "Shadow stacks, indirect-branch tracking, ATTRIBUTES.CET.")
    cpinfo: bool = _feature(False, "MISCSELECT.CPINFO, with cet: #CP is reported inside.")
    enclv: bool = _feature(False, "ENCLV: not modelled.")
    everifyreport2: bool = _feature(False, "ENCLU[EVERIFYREPORT2]: not modelled.")
    eupdatesvn: bool = _feature(False, "ENCLS[EUPDATESVN]: not modelled.")

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("enclv", "everifyreport2", "eupdatesvn"):
            if getattr(self, name):
                raise Unmodelled(f"Part({name}=True)")
        if self.cpinfo and not self.cet:
            raise ValueError("Part.cpinfo: #CP is reported by a part with CET only")
        if not 0 <= self.xfrm < 1 << 64:
            raise ValueError(f"Part.xfrm: {self.xfrm:#x} does not fit 64 bits")
        if self.xfrm & XFRM_LEGACY != XFRM_LEGACY:
            raise ValueError(f"Part.xfrm: {self.xfrm:#x} lacks x87 or SSE")
        if self.xfrm & _XSS_ONLY:
            raise ValueError(
                "Part.xfrm: bits 11 and 12 (CET_U, CET_S) belong to IA32_XSS, not XCR0"
            )
        if not legal_xcr0(self.xfrm):
            raise ValueError(f"Part.xfrm: {self.xfrm:#x} has part of AVX-512 or AMX")
        unknown = [b for b in range(2, 64) if self.xfrm >> b & 1 and b not in XSAVE_COMPONENTS]
        if unknown:
            raise ValueError(f"Part.xfrm: no XSAVE layout known for bit {unknown[0]}")
        if len(self.cpusvn) != 16:
            raise ValueError(f"Part.cpusvn: {len(self.cpusvn)} bytes given, 16 needed")
        # An enclave has at least two pages and is smaller than the limit.
        check_range("Part.max_size_32", self.max_size_32, 14, 32)
        check_range("Part.max_size_64", self.max_size_64, 14, 64)

    @property
    def miscselect(self) -> int:
        """Supported MISCSELECT bits."""
        return (MISC_EXINFO if self.exinfo else 0) | (MISC_CPINFO if self.cpinfo else 0)

    @property
    def attributes(self) -> int:
        """Permitted ATTRIBUTES[63:0] bits. INIT is not among them: only EINIT sets it."""
        bits = ATTR_DEBUG | ATTR_MODE64BIT | ATTR_PROVISIONKEY | ATTR_EINITTOKENKEY
        bits |= ATTR_CET if self.cet else 0
        return bits | (ATTR_KSS if self.kss else 0) | (ATTR_AEXNOTIFY if self.aexnotify else 0)

    def extensions(self) -> frozenset[str]:
        """The instruction set extensions of `spec.leaves` that this part has."""
        have = {
            leaves.SGX1: True,
            leaves.SGX2: self.sgx2,
            leaves.OVERSUB: self.oversub,
            leaves.KEY_EDECCSSA: self.edeccssa,
        }
        return frozenset(name for name, present in have.items() if present)

    def cpuid(self, leaf: int, subleaf: int, sections: Sequence[tuple[int, int]]) -> Registers:
        """CPUID leaf 7 or 12H; `sections` are (physical base, bytes) of the EPC."""
        if subleaf < 0:
            raise ValueError(f"Part.cpuid: subleaf {subleaf} is negative")
        if leaf == 7:
            return self._leaf7() if subleaf == 0 else NOTHING
        if leaf != 0x12:
            raise ValueError(f"Part.cpuid: leaf {leaf:#x} says nothing about SGX; 7 and 0x12 do")
        if subleaf == 0:
            return self._leaf12()
        if subleaf == 1:
            low, high = self.attributes & MASK32, self.attributes >> 32
            return Registers(low, high, self.xfrm & MASK32, self.xfrm >> 32)
        if subleaf - 2 < len(sections):
            return epc_section(*sections[subleaf - 2])
        return NOTHING

    def _leaf7(self) -> Registers:
        ecx = LEAF7_ECX_SGX_LC if self.launch_control else 0
        ecx |= LEAF7_ECX_CET_SS if self.cet else 0
        return Registers(0, LEAF7_EBX_SGX, ecx, LEAF7_EDX_CET_IBT if self.cet else 0)

    def _leaf12(self) -> Registers:
        eax = LEAF12_SGX1
        eax |= LEAF12_SGX2 if self.sgx2 else 0
        eax |= LEAF12_OVERSUB if self.oversub else 0
        eax |= LEAF12_EDECCSSA if self.edeccssa else 0
        return Registers(eax, self.miscselect, 0, self.max_size_64 << 8 | self.max_size_32)


DEFAULT_PART = Part()
SGX1_PART = Part(sgx2=False, oversub=False, edeccssa=False, kss=False, aexnotify=False)
