"""CPUID of supervised programs, leaf by leaf, for made-up processors and for the real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from softsgx.cpu.part import DEFAULT_PART, XSAVE_COMPONENTS, Part
from softsgx.runner.cpuid.cpuid import (
    CpuidPolicy,
    Engine,
    Native,
    default_xfrm,
    native_cpuid,
    native_xfrm,
    part_for,
)
from softsgx.spec.cpuid import Registers

ALL = 0xFFFF_FFFF
FULL = Registers(ALL, ALL, ALL, ALL)
ZERO = (0, 0, 0, 0)
SECTIONS = ((1 << 32, 256 << 20),)
AMD = b"AuthenticAMD"
INTEL = b"GenuineIntel"


def vendor_registers(vendor: bytes, eax: int) -> Registers:
    ebx, edx, ecx = (int.from_bytes(vendor[i : i + 4], "little") for i in (0, 4, 8))
    return Registers(eax, ebx, ecx, edx)


def processor(
    leaves: Mapping[tuple[int, int], tuple[int, int, int, int]] | None = None,
    basic: int = 0x20,
    vendor: bytes = AMD,
) -> Native:
    """A processor with these answers; a leaf above the highest answers FULL, as garbage may."""
    table = {(0, 0): vendor_registers(vendor, basic)} | dict(leaves or {})

    def native(leaf: int, subleaf: int) -> Registers:
        return Registers(*table.get((leaf, subleaf), FULL))

    return native


def policy(
    engine: Engine = "unicorn", native: Native | None = None, **options: bytes
) -> CpuidPolicy:
    native = native or processor()
    part = DEFAULT_PART if engine == "native" else part_for("unicorn")
    return CpuidPolicy(part, SECTIONS, engine, native=native, **options)


ENGINES: list[Engine] = ["unicorn", "native"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("basic", "reported"), [(0xD, 0x12), (0x12, 0x12), (0x20, 0x20)])
def test_leaf_0_reaches_12h(engine: Engine, basic: int, reported: int) -> None:
    seen = policy(engine, processor(basic=basic)).cpuid(0, 0)
    assert seen == vendor_registers(AMD, reported)


@pytest.mark.parametrize("engine", ENGINES)
def test_vendor_by_option(engine: Engine) -> None:
    chosen = policy(engine, vendor=INTEL)
    assert chosen.cpuid(0, 0) == vendor_registers(INTEL, 0x20)
    assert chosen.apply(0x8000_0000, 0, vendor_registers(AMD, 0x8000_0021)) == (
        0x8000_0021,
        0,
        0,
        0,
    )
    repeated = policy(engine, vendor=b"HygonGenuine").apply(0x8000_0000, 0, (0x8000_0021, 0, 0, 0))
    assert repeated == vendor_registers(b"HygonGenuine", 0x8000_0021)
    kept = policy(engine).apply(0x8000_0000, 0, vendor_registers(AMD, 0x8000_0021))
    assert kept == vendor_registers(AMD, 0x8000_0021)


def test_vendor_has_12_bytes() -> None:
    with pytest.raises(ValueError, match=r"vendor b'Intel' has 5 bytes"):
        policy(vendor=b"Intel")


def test_leaf_1_hides_avx_fma_and_f16c() -> None:
    seen = policy().apply(1, 0, FULL)
    assert [bit for bit in range(32) if not seen.ecx >> bit & 1] == [3, 12, 16, 28, 29]
    assert seen._replace(ecx=ALL) == FULL


@pytest.mark.parametrize("native", [ZERO, FULL])
def test_leaf_7_has_the_bits_of_sgx_whatever_the_processor_says(
    native: tuple[int, int, int, int],
) -> None:
    for engine in ENGINES:
        seen = policy(engine).apply(7, 0, native)
        assert seen.ebx >> 2 & 1, "SGX"
        assert seen.ecx >> 30 & 1, "SGX_LC"
        assert not seen.edx >> 1 & 1, "SGX_KEYS"
    unlocked = Part(xfrm=3, launch_control=False)
    seen = CpuidPolicy(unlocked, SECTIONS, "unicorn", native=processor()).apply(7, 0, native)
    assert not seen.ecx >> 30 & 1


def test_leaf_7_without_what_the_emulator_lacks() -> None:
    seen = policy().apply(7, 0, FULL)
    hidden = [bit for bit in range(32) if not seen.ebx >> bit & 1]
    assert hidden == [4, 5, 11, 14, 16, 17, 19, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31]
    hidden = [bit for bit in range(32) if not seen.ecx >> bit & 1]
    expected = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 22, 23, 26, 27, 28, 29]
    assert hidden == expected
    for bit in (2, 3, 5, 8, 14, 16, 20, 22, 23, 24, 25):
        assert not seen.edx >> bit & 1, bit
    assert policy().apply(7, 1, FULL).edx == 1 << 14 | 1 << 18
    assert policy().apply(7, 2, FULL) == FULL


def test_leaf_0dh_is_that_of_x87_and_sse() -> None:
    chosen = policy()
    assert chosen.apply(0xD, 0, (0x207, 0x988, 0x988, 0)) == (3, 576, 576, 0)
    assert chosen.apply(0xD, 1, (0xF, 0x368, 0x1800, 0)) == (1, 0, 0, 0)
    for subleaf in (2, 5, 9, 11, 18, 0x3E, 0x3F, 0x1000):
        assert chosen.apply(0xD, subleaf, (0x100, 0x240, 0, 0)) == ZERO


@pytest.mark.parametrize("leaf", [0x1D, 0x1E, 0x24])
def test_leaves_of_hidden_features_are_empty(leaf: int) -> None:
    chosen = CpuidPolicy(part_for("unicorn"), SECTIONS, "unicorn", native=processor(basic=0x30))
    assert chosen.apply(leaf, 0, FULL) == ZERO


def test_extended_leaves_lose_what_the_emulator_lacks() -> None:
    seen = policy().apply(0x8000_0001, 0, FULL)
    assert [bit for bit in range(32) if not seen.ecx >> bit & 1] == [11, 15, 16, 21, 29]
    assert [bit for bit in range(32) if not seen.edx >> bit & 1] == [30, 31]
    assert policy().apply(0x8000_0008, 0, FULL) == FULL._replace(ebx=ALL & ~0x111)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "leaf", [2, 4, 6, 0xB, 0x14, 0x15, 0x16, 0x1F, 0x4000_0000, 0x8000_0002, 0x8000_001D]
)
def test_other_leaves_are_the_real_ones(engine: Engine, leaf: int) -> None:
    assert policy(engine).cpuid(leaf, 0) == FULL
    assert policy(engine).cpuid(leaf, 3) == FULL


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("leaf", [0xE, 0xF, 0x11, 0x13, 0x14, 0x15, 0x3FFF_FFFF])
def test_leaves_above_the_real_highest_are_empty(engine: Engine, leaf: int) -> None:
    """A real processor answers there with another leaf's data: garbage once 12H is announced."""
    assert policy(engine, processor(basic=0xD)).cpuid(leaf, 0) == ZERO


@pytest.mark.parametrize("engine", ENGINES)
def test_leaf_7_of_a_processor_without_one(engine: Engine) -> None:
    assert policy(engine, processor(basic=4)).cpuid(7, 0) == (0, 1 << 2, 1 << 30, 0)


def test_leaf_12h_is_the_models() -> None:
    chosen = policy()
    assert chosen.cpuid(0x12, 0) == (0x843, 1, 0, 46 << 8 | 31)
    assert chosen.cpuid(0x12, 1) == (0x4B6, 0, 3, 0)
    assert chosen.cpuid(0x12, 2) == (1, 1, 256 << 20 | 1, 0)
    assert chosen.cpuid(0x12, 3) == ZERO
    assert chosen.cpuid(0x12, ALL) == ZERO


def test_leaf_12h_executes_no_cpuid() -> None:
    """Loaders probe it thousands of times, and CPUID costs 30 us in a virtual machine."""
    asked = []

    def native(leaf: int, subleaf: int) -> Registers:
        asked.append((leaf, subleaf))
        return Registers(0x12, 0, 0, 0)

    chosen = policy(native=native)
    before = len(asked)
    for subleaf in range(4):
        assert chosen.cpuid(0x12, subleaf)
    assert len(asked) == before
    chosen.cpuid(2, 0)
    chosen.cpuid(2, 0)
    assert asked[before:] == [(2, 0)]
    chosen.cpuid(1, 0)
    chosen.cpuid(1, 0)  # the APIC id in it belongs to the processor of the moment
    assert asked[before:] == [(2, 0), (1, 0), (1, 0)]


def test_answers_that_are_kept_are_limited() -> None:
    chosen = policy()
    for subleaf in range(3000):
        assert chosen.cpuid(2, subleaf) == FULL
    assert len(chosen._answers) <= 1024


def test_upper_halves_of_the_registers_do_not_matter() -> None:
    chosen = policy()
    assert chosen.cpuid(1 << 32 | 0x12, 1 << 40) == chosen.cpuid(0x12, 0)
    assert chosen.apply(1 << 63, 1 << 32, FULL) == chosen.apply(0, 0, FULL)


def test_sgx1_part() -> None:
    chosen = CpuidPolicy(part_for("unicorn", sgx1=True), SECTIONS, "unicorn", native=processor())
    assert chosen.cpuid(0x12, 0)[:2] == (1, 1)
    assert chosen.cpuid(0x12, 1) == (0x36, 0, 3, 0)


def test_parts_fault_at_leaves_that_are_not_modelled() -> None:
    """An unmodified program must see what a processor without them does."""
    assert part_for("unicorn").absent_leaves_fault
    assert part_for("native", native=processor()).absent_leaves_fault


def test_reference_engine_saves_x87_and_sse_only() -> None:
    assert part_for("unicorn").xfrm == 3
    with pytest.raises(ValueError, match="XFRM 0x7: the emulator saves 0x3 only"):
        CpuidPolicy(Part(xfrm=7), SECTIONS, "unicorn", native=processor())


def xsave(enabled: int, size: int = 0, **changed: tuple[int, int]) -> Native:
    """A processor with these XSAVE components, where the model has them or elsewhere.

    `size` is that of the area for all of them.
    """
    places = dict(XSAVE_COMPONENTS) | {int(name[1:]): place for name, place in changed.items()}
    leaves = {(0xD, bit): (*place, 0, 0) for bit, place in places.items()}
    return processor({(0xD, 0): (enabled, size, size, 0)} | leaves)


@pytest.mark.parametrize(
    ("native", "xfrm"),
    [
        (xsave(0x3), 0x3),
        (xsave(0x7), 0x7),
        (xsave(0x207), 0x207),
        (xsave(0x2E7), 0x2E7),
        (xsave(0x602E7), 0x2E7),  # AMX is only in the model
        (xsave(0x207, _9=(8, 2432)), 0x7),  # PKRU where AMD has it
        (xsave(0x2E7, _6=(512, 1024)), 0x207),  # all of AVX-512 or nothing
        (xsave(0xE3), 0x3),  # AVX-512 without AVX is no valid XCR0
        (xsave(0x2E7, _2=(256, 640)), 0x203),
        (processor(basic=7), 0x3),
    ],
)
def test_native_xfrm_is_what_processor_and_model_know(native: Native, xfrm: int) -> None:
    assert native_xfrm(native) == xfrm
    part = part_for("native", native=native)
    assert part.xfrm == xfrm
    chosen = CpuidPolicy(part, SECTIONS, "native", native=native)
    assert chosen.cpuid(0x12, 1)[2:] == (xfrm, 0)


@pytest.mark.parametrize(
    ("native", "xfrm"),
    [
        (xsave(0x3, 576), 0x3),
        (xsave(0x7, 832), 0x7),
        (xsave(0xE7, 2688), 0xE7),
        (xsave(0x2E7, 2696), 0x2E7),
        (xsave(0x600E7, 11008), 0x3),
        (xsave(0x602E7, 11008), 0x3),
        (xsave(0x207, 2440, _9=(8, 2432)), 0x3),
        (processor(basic=7), 0x3),
    ],
)
def test_xsave_of_all_components_fits_an_area_of_xfrm(native: Native, xfrm: int) -> None:
    """The story: natively, the Intel SDK's first OCALL on a processor with AMX broke its own stack.

    XFRM was 0xe7, so the area for XSAVE had 2,688 bytes; XSAVE of all components wrote 11,008.
    """
    assert default_xfrm(native) == xfrm
    assert part_for("native", native=native).xfrm == xfrm


@pytest.mark.parametrize(
    ("xfrm", "leaf", "register", "hidden"),
    [
        (0x3, (1, 0), "ecx", 1 << 12 | 1 << 28 | 1 << 29),
        (0x7, (1, 0), "ecx", 0),
        (0x3, (7, 0), "ecx", 0x5E5A),
        (0x7, (7, 1), "edx", 1 << 8 | 1 << 19),
        (0x2E7, (7, 1), "edx", 1 << 8),
        (0x600E7, (7, 1), "edx", 0),
        (0x2E7, (7, 0), "ebx", 1 << 14),
        (0x3, (0x8000_0001, 0), "ecx", 1 << 11 | 1 << 16),
    ],
)
def test_native_engine_announces_what_xfrm_permits(
    xfrm: int, leaf: tuple[int, int], register: str, hidden: int
) -> None:
    """The story: Gramine asked for AMX in XFRM, because CPUID announced it, and ECREATE refused."""
    part = replace(DEFAULT_PART, xfrm=xfrm)
    seen = CpuidPolicy(part, SECTIONS, "native", native=processor()).apply(*leaf, FULL)
    assert getattr(seen, register) == ALL & ~hidden


def test_native_engine_keeps_every_other_feature() -> None:
    part = replace(DEFAULT_PART, xfrm=0x602E7)
    chosen = CpuidPolicy(part, SECTIONS, "native", native=processor())
    for leaf, subleaf in (
        (1, 0),
        (7, 1),
        (0xD, 0),
        (0xD, 1),
        (0xD, 2),
        (0x1D, 0),
        (0x8000_0001, 0),
    ):
        assert chosen.apply(leaf, subleaf, FULL) == FULL
    mpx = 1 << 14  # which XFRM can never have
    assert chosen.apply(7, 0, FULL) == FULL._replace(ebx=ALL & ~mpx, edx=ALL & ~2)


def test_native_cpuid_is_that_of_this_processor() -> None:
    """The kernel got vendor and highest leaf from the same instruction."""
    text = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split("\t: ", 1) for line in text.splitlines() if "\t: " in line)
    seen = native_cpuid(0, 0)
    assert seen.eax == int(fields["cpuid level"])
    assert seen == vendor_registers(fields["vendor_id"].encode(), seen.eax)
    assert native_cpuid(7, 0) != native_cpuid(7, 1)
    brand = b"".join(
        value.to_bytes(4, "little")
        for leaf in range(3)
        for value in native_cpuid(0x80000002 + leaf, 0)
    )
    assert brand.rstrip(b"\0 ").strip() == fields["model name"].encode().strip()


def test_code_page_is_never_writable_and_executable() -> None:
    script = (
        "from softsgx.runner.cpuid.cpuid import native_cpuid; native_cpuid(0, 0)\n"
        "print(any('rwx' in line for line in open('/proc/self/maps')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
