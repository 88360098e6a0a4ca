"""EDBGWR: every check in its order, and what success does. SDM 3D, EDBGWR."""

import pytest

from softsgx.cpu import Bare
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PT_VA, REG, TCS, TRIM, VALID, R, W
from softsgx.spec.leaves import EDBGWR, EPA
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RBX, RFLAGS
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
DATA = 0x8877665544332211
NOT_DEBUGGABLE = code(SGX_PAGE_NOT_DEBUGGABLE)
NO_PAGE = pf("rcx", ENCLS_PFEC)


def attempt(
    *,
    page: int = DATA_AT,
    offset: int = 0,
    rbx: int = DATA,
    rcx: int = 0,
    rcx_off: int = 0,
    busy: bool = False,
    word: int = 0,
    debug: bool = True,
    init: bool = True,
) -> Attempt:
    """EDBGWR to an EPC page; `word` replaces its EPCM word."""
    bare = Bare(16)
    bare.enclave(attributes=ATTR_MODE64BIT | (ATTR_DEBUG if debug else 0), init=init)
    bare.lp.encls(EPA, PT_VA, epc(VA_AT))
    if word:
        bare.processor.epcm.put(page, word)
    if busy:
        hold(bare, page, 0)
    return Attempt(bare.lp, "encls", EDBGWR, rbx, (rcx or epc(page) + offset) + rcx_off)


CASES = [
    case("EDBGWR.01", gp(), "4", rcx_off=4),
    case("EDBGWR.01", gp(), "1", rcx_off=1),
    case("EDBGWR.02", NO_PAGE, rcx=RAM),
    case("EDBGWR.03", gp(), busy=True),
    case("EDBGWR.04", NO_PAGE, page=FREE),
    case("EDBGWR.05", NO_PAGE, "SECS", page=SECS_AT),
    case("EDBGWR.05", NO_PAGE, "VA", page=VA_AT),
    case("EDBGWR.05", NO_PAGE, "TRIM MODIFIED", word=VALID | TRIM | MODIFIED),
    case("EDBGWR.06", NOT_DEBUGGABLE, "PENDING", word=VALID | REG | R | W | PENDING),
    case("EDBGWR.06", NOT_DEBUGGABLE, "MODIFIED", word=VALID | TCS | MODIFIED),
    *(
        case("EDBGWR.07", gp(), f"offset {offset}", page=TCS_AT, offset=offset)
        for offset in (0, 16, 24, 40, 72, 4088)
    ),
    case("EDBGWR.08", gp(), "REG", debug=False),
    case("EDBGWR.08", gp(), "TCS", debug=False, page=TCS_AT, offset=8),
]
ROWS = rows(attempt, CASES)
# Each chooses what the page is.
UNRELATED = [("04", "05"), ("04", "06"), ("05", "06")]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_edbgwr_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", CASES, ids=case_id)
def test_edbgwr_checks_in_order(first: Case) -> None:
    assert_first_wins(attempt, first, CASES, UNRELATED)


@pytest.mark.parametrize("c", [c for c in CASES if c.expected.kind == "code"], ids=case_id)
def test_a_refused_edbgwr_changes_nothing(c: Case) -> None:
    assert assert_writes_only_rax_and_flags(attempt(**c.spoilt)) == SGX_PAGE_NOT_DEBUGGABLE


@pytest.mark.parametrize("offset", [0, 8, 4088])
@pytest.mark.parametrize("word", [VALID | REG | R | W, VALID | REG, VALID | REG | R | BLOCKED])
def test_edbgwr_writes_8_bytes_whatever_rights_and_blocked(word: int, offset: int) -> None:
    a = attempt(word=word, offset=offset)
    lp, processor = a.lp, a.lp.processor
    expected = bytearray(b"\xee" * 4096)
    processor.memory.write_page(processor.epc.pfn(DATA_AT), expected)
    lp.regs[RFLAGS] |= RFLAGS_STATUS
    epcm = processor.epcm.snapshot()
    assert execute(a) == 0
    expected[offset : offset + 8] = DATA.to_bytes(8, "little")
    assert processor.memory.read_page(processor.epc.pfn(DATA_AT)) == expected
    assert (lp.regs[RAX], lp.regs[RBX]) == (0, DATA)
    assert lp.regs[RFLAGS] & RFLAGS_STATUS == 0
    assert processor.epcm.snapshot() == epcm


@pytest.mark.parametrize("flags", [0, 1, 3, 1 << 63])
def test_edbgwr_writes_the_flags_of_a_tcs(flags: int) -> None:
    # Reserved bits too: they are judged at entry.
    a = attempt(page=TCS_AT, offset=8, rbx=flags)
    processor = a.lp.processor
    expected = bytearray(processor.memory.read_page(processor.epc.pfn(TCS_AT)))
    expected[8:16] = flags.to_bytes(8, "little")
    assert execute(a) == 0
    assert processor.memory.read_page(processor.epc.pfn(TCS_AT)) == expected


def test_edbgwr_is_seen_by_the_code_inside() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    address = enclave.data[0]
    bare.lp.encls(EDBGWR, DATA, bare.address(enclave.pages[address]))
    enclave.enter()
    assert bare.lp.load(address, 8) == DATA.to_bytes(8, "little")


def test_edbgwr_does_not_ask_for_an_initialised_enclave() -> None:
    assert execute(attempt(init=False)) == 0
