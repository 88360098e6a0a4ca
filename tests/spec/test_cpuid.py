"""CPUID leaves 7 and 12H as data: bit positions, and how an EPC section is spread over registers.

What a part announces with them is tests/cpu/test_cpuid.py.
"""

import pytest

from softsgx.spec import cpuid
from softsgx.spec.cpuid import NOTHING, Registers, epc_section


def test_leaf_7_bits() -> None:
    assert cpuid.LEAF7_EBX_SGX == 1 << 2
    assert cpuid.LEAF7_ECX_SGX_LC == 1 << 30
    assert cpuid.LEAF7_EDX_SGX_KEYS == 1 << 1
    assert cpuid.LEAF7_ECX_CET_SS == 1 << 7
    assert cpuid.LEAF7_EDX_CET_IBT == 1 << 20


def test_leaf_12h_sub_leaf_0_bits() -> None:
    assert cpuid.LEAF12_SGX1 == 1 << 0
    assert cpuid.LEAF12_SGX2 == 1 << 1
    assert cpuid.LEAF12_ENCLV == 1 << 5
    assert cpuid.LEAF12_OVERSUB == 1 << 6
    assert cpuid.LEAF12_EVERIFYREPORT2 == 1 << 7
    assert cpuid.LEAF12_EUPDATESVN == 1 << 10
    assert cpuid.LEAF12_EDECCSSA == 1 << 11


def test_section_types() -> None:
    assert (cpuid.SECTION_INVALID, cpuid.SECTION_EPC, cpuid.SECTION_PROTECTED) == (0, 1, 1)
    assert NOTHING == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("base", "size", "registers"),
    [
        (0x7020_0000, 0x5D8_0000, (0x7020_0001, 0, 0x05D8_0001, 0)),
        (0x100_0000_0000, 0x1000, (1, 0x100, 0x1001, 0)),
        (0x12_3456_7000, 0x80_4000_3000, (0x3456_7001, 0x12, 0x4000_3001, 0x80)),
        ((1 << 52) - 0x1000, (1 << 52) - 0x1000, (0xFFFF_F001, 0xF_FFFF, 0xFFFF_F001, 0xF_FFFF)),
    ],
)
def test_epc_section(base: int, size: int, registers: tuple[int, int, int, int]) -> None:
    assert epc_section(base, size) == Registers(*registers)
