"""CPUID leaves 7 and 12H of the parts, and the EPC sections they list.

SDM 3D, 37.7.2 "Intel SGX Resource Enumeration Leaves".
"""

from typing import Any

import pytest

from softsgx.cpu import SGX1_PART, Part, Processor
from softsgx.cpu.part import DEFAULT_PART

PAGE = 4096
SECTIONS = ((0x7020_0000, 0x5D80), (0x10_0000_0000, 2), (0x12_3456_7000, 0x20_0001))
ONE = ((1 << 40, 1024 * PAGE),)


def test_leaf_7_announces_sgx_and_launch_control() -> None:
    assert DEFAULT_PART.cpuid(7, 0, ()) == (0, 1 << 2, 1 << 30, 0)
    assert Part(launch_control=False).cpuid(7, 0, ()) == (0, 1 << 2, 0, 0)
    assert SGX1_PART.cpuid(7, 0, ()) == (0, 1 << 2, 1 << 30, 0)


@pytest.mark.parametrize("subleaf", [1, 2, 100])
def test_leaf_7_has_one_sub_leaf(subleaf: int) -> None:
    assert DEFAULT_PART.cpuid(7, subleaf, ONE) == (0, 0, 0, 0)


def test_the_default_part_is_an_sgx2_part_with_oversub_and_edeccssa() -> None:
    # SGX1, SGX2, ETRACKC and company, EDECCSSA; EXINFO; 2^31 and 2^46 bytes.
    assert DEFAULT_PART.cpuid(0x12, 0, ONE) == (0b1000_0100_0011, 1, 0, 46 << 8 | 31)
    # DEBUG, MODE64BIT, PROVISIONKEY, EINITTOKENKEY, KSS, AEXNOTIFY; x87, SSE, AVX.
    assert DEFAULT_PART.cpuid(0x12, 1, ONE) == (0x4B6, 0, 0b111, 0)


def test_the_sgx1_part() -> None:
    assert SGX1_PART.cpuid(0x12, 0, ONE) == (1, 1, 0, 46 << 8 | 31)
    assert SGX1_PART.cpuid(0x12, 1, ONE) == (0x36, 0, 0b111, 0)


@pytest.mark.parametrize(
    ("options", "eax", "ebx"),
    [
        ({"sgx2": False}, 0x841, 1),
        ({"oversub": False}, 0x803, 1),
        ({"edeccssa": False}, 0x043, 1),
        ({"exinfo": False}, 0x843, 0),
        ({"absent_leaves_fault": True}, 0x843, 1),
    ],
    ids=str,
)
def test_leaf_12h_follows_the_part(options: dict[str, Any], eax: int, ebx: int) -> None:
    assert Part(**options).cpuid(0x12, 0, ONE)[:2] == (eax, ebx)


@pytest.mark.parametrize(
    ("options", "registers"),
    [
        ({"kss": False}, (0x436, 0, 0b111, 0)),
        ({"aexnotify": False}, (0x0B6, 0, 0b111, 0)),
        ({"xfrm": 0x2E7}, (0x4B6, 0, 0x2E7, 0)),
        ({"xfrm": 0b11}, (0x4B6, 0, 0b11, 0)),
    ],
    ids=str,
)
def test_permitted_attributes_follow_the_part(
    options: dict[str, Any], registers: tuple[int, int, int, int]
) -> None:
    assert Part(**options).cpuid(0x12, 1, ONE) == registers


def test_largest_enclave_sizes() -> None:
    assert Part(max_size_32=30, max_size_64=36).cpuid(0x12, 0, ONE).edx == 36 << 8 | 30


def test_sub_leaves_list_the_sections_and_end_with_type_0() -> None:
    sections = [(base, pages * PAGE) for base, pages in SECTIONS]
    found = [DEFAULT_PART.cpuid(0x12, subleaf, sections) for subleaf in range(2, 7)]
    assert found == [
        (0x7020_0001, 0, 0x05D8_0001, 0),
        (0x0000_0001, 0x10, 0x2001, 0),
        (0x3456_7001, 0x12, 0x0000_1001, 0x2),
        (0, 0, 0, 0),
        (0, 0, 0, 0),
    ]


def test_the_processor_lists_its_own_sections() -> None:
    assert Processor(1024).cpuid(0x12, 2) == (1, 0x100, 1024 * PAGE | 1, 0)
    assert Processor(1024).cpuid(0x12, 3) == (0, 0, 0, 0)
    processor = Processor(sections=SECTIONS[:2])
    assert processor.cpuid(0x12, 2) == (0x7020_0001, 0, 0x05D8_0001, 0)
    assert processor.cpuid(0x12, 3) == (0x0000_0001, 0x10, 0x2001, 0)
    assert processor.cpuid(0x12, 4) == (0, 0, 0, 0)


def test_the_processor_answers_for_its_part() -> None:
    processor = Processor(8, part=SGX1_PART)
    assert processor.cpuid(7) == SGX1_PART.cpuid(7, 0, ())
    assert processor.cpuid(0x12) == (1, 1, 0, 46 << 8 | 31)
    assert processor.cpuid(0x12, 1) == (0x36, 0, 0b111, 0)


@pytest.mark.parametrize("leaf", [0, 1, 6, 0xD, 0x13, 0x14])
def test_other_leaves_are_refused_by_number(leaf: int) -> None:
    with pytest.raises(ValueError, match=rf"^Part\.cpuid: leaf {leaf:#x} says nothing about SGX"):
        Processor(8).cpuid(leaf)


@pytest.mark.parametrize("leaf", [7, 0x12])
def test_sub_leaves_are_not_negative(leaf: int) -> None:
    with pytest.raises(ValueError, match=r"^Part\.cpuid: subleaf -1"):
        Processor(8).cpuid(leaf, -1)


def test_epc_pages_are_numbered_through_all_sections() -> None:
    processor = Processor(sections=((0x8000_0000, 3), (0x8000_3000, 1), (0x9000_0000, 2)))
    epc = processor.epc
    frames = [0x80000, 0x80001, 0x80002, 0x80003, 0x90000, 0x90001]
    assert epc.pages == 6
    assert [epc.pfn(page) for page in range(6)] == frames
    assert [epc.physical(page) for page in range(6)] == [pfn << 12 for pfn in frames]
    assert [epc.index(pfn) for pfn in frames] == list(range(6))
    for outside in (0, 0x7FFFF, 0x80004, 0x8FFFF, 0x90002, 1 << 40):
        assert epc.index(outside) == -1
