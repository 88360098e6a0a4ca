"""EADD: every check in its order, and what success does. SDM 3D, EADD."""

from typing import Any

import pytest

from softsgx.cpu import Bare, Part, Readings
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_VA,
    REG,
    RWX,
    SECS,
    SS_FIRST,
    SS_REST,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
    X,
)
from softsgx.spec.leaves import EADD, EPA
from softsgx.spec.registers import RAX, RFLAGS
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.cpu.cases import ENCLS_PFEC, RAM, Case, assert_first_wins, case, case_id, epc, rows
from tests.cpu.table import Attempt, Row, execute, gp, hold, pf, row_id, run_row

SIZE = 1 << 20
BASE_64, BASE_32 = 0x7F00_0000_0000, 0x1000_0000
SECS_AT, TCS_AT, FREE, TAKEN = 0, 1, 10, 11  # EPC pages of the attempt
OFFSET = 0x8000  # where the page goes; nothing lies there
TCS_FIELDS = {"OSSA": 0x2000, "NSSA": 2, "FSLIMIT": 0xFFF, "GSLIMIT": 0x1FFF}
AS_WITHOUT_CET = Part(absent_leaves_fault=True)


def attempt(
    *,
    rbx_off: int = 0,
    rcx_off: int = 0,
    rcx: int = 0,
    srcpge_off: int = 0,
    secs_off: int = 0,
    secs: int = 0,
    secinfo_off: int = 0,
    offset: int = OFFSET,
    linaddr_off: int = 0,
    flags: int = REG | R | W,
    tail: int = 0,
    content: bytes = b"",
    tcs: dict[str, int] | None = None,
    poke: dict[int, int] | None = None,
    busy: dict[str, int] | None = None,
    valid: bool = False,
    wide: bool = True,
    init: bool = False,
    part: Part | None = None,
    readings: Readings | None = None,
) -> Attempt:
    """EADD of EPC page FREE, or TAKEN if `valid`, at BASEADDR + `offset`.

    `busy` maps lock kind (see `hold`) to page; `tcs` and `poke` make a TCS as the source page.
    """
    options: dict[str, Any] = {"part": part} if part else {}
    if readings:
        options["readings"] = readings
    bare = Bare(16, **options)
    base = BASE_64 if wide else BASE_32
    enclave = bare.enclave(
        base=base, attributes=0b110 if wide else 0b010, init=init, tcs=dict(TCS_FIELDS)
    )
    assert (enclave.secs, enclave.pages[enclave.tcs[0]]) == (SECS_AT, TCS_AT)
    bare.lp.encls(EPA, PT_VA, epc(TAKEN))
    source = bytearray(TCS_PAGE(**TCS_FIELDS | tcs).pack() if tcs is not None else content)
    for at, value in (poke or {}).items():
        source[at] = value
    secinfo = bare.secinfo(flags)
    bare.lp.system_write(secinfo + 63, bytes([tail]))
    rbx = bare.pageinfo(
        linaddr=base + offset + linaddr_off,
        srcpge=bare.source(bytes(source)) + srcpge_off,
        secinfo=secinfo + secinfo_off,
        secs=(secs or epc(SECS_AT)) + secs_off,
    )
    page = TAKEN if valid else FREE
    for name, held in (busy or {}).items():
        kinds = {"target": 0, "SECS": 0, "B": 2}
        hold(bare, page if name == "target" else held, kinds[name])
    return Attempt(bare.lp, "encls", EADD, rbx + rbx_off, (rcx or epc(page)) + rcx_off)


RESERVED_STATE = Readings(secinfo_state_bits_reserved=True)
RESERVED_FLAGS = Readings(tcs_flags_reserved_at_eadd=True)

CASES = [
    case("EADD.01", gp(), "8", rbx_off=8),
    case("EADD.01", gp(), "16", rbx_off=16),
    case("EADD.02", gp(), rcx_off=0x800),
    case("EADD.03", pf("rcx", ENCLS_PFEC), rcx=RAM),
    case("EADD.04", gp(), srcpge_off=0x800),
    case("EADD.05", gp(), secs_off=0x800),
    case("EADD.06", gp(), secinfo_off=32),
    case("EADD.07", gp(), linaddr_off=0x800),
    case("EADD.08", pf(RAM, ENCLS_PFEC), secs=RAM),
    *(
        case("EADD.09", gp(), f"bit {bit}", flags=REG | R | 1 << bit)
        for bit in (6, 7, 16, 31, 32, 63)
    ),
    case("EADD.09", gp(), "byte 63", tail=1),
    *(
        case("EADD.09", gp(), f"{name} reserved", flags=REG | R | bit, readings=RESERVED_STATE)
        for bit, name in ((PENDING, "PENDING"), (MODIFIED, "MODIFIED"), (PR, "PR"))
    ),
    case("EADD.10", gp(), "SECS", flags=SECS),
    case("EADD.10", gp(), "VA", flags=VA),
    case("EADD.10", gp(), "TRIM", flags=TRIM),
    case("EADD.10", gp(), "7", flags=7 << 8),
    case("EADD.10", gp(), "SS_FIRST", flags=SS_FIRST | R | W, part=AS_WITHOUT_CET),
    case("EADD.10", gp(), "SS_REST", flags=SS_REST | R | W, part=AS_WITHOUT_CET),
    case("EADD.11", gp(), busy={"target": FREE}),
    case("EADD.12", pf("rcx", ENCLS_PFEC), valid=True),
    case("EADD.13", gp(), busy={"SECS": SECS_AT}),
    case("EADD.14", pf(epc(12), ENCLS_PFEC), "not VALID", secs=epc(12)),
    case("EADD.14", pf(epc(TCS_AT), ENCLS_PFEC), "TCS", secs=epc(TCS_AT)),
    *(
        case("EADD.15", gp(), f"byte {at}", flags=TCS, tcs={}, poke={at: 1})
        for at in (72, 80, 88, 4095)
    ),
    case("EADD.16", gp(), "FSLIMIT", flags=TCS, tcs={"FSLIMIT": 0x1FFE}, wide=False),
    case("EADD.16", gp(), "GSLIMIT", flags=TCS, tcs={"GSLIMIT": 0x1000}, wide=False),
    case("EADD.17", gp(), flags=TCS, tcs={"FLAGS": 1 << 2}, readings=RESERVED_FLAGS),
    case("EADD.18", gp(), "W", flags=REG | W),
    case("EADD.18", gp(), "WX", flags=REG | W | X),
    case("EADD.19", gp(), "below", offset=-PAGE_SIZE),
    case("EADD.19", gp(), "past", offset=SIZE),
    case("EADD.20", gp(), busy={"B": SECS_AT}),
    case("EADD.21", gp(), init=True),
]
ROWS = rows(attempt, CASES)
# A leaf that holds the enclave's SECS does not hold the other page given for it.
UNRELATED = [("13", "14")]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eadd_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", CASES, ids=case_id)
def test_eadd_checks_in_order(first: Case) -> None:
    assert_first_wins(attempt, first, CASES, UNRELATED)


@pytest.mark.parametrize("rights", [0, R, R | W, R | X, RWX, X])
def test_eadd_takes_rights_type_and_address_from_the_secinfo(rights: int) -> None:
    a = attempt(flags=REG | rights)
    assert execute(a) is None
    epcm = a.lp.processor.epcm
    assert epcm.state[FREE] == VALID | REG | rights
    assert epcm.address[FREE] == BASE_64 + OFFSET
    assert (epcm.secs[FREE], epcm.stamp[FREE]) == (SECS_AT, 0)


def test_eadd_copies_the_page_and_counts_a_child() -> None:
    content = bytes(range(256)) * 16
    a = attempt(content=content)
    processor = a.lp.processor
    entries = list(processor.epcm.state)
    children = processor.secs[SECS_AT].children
    execute(a)
    assert processor.memory.read_page(processor.epc.pfn(FREE)) == content
    assert processor.secs[SECS_AT].children == children + 1
    entries[FREE] = VALID | REG | R | W
    assert list(processor.epcm.state) == entries


def test_eadd_leaves_rax_and_flags_alone() -> None:
    a = attempt()
    a.lp.regs[RFLAGS] |= 0x8D5
    flags = a.lp.regs[RFLAGS]
    execute(a)
    assert (a.lp.regs[RAX], a.lp.regs[RFLAGS]) == (EADD, flags)


@pytest.mark.parametrize("rights", [0, R, W, RWX])
def test_eadd_of_a_tcs_forces_its_rights_to_none(rights: int) -> None:
    # W without R is no error here: the rights are forced before anything would look at them.
    a = attempt(flags=TCS | rights, tcs={})
    execute(a)
    assert a.lp.processor.epcm.state[FREE] == VALID | TCS


def test_eadd_of_a_tcs_forces_state_dbgoptin_cssa_and_aep_to_zero() -> None:
    given = {"STATE": 1, "FLAGS": 0b11, "CSSA": 5, "AEP": 0x1234, "OENTRY": 0x77, "OFSBASGX": 0x9}
    a = attempt(flags=TCS, tcs=given)
    execute(a)
    processor = a.lp.processor
    stored = processor.memory.read_page(processor.epc.pfn(FREE))
    forced = {"STATE": 0, "FLAGS": 0b10, "CSSA": 0, "AEP": 0, "OENTRY": 0x77, "OFSBASGX": 0x9}
    assert stored == TCS_PAGE(**TCS_FIELDS | forced).pack()


def test_eadd_of_a_32_bit_tcs_needs_only_the_low_12_bits_of_the_limits() -> None:
    a = attempt(flags=TCS, tcs={"FSLIMIT": 0xABCDEFFF}, wide=False)
    execute(a)
    assert a.lp.processor.epcm.state[FREE] == VALID | TCS


def test_eadd_does_not_look_at_the_limits_of_a_64_bit_tcs() -> None:
    a = attempt(flags=TCS, tcs={"FSLIMIT": 0, "GSLIMIT": 1})
    execute(a)
    assert a.lp.processor.epcm.state[FREE] == VALID | TCS


@pytest.mark.parametrize("reserved", [1 << 2, 1 << 63])
def test_eadd_keeps_reserved_tcs_flags_unless_read_as_reserved(reserved: int) -> None:
    a = attempt(flags=TCS, tcs={"FLAGS": reserved})
    execute(a)
    processor = a.lp.processor
    stored = processor.memory.read(processor.epc.physical(FREE) + 8, 8)
    assert int.from_bytes(stored, "little") == reserved
    run_row(rows(attempt, [CASES[_index("EADD.17")]])[0])


@pytest.mark.parametrize("bit", [PENDING, MODIFIED, PR])
def test_eadd_ignores_state_bits_in_the_epcm_unless_read_as_reserved(bit: int) -> None:
    a = attempt(flags=REG | R | bit)
    execute(a)
    assert a.lp.processor.epcm.state[FREE] == VALID | REG | R
    strict = case("EADD.09", gp(), flags=REG | R | bit, readings=RESERVED_STATE)
    run_row(rows(attempt, [strict])[0])


def test_two_pages_may_be_added_at_one_address_and_both_are_measured() -> None:
    bare = Bare(16)
    enclave = bare.enclave(init=False)
    secs = bare.processor.secs[enclave.secs]
    address = enclave.heap
    hashes = []
    for _ in range(2):
        page = bare.eadd(enclave.secs, address)
        assert bare.processor.epcm.address[page] == address
        assert secs.measurement is not None
        hashes.append(secs.measurement.digest())
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("offset", [0, SIZE - PAGE_SIZE])
def test_eadd_reaches_the_ends_of_elrange(offset: int) -> None:
    a = attempt(offset=offset)
    execute(a)
    assert a.lp.processor.epcm.address[FREE] == BASE_64 + offset


@pytest.mark.parametrize(
    ("flags", "measured"),
    [(REG | R | X, 0x205), (TCS | RWX, 0x100), (REG | R | PENDING | MODIFIED | PR, 0x239)],
)
def test_eadd_measures_offset_and_forced_secinfo(flags: int, measured: int) -> None:
    a = attempt(flags=flags, tcs={"STATE": 0})
    secs = a.lp.processor.secs[SECS_AT]
    assert secs.measurement is not None
    expected, blocks = secs.measurement.copy(), secs.MRENCLAVE_BLOCKS
    record = b"EADD\0\0\0\0" + OFFSET.to_bytes(8, "little") + measured.to_bytes(48, "little")
    expected.update(record)
    execute(a)
    assert secs.measurement.digest() == expected.digest()
    assert blocks + 1 == secs.MRENCLAVE_BLOCKS


def _index(rule: str) -> int:
    return [c.rule for c in CASES].index(rule)
