"""CPUID leaves 7 and 12H: what software reads to find SGX.

SDM 2A, CPUID; SDM 3D, 37.7 "Discovering Support for Intel SGX and Enabling Enclave Instructions".
"""

from typing import Final, NamedTuple

# Leaf 7, sub-leaf 0
LEAF7_EBX_SGX: Final = 1 << 2
LEAF7_ECX_SGX_LC: Final = 1 << 30
LEAF7_EDX_SGX_KEYS: Final = 1 << 1
LEAF7_ECX_CET_SS: Final = 1 << 7
LEAF7_EDX_CET_IBT: Final = 1 << 20

# Leaf 12H, sub-leaf 0, EAX
LEAF12_SGX1: Final = 1 << 0
LEAF12_SGX2: Final = 1 << 1
LEAF12_ENCLV: Final = 1 << 5
LEAF12_OVERSUB: Final = 1 << 6
LEAF12_EVERIFYREPORT2: Final = 1 << 7
LEAF12_EUPDATESVN: Final = 1 << 10
LEAF12_EDECCSSA: Final = 1 << 11

# Leaf 12H, sub-leaves 2 and up: EPC sections
SECTION_INVALID: Final = 0
SECTION_EPC: Final = 1
SECTION_PROTECTED: Final = 1  # ECX[3:0]: confidentiality and integrity
SECTION_LOW_MASK: Final = 0xFFFFF000
SECTION_HIGH_MASK: Final = 0xFFFFF


class Registers(NamedTuple):
    """What one CPUID execution returns."""

    eax: int
    ebx: int
    ecx: int
    edx: int


NOTHING: Final = Registers(0, 0, 0, 0)


def epc_section(base: int, size: int) -> Registers:
    """Sub-leaf of one EPC section at physical `base`, `size` bytes."""
    return Registers(
        eax=SECTION_EPC | base & SECTION_LOW_MASK,
        ebx=base >> 32 & SECTION_HIGH_MASK,
        ecx=SECTION_PROTECTED | size & SECTION_LOW_MASK,
        edx=size >> 32 & SECTION_HIGH_MASK,
    )
