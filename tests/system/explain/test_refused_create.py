"""CREATE with a SECS that ECREATE refuses: field, value, what is permitted; and the advice works.

None of these used to be explained: the driver cleans up by EREMOVE, and the last leaf of a call was
taken for the reason. XFRM with AVX is the first thing that someone porting an enclave meets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import Any

import pytest

from softsgx.cpu import Part
from softsgx.cpu.part import DEFAULT_PART
from softsgx.linux.errno import EINVAL, EIO
from softsgx.spec.attributes import (
    ATTR_CET,
    ATTR_INIT,
    ATTR_KSS,
    ATTR_MODE64BIT,
    XFRM_AVX,
    XFRM_LEGACY,
    XFRM_PKRU,
    legal_xcr0,
)
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.rules import RULES
from softsgx.spec.secs import SECS
from softsgx.system import Machine
from softsgx.system.explain.calls.create import SECS_RULES, corrected, first_refusal
from tests.linux.building import Building

WIDE = ATTR_MODE64BIT
CET = Part(cet=True)
NO_KSS = Part(kss=False)


@dataclass(frozen=True)
class Row:
    """The rule that refuses first; fields of the SECS; lines of the explanation; the advice."""

    rule: str
    fields: dict[str, Any]
    lines: tuple[str, ...]
    way: str
    part: Part = DEFAULT_PART
    errno: int = EIO


ROWS = [
    Row("ECREATE.11", {"XFRM": 1}, ("XFRM  0x1 X87  permitted: X87 and SSE",), "XFRM 0x3 X87 SSE"),
    Row(
        "ECREATE.12",
        {"XFRM": 0xE7},
        (
            "XFRM  0xe7 X87 SSE AVX OPMASK ZMM_HI256 HI16_ZMM  permitted: 0x7 X87 SSE AVX"
            " (CPUID.12H.1:ECX, EDX)",
        ),
        "XFRM 0x7 X87 SSE AVX; or XFRM as it is, with Part(xfrm=0xe7)",
    ),
    Row(
        "ECREATE.12",
        {"XFRM": 0x23},
        ("XFRM  0x23 X87 SSE OPMASK", "AVX-512 needs AVX and all its own bits"),
        "XFRM 0x3 X87 SSE",
        Part(xfrm=0xE7),
    ),
    Row(
        "ECREATE.12",
        {"XFRM": 0x60003, "SSAFRAMESIZE": 1},
        ("XFRM  0x60003 X87 SSE XTILECFG XTILEDATA  permitted: 0x7",),
        "XFRM 0x3 X87 SSE; or XFRM as it is and SSAFRAMESIZE 0x3, with Part(xfrm=0x60003)",
    ),
    Row("ECREATE.12", {"XFRM": 1 << 62 | 3}, ("XFRM  0x4000000000000003",), "XFRM 0x3 X87 SSE"),
    Row(
        "ECREATE.13",
        {"MISCSELECT": 3},
        ("MISCSELECT  0x3 EXINFO CPINFO  permitted: 0x1 EXINFO (CPUID.12H.0:EBX)",),
        "MISCSELECT 0x1 EXINFO",
    ),
    Row(
        "ECREATE.14",
        {"SSAFRAMESIZE": 0, "MISCSELECT": 1},
        (
            "SSAFRAMESIZE  0x0  permitted: 0x1 pages or more:"
            " 576 bytes XSAVE area + 184 GPRSGX + 16 MISC",
        ),
        "SSAFRAMESIZE 0x1",
    ),
    Row(
        "ECREATE.15",
        {"BASEADDR": 0x8000_0000_0000_0000},
        ("BASEADDR  0x8000000000000000  permitted: a canonical address",),
        "BASEADDR 0x0",
    ),
    Row(
        "ECREATE.16",
        {"ATTRIBUTES": 0},
        ("ATTRIBUTES  0x0  permitted: MODE64BIT is set where BASEADDR is above 4 GiB",),
        "ATTRIBUTES 0x4 MODE64BIT",
    ),
    Row(
        "ECREATE.17",
        {"SIZE_": 1 << 46, "BASEADDR": 0},
        ("SIZE  0x400000000000  permitted: below 0x400000000000 (CPUID.12H.0:EDX)",),
        "SIZE 0x200000000000",
    ),
    Row("ECREATE.18", {"SIZE_": PAGE_SIZE}, ("SIZE  0x1000  permitted: two",), "SIZE 0x2000"),
    Row(
        "ECREATE.20",
        {"SIZE_": 1 << 40, "BASEADDR": 0x7000_0000_1000},
        ("BASEADDR  0x700000001000  permitted: a multiple of SIZE 0x10000000000",),
        "BASEADDR 0x700000000000",
    ),
    Row(
        "ECREATE.21",
        {"ATTRIBUTES": WIDE | ATTR_INIT | ATTR_CET},
        ("ATTRIBUTES  0x45 INIT MODE64BIT CET  permitted: 0x4b6", "only EINIT sets INIT"),
        "ATTRIBUTES 0x4 MODE64BIT",
    ),
    Row(
        "ECREATE.22",
        {"EPOCH": 0x100},
        ("reserved  byte 673 must be 0, it is 0x1",),
        "reserved bytes 0",
    ),
    Row(
        "ECREATE.23",
        {"CONFIGSVN": 1},
        ("ATTRIBUTES  0x4 MODE64BIT  permitted: KSS is set where CONFIGID",),
        "ATTRIBUTES 0x84 MODE64BIT KSS",
    ),
    Row("ECREATE.23", {"CONFIGSVN": 1}, ("CONFIGSVN  0x1  permitted: 0",), "CONFIGSVN 0x0", NO_KSS),
    Row("CET.01", {"CET_ATTRIBUTES": 1}, ("CET is set",), "ATTRIBUTES 0x44 MODE64BIT CET", CET),
    Row(
        "CET.02",
        {"CET_LEG_BITMAP_OFFSET": 0x1000},
        ("ATTRIBUTES  0x4 MODE64BIT  permitted: CET is set",),
        "ATTRIBUTES 0x44 MODE64BIT CET",
        CET,
    ),
    Row(
        "CET.03",
        {"ATTRIBUTES": WIDE | ATTR_CET, "CET_LEG_BITMAP_OFFSET": 1 << 47},
        ("CET_LEG_BITMAP_OFFSET  0x800000000000  permitted: BASEADDR plus the offset",),
        "CET_LEG_BITMAP_OFFSET 0x0",
        CET,
    ),
    Row(
        "CET.04",
        {"ATTRIBUTES": ATTR_CET, "CET_LEG_BITMAP_OFFSET": 1 << 32, "BASEADDR": 0x1_0000_0000},
        ("ATTRIBUTES  0x40 CET  permitted: MODE64BIT is set where BASEADDR is above 4 GiB",),
        "ATTRIBUTES 0x44 MODE64BIT CET",
        CET,
    ),
    Row(
        "CET.05",
        {"ATTRIBUTES": WIDE | ATTR_CET, "CET_ATTRIBUTES": 0xC1},
        ("CET_ATTRIBUTES  0xc1 SH_STK_EN bit6 bit7  permitted: 0x",),
        "CET_ATTRIBUTES 0x1 SH_STK_EN",
        CET,
    ),
    Row(
        "CET.06",
        {"ATTRIBUTES": WIDE | ATTR_CET, "CET_LEG_BITMAP_OFFSET": 0x1008},
        ("CET_LEG_BITMAP_OFFSET  0x1008  permitted: a multiple of 4096",),
        "CET_LEG_BITMAP_OFFSET 0x1000",
        CET,
    ),
    Row(
        "ECREATE.11",
        {"XFRM": 0, "MISCSELECT": 6, "ATTRIBUTES": WIDE | ATTR_INIT, "CONFIGID": b"\1" * 64},
        (
            "XFRM        0x0",
            "MISCSELECT  0x6",
            "ATTRIBUTES  0x5 INIT MODE64BIT",
            "KSS is set where",
        ),
        "XFRM 0x3 X87 SSE, MISCSELECT 0x0, ATTRIBUTES 0x84 MODE64BIT KSS",
    ),
]


def described(row: Row) -> str:
    return f"{row.rule} {' '.join(row.fields)}"


def building(part: Part) -> Building:
    b = Building(Machine(cpus=2, epc="1M", part=part, explain=True))
    b.image = replace(b.image, attributes=WIDE)
    return b


def fields_of(way: str) -> dict[str, Any]:
    """The fields of a SECS that advice names."""
    found: dict[str, Any] = {}
    for name, value in re.findall(r"([A-Z_]+[A-Z]) (0x[0-9a-f]+|0)\b", way):
        found["SIZE_" if name == "SIZE" else name] = int(value, 0)
    return found


@pytest.mark.parametrize("row", ROWS, ids=described)
def test_each_refused_field_is_named_and_the_advice_works(row: Row) -> None:
    b = building(row.part)
    assert b.create(**row.fields) == -row.errno
    text = b.machine.explain()
    assert f"-EIO; ECREATE: #GP ({row.rule})" in text.splitlines()[0]
    assert re.search(rf"\n  rule +{re.escape(RULES[row.rule])} \(sgx_encl_create\)\n", text), text
    for line in row.lines:
        assert line in text, text
    assert text.endswith(f"\n  for the ioctl to succeed: {row.way}\n"), text
    followed = row.fields | fields_of(row.way.split(";")[0])
    if "reserved bytes 0" in row.way:
        followed.pop("EPOCH")
    assert b.create(**followed) == 0


@pytest.mark.parametrize("row", [r for r in ROWS if "as it is" in r.way], ids=described)
def test_the_processor_that_is_named_takes_xfrm_as_it_is(row: Row) -> None:
    more = row.way.split("; or XFRM as it is")[1]
    found = re.search(r"Part\(xfrm=(0x[0-9a-f]+)\)", more)
    assert found is not None
    b = building(Part(xfrm=int(found[1], 16)))
    assert b.create(**row.fields | fields_of(more)) == 0


def test_every_rule_about_the_secs_has_a_row() -> None:
    """For ECREATE.19 the driver refuses earlier, with -EINVAL."""
    assert {row.rule for row in ROWS} | {"ECREATE.19"} == SECS_RULES


@pytest.mark.parametrize("rule", ["ECREATE.17", "ECREATE.19", "ECREATE.20"])
def test_sizes_that_the_driver_or_ecreate_refuses_are_corrected(rule: str) -> None:
    size = {"ECREATE.17": 1 << 60, "ECREATE.19": 0x5000, "ECREATE.20": 1 << 30}[rule]
    secs = SECS(SIZE_=size, BASEADDR=0x7000, SSAFRAMESIZE=1, ATTRIBUTES=WIDE, XFRM=3)
    if rule == "ECREATE.19":
        secs = secs.replace(BASEADDR=0)
    assert first_refusal(Part(), secs.pack()) == rule
    raw, fixes = corrected(Part(), secs.pack())
    assert not first_refusal(Part(), raw)
    assert len(fixes) <= 2


@pytest.mark.parametrize(
    ("size", "way"),
    [
        (0, "SIZE 0x2000, and BASEADDR a multiple of it"),
        (0x30000, "SIZE 0x40000, and BASEADDR a multiple of it"),
        (3 << 60, "SIZE 0x200000000000, and BASEADDR a multiple of it"),
    ],
)
def test_a_size_that_the_driver_refuses(size: int, way: str) -> None:
    b = building(Part())
    assert b.create(SIZE_=size) == -EINVAL
    text = b.machine.explain()
    assert "refused by the driver: -EINVAL" in text
    assert f"asked  size={size:#x}" in text
    assert "SECS.SIZE is a power of two (sgx_encl_create)" in text
    assert text.endswith(f"for the ioctl to succeed: {way}\n")
    fields = fields_of(way)
    assert b.create(BASEADDR=0, **fields) == 0


def test_the_backing_file_that_is_too_large_has_its_size() -> None:
    """Room for the enclave, its SECS, and 1/32 of that for the PCMDs (sgx_encl_create)."""
    b = building(Part())
    assert b.create(SIZE_=1 << 63) == -EINVAL
    pages = (1 << 63) + PAGE_SIZE
    assert f"size={pages + pages // 32:#x}" in b.machine.explain()


def test_a_second_refusal_is_not_that_of_the_first() -> None:
    """The leaf is that of this call, not of the one before."""
    b = building(Part())
    assert b.create(XFRM=1) == -EIO
    assert b.create(SIZE_=3) == -EINVAL
    assert "ECREATE" not in b.machine.explain()


def test_any_secs_is_corrected() -> None:
    """4000 of them, with values at the limits; no correction has to be repeated."""
    random = Random(12)
    words = [0, 1, 2, 3, 4, 7, 0x1000, 0x2000, 0x3000, 0x8000, 1 << 31, 1 << 32, 1 << 45, 1 << 46]
    words += [1 << 47, 1 << 62, 1 << 63, 0x60003, 0xE7, 0xFFFF_8000_0000_0000, (1 << 64) - 1]
    for number in range(4000):
        secs = SECS()
        for field in SECS.FIELDS:
            if field.name in _TRIED and random.random() < 0.7:
                value = (random.choice(words) | random.choice(words)) & (1 << 8 * field.width) - 1
                setattr(secs, field.name, value)
        part = PARTS[number % len(PARTS)]
        raw, fixes = corrected(part, secs.pack())
        assert not first_refusal(part, raw), fixes


def test_no_feature_is_given_up_that_could_stay() -> None:
    """AVX-512 was dropped whatever was refused: the rest of a legal XFRM stays as it is."""
    bits = [XFRM_AVX, *(1 << n for n in (5, 6, 7)), XFRM_PKRU, *(1 << n for n in (17, 18))]
    sums = [sum(chosen) for n in range(len(bits) + 1) for chosen in combinations(bits, n)]
    for part in (DEFAULT_PART, Part(xfrm=0x2E7), Part(xfrm=0x602E7)):
        for more in sums:
            asked = XFRM_LEGACY | more
            secs = SECS(SIZE_=0x2000, SSAFRAMESIZE=8, ATTRIBUTES=WIDE, XFRM=asked)
            raw, _ = corrected(part, secs.pack())
            possible = [asked & part.xfrm & (XFRM_LEGACY | kept) for kept in sums]
            most = max(filter(legal_xcr0, possible), key=int.bit_count)
            assert most == SECS.unpack(raw).XFRM, f"{asked:#x} of {part.xfrm:#x}"


PARTS = (DEFAULT_PART, CET, NO_KSS, Part(xfrm=0x602E7), Part(cet=True, cpinfo=True))
_TRIED = frozenset(
    "SIZE_ BASEADDR SSAFRAMESIZE MISCSELECT CET_LEG_BITMAP_OFFSET CET_ATTRIBUTES ATTRIBUTES XFRM"
    " CONFIGSVN EPOCH".split()
)


def test_kss_is_advised_only_on_a_part_that_has_it() -> None:
    b = building(Part())
    assert b.create(CONFIGSVN=1, ATTRIBUTES=WIDE | ATTR_KSS) == 0
