"""Mistakes of the caller: every one is refused, naming the argument."""

from typing import Any

import pytest

from softsgx.cpu import Bare, Fault, Part, Processor, Readings
from softsgx.cpu.epc import DEFAULT_EPC_BASE, Epc
from softsgx.spec.faults import GP
from softsgx.spec.registers import RAX

MIB = 1 << 20


# Part


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"xfrm": 0b100}, r"^Part\.xfrm: 0x4 lacks x87 or SSE"),
        ({"xfrm": 0b01}, r"^Part\.xfrm: 0x1 lacks x87 or SSE"),
        ({"xfrm": 0b1011}, r"^Part\.xfrm: no XSAVE layout known for bit 3"),
        ({"xfrm": 1 << 63 | 3}, r"^Part\.xfrm: no XSAVE layout known for bit 63"),
        ({"xfrm": 1 << 64 | 3}, r"^Part\.xfrm: 0x10000000000000003 does not fit 64 bits"),
        ({"xfrm": 0x67}, r"^Part\.xfrm: 0x67 has part of AVX-512 or AMX"),
        ({"xfrm": 0xE3}, r"^Part\.xfrm: 0xe3 has part of AVX-512 or AMX"),
        ({"xfrm": 0x20003}, r"^Part\.xfrm: 0x20003 has part of AVX-512 or AMX"),
        ({"xfrm": 0x40003}, r"^Part\.xfrm: 0x40003 has part of AVX-512 or AMX"),
        ({"xfrm": -1}, r"^Part\.xfrm: -0x1 does not fit 64 bits"),
        ({"cpusvn": bytes(15)}, r"^Part\.cpusvn: 15 bytes given, 16 needed"),
        ({"cpusvn": bytes(17)}, r"^Part\.cpusvn: 17 bytes given, 16 needed"),
        ({"max_size_32": 13}, r"^Part\.max_size_32: 13 is not in 14\.\.32"),
        ({"max_size_32": 33}, r"^Part\.max_size_32: 33 is not in 14\.\.32"),
        ({"max_size_64": 13}, r"^Part\.max_size_64: 13 is not in 14\.\.64"),
        ({"max_size_64": 65}, r"^Part\.max_size_64: 65 is not in 14\.\.64"),
    ],
    ids=str,
)
def test_part_refuses_values_that_no_part_has(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Part(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sgx2": 1}, r"^Part\.sgx2: bool is needed, not 1"),
        ({"absent_leaves_fault": "yes"}, r"^Part\.absent_leaves_fault: bool is needed, not 'yes'"),
        ({"cet": 1}, r"^Part\.cet: bool is needed, not 1"),
        ({"xfrm": "7"}, r"^Part\.xfrm: int is needed, not '7'"),
        ({"max_size_64": 36.0}, r"^Part\.max_size_64: int is needed, not 36\.0"),
        ({"cpusvn": "0123456789abcdef"}, r"^Part\.cpusvn: bytes is needed"),
        ({"sgx3": True}, "'sgx3'"),
    ],
    ids=str,
)
def test_part_refuses_other_types_and_names(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Part(**options)


def test_part_accepts_the_limits() -> None:
    assert Part(max_size_32=32, max_size_64=64).max_size_64 == 64
    assert Part(max_size_32=14, max_size_64=14).max_size_32 == 14


# Readings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tcs_limit": True}, r"^Readings\.tcs_limit: int is needed, not True"),
        ({"tcs_limit": "72"}, r"^Readings\.tcs_limit: int is needed, not '72'"),
        ({"eld_checks_secs": 1}, r"^Readings\.eld_checks_secs: bool is needed, not 1"),
        ({"eld_checks_secs": None}, r"^Readings\.eld_checks_secs: bool is needed, not None"),
        ({"no_such_reading": True}, "'no_such_reading'"),
    ],
    ids=str,
)
def test_readings_refuse_other_types_and_names(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Readings(**options)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("tcs_limit", 4096),
        ("einit_attribute_code", 0xFFFFFFFF),
        ("aex_mxcsr", 0xFFFF),
        ("rdinfo_blocked_bit", 63),
        ("rdinfo_childpresent_bit", 63),
        ("rdinfo_virtchildpresent_bit", 63),
    ],
)
def test_readings_refuse_numbers_out_of_range(name: str, most: int) -> None:
    for value in (-1, most + 1):
        message = rf"^Readings\.{name}: {value} is not in 0\.\.{most}$"
        options: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=message):
            Readings(**options)
    options = {name: most}
    assert getattr(Readings(**options), name) == most


# Processor and EPC


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lps": 0}, "^Processor: lps=0, at least 1 is needed"),
        ({"lps": -1}, "^Processor: lps=-1, at least 1 is needed"),
        ({"epc_pages": 0}, "^Processor: epc_pages=0, at least 1 is needed"),
        ({"epc_pages": -4}, "^Processor: epc_pages=-4, at least 1 is needed"),
    ],
    ids=str,
)
def test_processor_refuses_numbers_below_one(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Processor(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lps": "2"}, "^Processor: lps='2', an integer is needed"),
        ({"lps": 2.0}, "^Processor: lps=2.0, an integer is needed"),
        ({"epc_pages": "64"}, "^Processor: epc_pages='64', an integer is needed"),
        ({"seed": "x"}, "^Processor: seed='x', an integer is needed"),
        ({"part": None}, "^Processor: part=None, a Part is needed"),
        ({"part": "sgx1"}, "^Processor: part='sgx1', a Part is needed"),
        ({"readings": {}}, "^Processor: readings={}, a Readings is needed"),
        ({"cores": 2}, "'cores'"),
    ],
    ids=str,
)
def test_processor_refuses_other_types_and_names(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Processor(**options)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ((), "^EPC: no section given"),
        (((MIB + 8, 1),), "^EPC section at 0x100008: not page aligned"),
        (((MIB, 0),), "^EPC section at 0x100000: 0 pages"),
        (((MIB, -1),), "^EPC section at 0x100000: -1 pages"),
        (((2 * MIB, 1), (MIB, 1)), "^EPC section at 0x100000: .*out of order"),
        (((MIB, 2), (MIB + 4096, 1)), "^EPC section at 0x101000: .*out of order"),
        (((-4096, 1),), "^EPC section at -0x1000: .*out of order"),
        ((((1 << 46) - 4096, 2),), r"^EPC section ends at 0x400000001000, above"),
    ],
    ids=str,
)
def test_sections_must_be_pages_in_ascending_order(
    sections: tuple[tuple[int, int], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Processor(sections=sections)
    with pytest.raises(ValueError, match=message):
        Epc(sections)


@pytest.mark.parametrize("section", [5, (MIB,), (MIB, 1, 2), ("1M", 1), (MIB, "1")], ids=str)
def test_a_section_is_a_base_and_a_number_of_pages(section: Any) -> None:
    with pytest.raises(TypeError, match=r"^EPC section .*: \(physical base, pages\) is needed"):
        Processor(sections=(section,))


def test_ram_ends_where_the_epc_begins() -> None:
    # A section at 2 GiB is where real machines have theirs; RAM must not be handed out over it.
    bare = Bare(processor=Processor(sections=((0x8000_0000, 64),)))
    memory = bare.processor.memory
    assert memory.frames == 0x80000
    left = memory.frames - memory.alloc()
    with pytest.raises(MemoryError, match=r"^physical memory: "):
        memory.alloc(left)
    enclave = bare.enclave()
    enclave.enter()
    assert Processor(8).memory.frames << 12 <= DEFAULT_EPC_BASE


@pytest.mark.parametrize("page", [-1, 8, 1 << 40])
def test_epc_pages_out_of_range_are_refused(page: int) -> None:
    bare = Bare(8)
    message = rf"^EPC page {page}: the processor has pages 0 to 7$"
    for look in (bare.processor.epc.pfn, bare.processor.epc.physical, bare.address, bare.word):
        with pytest.raises(ValueError, match=message):
            look(page)


@pytest.mark.parametrize("page", [-1, 6])
def test_epc_pages_out_of_range_are_refused_with_several_sections(page: int) -> None:
    epc = Epc(((MIB, 4), (2 * MIB, 2)))
    for look in (epc.pfn, epc.physical):
        with pytest.raises(ValueError, match=rf"^EPC page {page}: the processor has pages 0 to 5$"):
            look(page)


# Instructions


@pytest.mark.parametrize("name", ["leaf", "rbx", "rcx", "rdx"])
@pytest.mark.parametrize("instruction", ["encls", "enclu"])
def test_operands_are_64_bit_integers(instruction: str, name: str) -> None:
    lp = Processor(8).lps[0]
    before = lp.processor.fingerprint()
    execute = getattr(lp, instruction)
    for value in (-1, 1 << 64):
        with pytest.raises(ValueError, match=rf"^{name}: {value:#x} is not a 64-bit register"):
            execute(**{"leaf": 0, name: value})
    for other in ("1", None, 1.5, b"\1"):
        with pytest.raises(TypeError, match=rf"^{name}: .* is not an integer"):
            execute(**{"leaf": 0, name: other})
    assert lp.processor.fingerprint() == before


@pytest.mark.parametrize("leaf", [0x14, 0x17, 0x19, 0x7F, 0xFFFF_FFFF])
def test_unknown_encls_leaves_are_gp(leaf: int) -> None:
    with pytest.raises(Fault, match=r"ENCLS\.04") as caught:
        Processor(8).lps[0].encls(leaf)
    assert (caught.value.vector, caught.value.code) == (GP, 0)


@pytest.mark.parametrize("leaf", [0x0A, 0x0F, 0x10, 0xFFFF_FFFF])
def test_unknown_enclu_leaves_are_gp(leaf: int) -> None:
    with pytest.raises(Fault, match=r"ENCLU\.05") as caught:
        Processor(8).lps[0].enclu(leaf)
    assert (caught.value.vector, caught.value.code) == (GP, 0)


def test_the_high_half_of_rax_does_not_select() -> None:
    # RAX[63:32] is ignored: this is EREMOVE of a free page.
    bare = Bare(8)
    assert bare.lp.encls(0xDEAD_BEEF_0000_0003, 0, bare.address(5)) == 0
    assert bare.lp.regs[RAX] == 0


@pytest.mark.parametrize("address", [-1, -4096, 1 << 64])
def test_addresses_are_64_bit(address: int) -> None:
    bare = Bare(16)
    message = rf"^address {address:#x} is not a 64-bit linear address"
    for access in (bare.lp.load, bare.lp.fetch, bare.lp.system_read):
        with pytest.raises(ValueError, match=message):
            access(address, 1)
    with pytest.raises(ValueError, match=message):
        bare.lp.store(address, b"\1")


# The helper


def test_bare_refuses_options_of_a_processor_that_it_does_not_make() -> None:
    with pytest.raises(TypeError, match=r"^Bare: seed is for a new processor"):
        Bare(processor=Processor(8), seed=1)


def test_bare_refuses_contents_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^content: 4097 bytes do not fit a page"):
        Bare(8).source(bytes(4097))


def test_bare_says_when_the_epc_is_full() -> None:
    bare = Bare(3)
    for _ in range(3):
        bare.epa()
    with pytest.raises(MemoryError, match=r"^EPC: all 3 pages are in use"):
        bare.epa()
