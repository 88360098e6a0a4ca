"""EMODPR: every check, and what success does. SDM 3D, EMODPR."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from softsgx.cpu import Bare, Fault, Readings
from softsgx.mem.pagetable import direct
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    REG,
    RWX,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
    X,
    word_text,
)
from softsgx.spec.leaves import EMODPR
from softsgx.spec.status import (
    SGX_EPC_PAGE_CONFLICT,
    SGX_PAGE_ATTRIBUTES_MISMATCH,
    SGX_PAGE_NOT_MODIFIABLE,
    SGX_PAGE_NOT_TRACKED,
)
from tests.cpu import edmm
from tests.cpu.changes import Changes, check_row, success
from tests.cpu.edmm import DATA, ENCLS_PFEC, RAM, reenter, system_leaf, word
from tests.cpu.table import Attempt, Row, code, gp, hold, pf, row_id, run_row

PAGE: Final = 5  # EPC page number of DATA in the enclave of `edmm`
RESERVED: Final = Readings(secinfo_state_bits_reserved=True)
CONFLICT, NOT_MODIFIABLE = code(SGX_EPC_PAGE_CONFLICT), code(SGX_PAGE_NOT_MODIFIABLE)
PF_RCX = pf("rcx", ENCLS_PFEC)


def attempt(
    *, rights: int = R, rbx_off: int = 0, rcx_off: int = 0, init: bool = True, word: int = 0
) -> tuple[Bare, int, Attempt]:
    """EMODPR of a data page of a built enclave; `word` replaces the EPCM word of the page."""
    bare = Bare(16)
    enclave = bare.enclave(init=init)
    page = enclave.pages[enclave.data[0]]
    if word:
        bare.processor.epcm.put(page, word)
    rbx, rcx = bare.secinfo(rights) + rbx_off, bare.address(page) + rcx_off
    return bare, page, Attempt(bare.lp, "encls", EMODPR, rbx, rcx)


def simple(**options: int | bool) -> Attempt:
    """Only the attempt."""
    return attempt(**options)[2]  # type: ignore[arg-type]


def not_epc() -> Attempt:
    """RCX points to RAM."""
    bare, _, a = attempt()
    return a._replace(rcx=bare.source(b""))


def busy(kind: int) -> Attempt:
    """Another leaf holds the page."""
    bare, page, a = attempt()
    hold(bare, page, kind)
    return a


def invalid() -> Attempt:
    """A free EPC page."""
    bare, _, a = attempt()
    return a._replace(rcx=bare.address(bare.free_page()))


def case(rights: int = R, **options: Any) -> Callable[[], Attempt]:
    """EMODPR of the page at DATA of the enclave of `edmm`."""
    return lambda: system_leaf(EMODPR, rights, **options)


ROWS = [
    Row("EMODPR.01", lambda: simple(rbx_off=32), gp()),
    Row("EMODPR.02", lambda: simple(rcx_off=8), gp()),
    Row("EMODPR.03", not_epc, pf("rcx", ENCLS_PFEC)),
    Row("EMODPR.04", lambda: simple(rights=R | 1 << 6), gp(), "bit 6"),
    Row("EMODPR.04", lambda: simple(rights=R | 1 << 16), gp(), "bit 16"),
    *(Row("EMODPR.04", case(R | 1 << b), gp(), f"bit {b}") for b in (7, 32, 63)),
    *(Row("EMODPR.04", case(tail=at), gp(), f"byte {at}") for at in (8, 63)),
    *(
        Row("EMODPR.04", case(R | bit, readings=RESERVED), gp(), f"reading {bit:#x}")
        for bit in (PENDING, MODIFIED, PR)
    ),
    # SECINFO operands of ENCLS lie in ordinary memory; of the EPC the kernel reads ones.
    Row("EMODPR.04", lambda: edmm.secinfo_in_epc(EMODPR, R), gp(), "SECINFO in the EPC"),
    Row("EMODPR.05", lambda: simple(rights=W), gp(), "W"),
    Row("EMODPR.05", lambda: simple(rights=W | X), gp(), "WX"),
    Row("EMODPR.06", lambda: busy(0), gp()),
    Row("EMODPR.07", invalid, pf("rcx", ENCLS_PFEC)),
    Row("EMODPR.08", lambda: busy(1), code(SGX_EPC_PAGE_CONFLICT)),
    Row(
        "EMODPR.09",
        lambda: simple(word=VALID | REG | PENDING | R | W),
        code(SGX_PAGE_NOT_MODIFIABLE),
        "PENDING",
    ),
    # MODIFIED is tested before the type: a TRIM page that is not accepted gives the code.
    Row(
        "EMODPR.09",
        lambda: simple(word=VALID | TRIM | MODIFIED),
        code(SGX_PAGE_NOT_MODIFIABLE),
        "MODIFIED",
    ),
    Row("EMODPR.10", lambda: simple(word=VALID | TRIM), pf("rcx", ENCLS_PFEC), "TRIM"),
    Row("EMODPR.10", lambda: simple(word=VALID | TCS), pf("rcx", ENCLS_PFEC), "TCS"),
    Row("EMODPR.10", case(spoil=word(VALID | VA)), PF_RCX, "VA"),
    Row("EMODPR.10", case(rcx=edmm.epc_address(0)), PF_RCX, "SECS"),
    Row("EMODPR.11", lambda: simple(init=False), gp()),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_emodpr_refuses(row: Row) -> None:
    run_row(row)


# Two conditions spoilt at once: the one that the listing names first is reported.
ORDER = [
    Row("EMODPR.01", case(rbx_off=8, rcx_off=8), gp(), "before 02"),
    Row("EMODPR.02", case(rcx=direct(RAM), rcx_off=8), gp(), "before 03"),
    Row("EMODPR.03", case(R | 1 << 6, rcx=direct(RAM)), PF_RCX, "before 04"),
    Row("EMODPR.05", case(W, busy=0), gp(), "before 06"),
    Row("EMODPR.05", case(W, spoil=edmm.free), gp(), "before 07"),
    Row("EMODPR.06", case(busy=0, spoil=edmm.free), gp(), "before 07"),
    Row("EMODPR.07", case(busy=1, spoil=edmm.free), PF_RCX, "before 08"),
    Row("EMODPR.08", case(busy=1, spoil=edmm.pending), CONFLICT, "before 09"),
    Row("EMODPR.08", case(busy=1, spoil=word(VALID | TRIM)), CONFLICT, "before 10"),
    Row("EMODPR.09", case(init=False, spoil=edmm.pending), NOT_MODIFIABLE, "before 11"),
    Row("EMODPR.10", case(init=False, spoil=word(VALID | TCS)), PF_RCX, "before 11"),
]


@pytest.mark.parametrize("row", ORDER, ids=row_id)
def test_emodpr_tests_in_the_order_of_the_listing(row: Row) -> None:
    check_row(row)


@pytest.mark.parametrize("held", [TRIM | MODIFIED, TCS | MODIFIED, TRIM | PENDING])
def test_emodpr_tests_pending_and_modified_before_the_type(held: int) -> None:
    """The other way round than EMODT."""
    check_row(Row("EMODPR.09", case(spoil=word(VALID | held)), NOT_MODIFIABLE))


@pytest.mark.parametrize("held", [R, R | W, R | X, R | W | X, 0])
@pytest.mark.parametrize("mask", [0, R, R | W, R | X, R | W | X, X])
def test_emodpr_masks_and_never_widens(held: int, mask: int) -> None:
    bare, page, a = attempt(rights=mask, word=VALID | REG | held)
    status = a.lp.encls(a.leaf, a.rbx, a.rcx)
    assert status == 0
    assert bare.word(page) == VALID | REG | PR | held & mask, word_text(bare.word(page))


def test_emodpr_accumulates_before_acceptance() -> None:
    bare, page, a = attempt(rights=R | X, word=VALID | REG | RWX)
    a.lp.encls(a.leaf, a.rbx, a.rcx)
    assert bare.emodpr(page, R | W) == 0
    assert bare.word(page) == VALID | REG | PR | R


@pytest.mark.parametrize("held", [R | W, R | PR, R | W | BLOCKED, RWX | PR | BLOCKED])
def test_emodpr_sets_pr_stamps_the_page_and_changes_nothing_else(held: int) -> None:
    """Neither BLOCKED nor PR is tested; contents, owner and address stay."""
    attempt = case(R, spoil=edmm.all_of(word(VALID | REG | held), edmm.holding(b"kept")))()
    new = VALID | REG | PR | R | held & BLOCKED
    words = {PAGE: new} if new != VALID | REG | held else {}
    assert success(attempt, writes_rax=True) == Changes(words=words, stamps={PAGE: 1})


def test_emodpr_of_a_right_the_page_lacks_is_neither_error_nor_grant() -> None:
    attempt = case(R | X)()  # the page has R and W
    assert success(attempt, writes_rax=True).words == {PAGE: VALID | REG | PR | R}


@pytest.mark.parametrize("mask", [R | W, RWX])
def test_emodpr_that_removes_nothing_sets_pr_and_needs_acceptance(mask: int) -> None:
    """The page stays accessible meanwhile."""
    enclave = edmm.running()
    lp = edmm.inside(enclave)
    enclave.bare.emodpr(PAGE, mask)
    reenter(enclave)
    lp.store(DATA, b"usable")
    assert edmm.entry(enclave, DATA) == VALID | REG | PR | R | W
    assert edmm.eaccept(enclave, DATA, REG | PR | R | W) == SGX_PAGE_NOT_TRACKED
    edmm.etrack(enclave)
    assert edmm.eaccept(enclave, DATA, REG | PR | R | W) == 0


def test_pr_is_cleared_by_eaccept_by_emodt_and_by_removal_only() -> None:
    enclave = edmm.running()
    bare = enclave.bare
    for page in (5, 6):
        bare.emodpr(page, R)
    enclave.emodpe(DATA, W, edmm.inside(enclave))
    edmm.etrack(enclave)
    bare.eblock(6)
    assert [bool(bare.word(page) & PR) for page in (5, 6)] == [True, True]
    assert edmm.eaccept(enclave, DATA, REG | PR | R | W) == 0
    assert bare.word(5) & PR == 0
    bare.emodt(6, TRIM)
    assert bare.word(6) & PR == 0
    bare.emodpr(5, R)
    enclave.exit(edmm.inside(enclave))
    bare.eremove(5)
    assert bare.word(5) == 0


def test_emodpr_to_no_right_is_allowed_and_denies_reads() -> None:
    enclave = edmm.running()
    enclave.bare.emodpr(PAGE, 0)
    with pytest.raises(Fault) as caught:
        edmm.inside(enclave).load(DATA, 1)
    assert (caught.value.rule, caught.value.code) == ("ACCESS.12", 0x8005)


@pytest.mark.parametrize("mask", [0, R, X, R | W, R | X, RWX])
@pytest.mark.parametrize("held", [0, R, X, R | W, R | X, RWX])
def test_emodpr_never_leaves_w_without_r(held: int, mask: int) -> None:
    attempt = case(mask, spoil=word(VALID | REG | held))()
    assert success(attempt, writes_rax=True).words[PAGE] & (R | W) != W


@pytest.mark.parametrize("flags", [TCS, TRIM, VA, 0xFF00, PENDING, MODIFIED, PR, 0x38])
def test_emodpr_looks_at_the_rights_in_secinfo_alone(flags: int) -> None:
    """Bits 3 to 5 are defined, so not reserved; the reading that reserves them has its rows."""
    assert success(case(flags | R)(), writes_rax=True).words == {PAGE: VALID | REG | PR | R}


def test_emodpr_acts_at_once_in_the_epcm_and_not_in_a_translation_from_before() -> None:
    enclave = edmm.running()
    lp = edmm.inside(enclave)
    lp.store(DATA, b"a")
    enclave.bare.emodpr(PAGE, R)
    assert edmm.entry(enclave, DATA) == VALID | REG | PR | R
    lp.store(DATA, b"b")
    reenter(enclave)
    with pytest.raises(Fault) as caught:
        lp.store(DATA, b"c")
    assert (caught.value.rule, caught.value.code) == ("ACCESS.12", 0x8007)
    assert lp.load(DATA, 1) == b"b"


def test_emodpr_does_not_touch_the_page_tables() -> None:
    """They still permit the write; the EPCM refuses it all the same."""
    enclave = edmm.running()
    space = enclave.bare.processor.space
    edmm.mark_used(enclave)
    before = space.snapshot()
    enclave.bare.emodpr(PAGE, R)
    assert space.snapshot() == before


def test_secinfo_of_encls_lies_in_ordinary_memory() -> None:
    """The same 64 bytes are a mask there, and reserved bits when they lie in the EPC."""
    attempt = edmm.secinfo_in_epc(EMODPR, R)
    check_row(Row("EMODPR.04", lambda: attempt, gp()))
    assert success(case(R)(), writes_rax=True).words == {PAGE: VALID | REG | PR | R}


def test_emodpr_reaches_the_page_through_any_mapping() -> None:
    """RCX is the kernel's address; ENCLAVEADDRESS is not compared with it."""
    enclave = edmm.built()
    bare = enclave.bare
    bare.processor.space.map(edmm.OUTSIDE, bare.processor.epc.pfn(PAGE), user=False)
    assert bare.lp.encls(EMODPR, bare.secinfo(R), edmm.OUTSIDE) == 0
    assert bare.word(PAGE) == VALID | REG | PR | R


def test_emodpr_and_eblock_may_overlap() -> None:
    """Both share the page, and EBLOCK is no leaf of dynamic memory."""
    assert success(case(busy=0, shared=True)(), writes_rax=True).words == {
        PAGE: VALID | REG | PR | R
    }


def test_emodpr_stamps_the_current_epoch() -> None:
    enclave = edmm.built()
    for _ in range(3):
        assert enclave.bare.etrack(enclave.secs) == 0
    enclave.bare.emodpr(PAGE, R)
    assert enclave.bare.processor.epcm.stamp[PAGE] == 4


@pytest.mark.parametrize(("restamps", "rax"), [(True, SGX_PAGE_NOT_TRACKED), (False, 0)])
def test_reading_repeated_emodpr_restamps(restamps: bool, rax: int) -> None:
    """Whether an ETRACK between two EMODPRs covers the second."""
    enclave = edmm.running(readings=Readings(repeated_emodpr_restamps=restamps))
    enclave.bare.emodpr(PAGE, R | W)
    edmm.etrack(enclave)
    enclave.bare.emodpr(PAGE, R)
    assert edmm.eaccept(enclave, DATA, REG | PR | R) == rax


@pytest.mark.parametrize(("restamps", "rax"), [(True, SGX_PAGE_NOT_TRACKED), (False, 0)])
def test_reading_noop_emodpr_restamps(restamps: bool, rax: int) -> None:
    """Whether an EMODPR that removes nothing needs an ETRACK."""
    enclave = edmm.running(readings=Readings(noop_emodpr_restamps=restamps))
    enclave.bare.emodpr(PAGE, RWX)
    assert edmm.eaccept(enclave, DATA, REG | PR | R | W) == rax


@pytest.mark.parametrize("name", ["repeated_emodpr_restamps", "noop_emodpr_restamps"])
def test_readings_of_stamps_leave_a_first_real_restriction_alone(name: str) -> None:
    enclave = edmm.running(readings=Readings(**{name: False}))
    enclave.bare.emodpr(PAGE, R)
    assert edmm.eaccept(enclave, DATA, REG | PR | R) == SGX_PAGE_NOT_TRACKED
    assert edmm.eaccept(enclave, DATA, REG | PR | R | W) == SGX_PAGE_ATTRIBUTES_MISMATCH
