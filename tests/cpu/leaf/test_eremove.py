"""EREMOVE: every check in its order, and what success does. SDM 3D, EREMOVE."""

from dataclasses import replace

import pytest

from softsgx.cpu import Bare, Readings
from softsgx.cpu.readings import DEFAULT_READINGS
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    PT_VA,
    REG,
    RWX,
    TCS,
    TRIM,
    VALID,
    R,
    W,
)
from softsgx.spec.leaves import EADD, EPA, EREMOVE
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RFLAGS
from softsgx.spec.secs import SECS as SECS_PAGE
from softsgx.spec.status import SGX_CHILD_PRESENT, SGX_ENCLAVE_ACT
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
ACTIVE = code(SGX_ENCLAVE_ACT)


def attempt(
    *,
    page: int = DATA_AT,
    rcx: int = 0,
    rcx_off: int = 0,
    busy: bool = False,
    word: int = 0,
    inside: bool = False,
    readings: Readings = DEFAULT_READINGS,
) -> Attempt:
    """EREMOVE by the first processor; the second is inside the enclave if `inside`."""
    bare = Bare(16, readings=readings)
    enclave = bare.enclave()
    bare.lp.encls(EPA, PT_VA, epc(VA_AT))
    if word:
        bare.processor.epcm.put(page, word)
    if inside:
        enclave.enter(bare.processor.lps[1])
    if busy:
        hold(bare, page, 0)
    return Attempt(bare.lp, "encls", EREMOVE, 0, (rcx or epc(page)) + rcx_off)


TRIM_STAYS = replace(DEFAULT_READINGS, eremove_frees_accepted_trim=False)

CASES = [
    case("EREMOVE.01", gp(), rcx_off=8),
    case("EREMOVE.02", pf("rcx", ENCLS_PFEC), rcx=RAM),
    case("EREMOVE.03", gp(), busy=True),
    case("EREMOVE.04", code(SGX_CHILD_PRESENT), page=SECS_AT),
    case("EREMOVE.05", ACTIVE, "REG", inside=True),
    case("EREMOVE.05", ACTIVE, "TCS", inside=True, page=TCS_AT),
    case("EREMOVE.05", ACTIVE, "TRIM not accepted", inside=True, word=VALID | TRIM | MODIFIED),
]
ROWS = rows(attempt, CASES)
# The enclave's SECS has children whether a processor is inside or not, and no TRIM word.
UNRELATED = [("04", "05")]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eremove_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", CASES, ids=case_id)
def test_eremove_checks_in_order(first: Case) -> None:
    assert_first_wins(attempt, first, CASES, UNRELATED)


@pytest.mark.parametrize("c", [c for c in CASES if c.expected.kind == "code"], ids=case_id)
def test_a_refused_eremove_changes_nothing(c: Case) -> None:
    assert assert_writes_only_rax_and_flags(attempt(**c.spoilt)) == c.expected.value


def test_a_secs_with_children_is_refused_with_code_13_though_a_processor_is_inside() -> None:
    assert execute(attempt(page=SECS_AT, inside=True)) == SGX_CHILD_PRESENT


@pytest.mark.parametrize("inside", [False, True])
def test_eremove_of_an_invalid_page_is_success_and_does_nothing(inside: bool) -> None:
    assert assert_writes_only_rax_and_flags(attempt(page=FREE, inside=inside)) == 0


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("page", [VA_AT, DATA_AT])
def test_eremove_of_va_and_accepted_trim_does_not_test_activity(page: int, inside: bool) -> None:
    word = 0 if page == VA_AT else VALID | TRIM
    a = attempt(page=page, word=word, inside=inside)
    assert execute(a) == 0
    assert a.lp.processor.epcm.state[page] == 0


@pytest.mark.parametrize("inside", [False, True])
def test_reading_eremove_frees_accepted_trim(inside: bool) -> None:
    """The other place of the listing: there is nothing to do, RAX is 0, and the page stays."""
    a = attempt(word=VALID | TRIM, inside=inside, readings=TRIM_STAYS)
    assert assert_writes_only_rax_and_flags(a) == 0
    assert a.lp.processor.epcm.state[DATA_AT] == VALID | TRIM
    # One that is not accepted is like any child page.
    a = attempt(word=VALID | TRIM | MODIFIED, inside=inside, readings=TRIM_STAYS)
    assert execute(a) == (SGX_ENCLAVE_ACT if inside else 0)


@pytest.mark.parametrize(
    "word",
    [
        VALID | REG | RWX,
        VALID | REG,
        VALID | REG | R | W | PENDING,
        VALID | REG | R | PR,
        VALID | REG | R | W | BLOCKED,
        VALID | TCS,
        VALID | TCS | MODIFIED,
        VALID | TRIM | MODIFIED,
        VALID | TRIM | BLOCKED,
    ],
)
def test_eremove_of_a_child_page_asks_for_no_state_and_no_right(word: int) -> None:
    a = attempt(word=word)
    processor = a.lp.processor
    children = processor.secs[SECS_AT].children
    entries = list(processor.epcm.state)
    assert execute(a) == 0
    entries[DATA_AT] = 0
    assert list(processor.epcm.state) == entries
    epcm = processor.epcm
    assert (epcm.secs[DATA_AT], epcm.address[DATA_AT], epcm.stamp[DATA_AT]) == (0, 0, 0)
    assert processor.secs[SECS_AT].children == children - 1


def test_eremove_writes_rax_and_clears_all_status_flags() -> None:
    a = attempt()
    a.lp.regs[RFLAGS] |= RFLAGS_STATUS
    execute(a)
    assert (a.lp.regs[RAX], a.lp.regs[RFLAGS] & RFLAGS_STATUS) == (0, 0)


def test_eremove_works_again_when_the_last_processor_has_left() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    lps = bare.processor.lps
    page = enclave.pages[enclave.data[0]]
    enclave.enter(lps[1])
    assert bare.eremove(page) == SGX_ENCLAVE_ACT
    enclave.exit(lps[1])
    assert bare.eremove(page) == 0


def test_a_processor_inside_another_enclave_is_no_obstacle() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    other = bare.enclave(base=enclave.base + (1 << 30))
    other.enter(bare.processor.lps[1])
    assert bare.eremove(enclave.pages[enclave.data[0]]) == 0


def test_tearing_down_ends_with_the_secs() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    for page in enclave.pages.values():
        assert bare.eremove(enclave.secs) == SGX_CHILD_PRESENT
        assert bare.eremove(page) == 0
    assert bare.eremove(enclave.secs) == 0
    assert list(bare.processor.epcm.state) == [0] * 16
    assert bare.processor.secs == {}


def test_evicted_children_do_not_keep_the_secs() -> None:
    # Only pages that are in the EPC count; this is why a VMM needs VIRTCHILDCNT.
    bare = Bare(16)
    enclave = bare.enclave()
    va = bare.epa()
    pages = list(enclave.pages.values())
    for page in pages:
        assert bare.eblock(page) == 0
    assert bare.etrack(enclave.secs) == 0
    for slot, page in enumerate(pages):
        assert bare.eremove(enclave.secs) == SGX_CHILD_PRESENT
        assert bare.ewb(page, va, slot, bare.backing()) == 0
    assert bare.eremove(enclave.secs) == 0


def test_a_freed_page_keeps_nothing_for_the_next_enclave() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    address = enclave.data[0]
    page = enclave.pages[address]
    enclave.enter()
    bare.lp.store(address, b"secret")
    enclave.exit()
    assert bare.eremove(page) == 0
    assert bare.processor.memory.read_page(bare.processor.epc.pfn(page)) == bytes(4096)
    other = bare.ecreate(SECS_PAGE(SIZE_=1 << 20, SSAFRAMESIZE=1, ATTRIBUTES=0b110, XFRM=3))
    info = bare.pageinfo(
        srcpge=bare.source(b"new"), secinfo=bare.secinfo(REG | R), secs=bare.address(other)
    )
    assert bare.lp.encls(EADD, info, bare.address(page)) is None
    assert bare.word(page) == VALID | REG | R
    assert bare.processor.epcm.secs[page] == other
