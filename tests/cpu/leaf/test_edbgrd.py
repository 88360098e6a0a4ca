"""EDBGRD: every check in its order, and what success does. SDM 3D, EDBGRD."""

from dataclasses import replace

import pytest

from softsgx.cpu import Bare, Readings
from softsgx.cpu.readings import DEFAULT_READINGS
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT
from softsgx.spec.bits import MASK64
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PT_VA, REG, TCS, TRIM, VALID, R, W
from softsgx.spec.leaves import EDBGRD, EPA
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RBX, RCX, RFLAGS
from softsgx.spec.status import SGX_PAGE_NOT_DEBUGGABLE
from tests.cpu.cases import (
    ENCLS_PFEC,
    RAM,
    Case,
    assert_first_wins,
    assert_writes_only_rax_and_flags,
    case,
    case_id,
    epc,
    rows,
)
from tests.cpu.table import Attempt, Row, code, execute, gp, hold, pf, row_id, run_row

SECS_AT, TCS_AT, DATA_AT, VA_AT, FREE = 0, 1, 5, 8, 10  # EPC pages of the attempt
NOT_DEBUGGABLE = code(SGX_PAGE_NOT_DEBUGGABLE)
NO_PAGE = pf("rcx", ENCLS_PFEC)


def attempt(
    *,
    page: int = DATA_AT,
    offset: int = 0,
    rcx: int = 0,
    rcx_off: int = 0,
    busy: bool = False,
    word: int = 0,
    debug: bool = True,
    init: bool = True,
    readings: Readings = DEFAULT_READINGS,
) -> Attempt:
    """EDBGRD of an EPC page; `word` replaces its EPCM word."""
    bare = Bare(16, readings=readings)
    bare.enclave(attributes=ATTR_MODE64BIT | (ATTR_DEBUG if debug else 0), init=init)
    bare.lp.encls(EPA, PT_VA, epc(VA_AT))
    if word:
        bare.processor.epcm.put(page, word)
    if busy:
        hold(bare, page, 0)
    return Attempt(bare.lp, "encls", EDBGRD, 0x5A5A, (rcx or epc(page) + offset) + rcx_off)


CASES = [
    case("EDBGRD.01", gp(), "4", rcx_off=4),
    case("EDBGRD.01", gp(), "1", rcx_off=1),
    case("EDBGRD.02", NO_PAGE, rcx=RAM),
    case("EDBGRD.03", gp(), busy=True),
    case("EDBGRD.04", NO_PAGE, page=FREE),
    case("EDBGRD.05", NO_PAGE, "SECS", page=SECS_AT),
    case("EDBGRD.05", NO_PAGE, "TRIM", word=VALID | TRIM),
    # The type is tested before PENDING and MODIFIED.
    case("EDBGRD.05", NO_PAGE, "TRIM MODIFIED", word=VALID | TRIM | MODIFIED),
    case("EDBGRD.06", NOT_DEBUGGABLE, "PENDING", word=VALID | REG | R | W | PENDING),
    case("EDBGRD.06", NOT_DEBUGGABLE, "MODIFIED", word=VALID | TCS | MODIFIED),
    # ... and those before the offset in a TCS.
    case("EDBGRD.06", NOT_DEBUGGABLE, "TCS", word=VALID | TCS | MODIFIED, offset=0x48),
    case("EDBGRD.07", gp(), "72", page=TCS_AT, offset=72),
    case("EDBGRD.07", gp(), "4088", page=TCS_AT, offset=4088),
    case(
        "EDBGRD.07",
        gp(),
        "limit of 88",
        page=TCS_AT,
        offset=88,
        readings=replace(DEFAULT_READINGS, tcs_limit=88),
    ),
    case("EDBGRD.08", gp(), "REG", debug=False),
    case("EDBGRD.08", gp(), "TCS", debug=False, page=TCS_AT),
]
ROWS = rows(attempt, CASES)
# Each chooses what the page is.
UNRELATED = [("04", "05"), ("04", "06"), ("05", "06")]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_edbgrd_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", CASES, ids=case_id)
def test_edbgrd_checks_in_order(first: Case) -> None:
    assert_first_wins(attempt, first, CASES, UNRELATED)


@pytest.mark.parametrize("c", [c for c in CASES if c.expected.kind == "code"], ids=case_id)
def test_a_refused_edbgrd_changes_nothing_and_leaves_rbx(c: Case) -> None:
    a = attempt(**c.spoilt)
    assert assert_writes_only_rax_and_flags(a) == SGX_PAGE_NOT_DEBUGGABLE
    assert a.lp.regs[RBX] == 0x5A5A


@pytest.mark.parametrize("offset", [0, 8, 4088])
@pytest.mark.parametrize("word", [VALID | REG | R | W, VALID | REG, VALID | REG | R | BLOCKED])
def test_edbgrd_reads_whatever_rights_and_blocked(word: int, offset: int) -> None:
    a = attempt(word=word, offset=offset)
    lp, processor = a.lp, a.lp.processor
    processor.memory.write(
        processor.epc.physical(DATA_AT) + offset, b"\x11\x22\x33\x44\x55\x66\x77\x88"
    )
    lp.regs[RFLAGS] |= RFLAGS_STATUS
    memory, epcm = processor.memory.snapshot(), processor.epcm.snapshot()
    assert execute(a) == 0
    assert (lp.regs[RAX], lp.regs[RBX], lp.regs[RCX]) == (0, 0x8877665544332211, a.rcx)
    assert lp.regs[RFLAGS] & RFLAGS_STATUS == 0
    assert (processor.memory.snapshot(), processor.epcm.snapshot()) == (memory, epcm)


def test_edbgrd_reads_a_tcs_up_to_its_limit() -> None:
    a = attempt(page=TCS_AT, offset=64)
    assert execute(a) == 0
    assert a.lp.regs[RBX] == 0
    for offset, value in ((16, 0x1000), (24, 2 << 32), (32, 0x100)):  # OSSA, CSSA and NSSA, OENTRY
        assert execute(a._replace(rcx=epc(TCS_AT) + offset)) == 0
        assert a.lp.regs[RBX] == value


def test_edbgrd_limit_of_a_tcs_is_a_reading() -> None:
    long = replace(DEFAULT_READINGS, tcs_limit=88)
    assert execute(attempt(page=TCS_AT, offset=80, readings=long)) == 0
    short = replace(DEFAULT_READINGS, tcs_limit=64)
    run_row(rows(attempt, [case("EDBGRD.07", gp(), page=TCS_AT, offset=64, readings=short)])[0])


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    ("slot", "seen"), [(0, 0), (7, 0), (8, MASK64), (1 << 63, MASK64), (MASK64, MASK64)]
)
def test_edbgrd_of_a_va_slot_tells_only_whether_it_is_used(
    slot: int, seen: int, debug: bool
) -> None:
    # A VA page belongs to no enclave, so DEBUG is not asked for.
    a = attempt(page=VA_AT, offset=0x1F8, debug=debug)
    processor = a.lp.processor
    processor.memory.write(processor.epc.physical(VA_AT) + 0x1F8, slot.to_bytes(8, "little"))
    assert execute(a) == 0
    assert a.lp.regs[RBX] == seen


def test_edbgrd_sees_a_slot_that_ewb_filled_and_eldu_emptied() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    va, page, backing = bare.epa(), enclave.pages[enclave.data[0]], bare.backing()
    slot = Attempt(bare.lp, "encls", EDBGRD, 0, bare.address(va) + 8)
    bare.eblock(page)
    bare.etrack(enclave.secs)
    assert bare.ewb(page, va, 1, backing) == 0
    execute(slot)
    assert bare.lp.regs[RBX] == MASK64
    assert bare.eld(backing, va, 1, enclave.secs)[1] == 0
    execute(slot)
    assert bare.lp.regs[RBX] == 0


def test_edbgrd_does_not_ask_for_an_initialised_enclave() -> None:
    assert execute(attempt(init=False)) == 0
