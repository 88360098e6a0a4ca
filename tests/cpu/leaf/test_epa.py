"""EPA: every check in its order, and what success does. SDM 3D, EPA."""

import pytest

from softsgx.cpu import Bare
from softsgx.spec.epcm import VA, VALID
from softsgx.spec.leaves import EPA
from softsgx.spec.registers import RAX, RFLAGS
from tests.cpu.cases import ENCLS_PFEC, RAM, Case, assert_first_wins, case, case_id, epc, rows
from tests.cpu.table import Attempt, Row, execute, gp, hold, pf, row_id, run_row

FREE, DATA_AT = 10, 5


def attempt(
    *, rbx: int = 3, rcx: int = 0, rcx_off: int = 0, busy: bool = False, valid: bool = False
) -> Attempt:
    """EPA of a free page, or of a data page if `valid`."""
    bare = Bare(16)
    bare.enclave()
    page = DATA_AT if valid else FREE
    if busy:
        hold(bare, page, 0)
    return Attempt(bare.lp, "encls", EPA, rbx, (rcx or epc(page)) + rcx_off)


CASES = [
    case("EPA.01", gp(), "SECS", rbx=0),
    case("EPA.01", gp(), "REG", rbx=2),
    case("EPA.01", gp(), "high half", rbx=1 << 32 | 3),
    case("EPA.01", gp(), "shifted", rbx=VA),
    case("EPA.02", gp(), rcx_off=8),
    case("EPA.03", pf("rcx", ENCLS_PFEC), rcx=RAM),
    case("EPA.04", gp(), busy=True),
    case("EPA.05", pf("rcx", ENCLS_PFEC), valid=True),
]
ROWS = rows(attempt, CASES)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_epa_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", CASES, ids=case_id)
def test_epa_checks_in_order(first: Case) -> None:
    assert_first_wins(attempt, first, CASES)


def test_epa_makes_an_empty_version_array_without_a_parent() -> None:
    a = attempt()
    lp, processor = a.lp, a.lp.processor
    processor.memory.write(processor.epc.physical(FREE), b"left behind")
    lp.regs[RFLAGS] |= 0x8D5
    flags, entries = lp.regs[RFLAGS], list(processor.epcm.state)
    children = processor.secs[0].children
    assert execute(a) is None
    epcm = processor.epcm
    entries[FREE] = VALID | VA
    assert list(epcm.state) == entries
    assert (epcm.secs[FREE], epcm.address[FREE], epcm.stamp[FREE]) == (0, 0, 0)
    assert processor.memory.read_page(processor.epc.pfn(FREE)) == bytes(4096)
    assert processor.secs[0].children == children
    assert processor.secs_of(FREE) is None
    assert (lp.regs[RAX], lp.regs[RFLAGS]) == (EPA, flags)
