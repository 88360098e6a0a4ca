"""EMODT: every check, their order, and what success does. SDM 3D, EMODT."""

from collections.abc import Callable
from typing import Any

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.mem.pagetable import direct
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    REG,
    RWX,
    SECS,
    SS_FIRST,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
    X,
)
from softsgx.spec.leaves import EMODT
from softsgx.spec.status import (
    SGX_EPC_PAGE_CONFLICT,
    SGX_PAGE_ATTRIBUTES_MISMATCH,
    SGX_PAGE_NOT_MODIFIABLE,
)
from tests.cpu import edmm
from tests.cpu.changes import Changes, check_row, success
from tests.cpu.edmm import DATA, ENCLS_PFEC, RAM, system_leaf, word
from tests.cpu.table import Attempt, Row, code, gp, pf, row_id

RESERVED = Readings(secinfo_state_bits_reserved=True)
CONFLICT, NOT_MODIFIABLE = code(SGX_EPC_PAGE_CONFLICT), code(SGX_PAGE_NOT_MODIFIABLE)


def case(flags: int = TRIM, **options: Any) -> Callable[[], Attempt]:
    """EMODT of the page at DATA."""
    return lambda: system_leaf(EMODT, flags, **options)


PF_RCX = pf("rcx", ENCLS_PFEC)
ROWS = [
    Row("EMODT.01", case(rbx_off=32), gp()),
    Row("EMODT.02", case(rcx_off=8), gp()),
    Row("EMODT.03", case(rcx=direct(RAM)), PF_RCX),
    *(
        Row("EMODT.04", case(TRIM | 1 << bit), gp(), f"bit {bit}")
        for bit in (6, 7, *range(16, 64, 15))
    ),
    *(Row("EMODT.04", case(tail=at), gp(), f"byte {at}") for at in (8, 63)),
    *(
        Row("EMODT.04", case(TRIM | bit, readings=RESERVED), gp(), f"reading {bit:#x}")
        for bit in (PENDING, MODIFIED, PR)
    ),
    Row("EMODT.04", lambda: edmm.secinfo_in_epc(EMODT, TRIM), gp(), "SECINFO in the EPC"),
    Row("EMODT.05", case(REG), gp(), "REG"),
    Row("EMODT.05", case(SECS), gp(), "SECS"),
    Row("EMODT.05", case(VA), gp(), "VA"),
    Row("EMODT.05", case(SS_FIRST), gp(), "SS_FIRST"),
    Row("EMODT.06", case(busy=0), CONFLICT),
    # EMODT takes the page exclusively: even a leaf that shares it is in the way.
    Row("EMODT.06", case(busy=0, shared=True), CONFLICT, "shared"),
    Row("EMODT.07", case(spoil=edmm.free), PF_RCX),
    Row("EMODT.08", case(busy=1), CONFLICT),
    Row("EMODT.09", case(TCS, spoil=word(VALID | TCS)), PF_RCX, "TCS to TCS"),
    Row("EMODT.09", case(TRIM, spoil=word(VALID | TRIM)), PF_RCX, "TRIM to TRIM"),
    Row("EMODT.09", case(TCS, spoil=word(VALID | TRIM)), PF_RCX, "TRIM to TCS"),
    Row("EMODT.09", case(TRIM, rcx=edmm.epc_address(0)), PF_RCX, "SECS"),
    Row("EMODT.09", case(TRIM, spoil=word(VALID | VA)), PF_RCX, "VA"),
    Row("EMODT.10", case(spoil=edmm.pending), NOT_MODIFIABLE, "PENDING"),
    Row("EMODT.10", case(spoil=word(VALID | TCS | MODIFIED)), NOT_MODIFIABLE, "MODIFIED"),
    Row("EMODT.11", case(init=False), gp()),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_emodt_refuses(row: Row) -> None:
    check_row(row)


# Two conditions spoilt at once: the one that the listing names first is reported.
ORDER = [
    Row("EMODT.01", case(rbx_off=8, rcx_off=8), gp(), "before 02"),
    Row("EMODT.02", case(rcx=direct(RAM), rcx_off=8), gp(), "before 03"),
    Row("EMODT.03", case(TRIM | 1 << 6, rcx=direct(RAM)), PF_RCX, "before 04"),
    Row("EMODT.04", case(REG | 1 << 6), gp(), "before 05"),
    Row("EMODT.05", case(REG, busy=0), gp(), "before 06"),
    Row("EMODT.06", case(busy=0, spoil=edmm.free), CONFLICT, "before 07"),
    Row("EMODT.07", case(busy=1, spoil=edmm.free), PF_RCX, "before 08"),
    Row("EMODT.08", case(busy=1, spoil=word(VALID | TRIM)), CONFLICT, "before 09"),
    Row("EMODT.10", case(init=False, spoil=edmm.pending), NOT_MODIFIABLE, "before 11"),
]


@pytest.mark.parametrize("row", ORDER, ids=row_id)
def test_emodt_tests_in_the_order_of_the_listing(row: Row) -> None:
    check_row(row)


@pytest.mark.parametrize("held", [VALID | TRIM | MODIFIED, VALID | VA | PENDING])
def test_emodt_tests_the_type_before_pending_and_modified(held: int) -> None:
    """The other way round than EMODPR."""
    check_row(Row("EMODT.09", case(TRIM, spoil=word(held)), PF_RCX))


@pytest.mark.parametrize(
    ("held", "new"),
    [
        (VALID | REG | RWX, TCS),
        (VALID | REG | R | W, TRIM),
        (VALID | REG | R | PR, TCS),
        (VALID | REG | PR, TRIM),
        (VALID | REG | R | W | BLOCKED, TRIM),
        (VALID | TCS, TRIM),
        (VALID | TCS | BLOCKED, TRIM),
    ],
)
def test_emodt_sets_modified_and_clears_every_right_and_pr(held: int, new: int) -> None:
    """BLOCKED is neither tested nor changed; contents, owner and address stay."""
    attempt = system_leaf(EMODT, new, spoil=edmm.all_of(word(held), edmm.holding(b"kept")))
    page = edmm.target(attempt)
    assert success(attempt, writes_rax=True) == Changes(
        words={page: VALID | MODIFIED | new | held & BLOCKED},
        stamps={page: 1},
    )


@pytest.mark.parametrize("bits", [RWX, R, W, X, W | X])
def test_emodt_ignores_the_rights_in_secinfo(bits: int) -> None:
    """Not even W without R matters."""
    enclave = edmm.built()
    page = enclave.pages[DATA]
    assert enclave.bare.emodt(page, TCS | bits) == 0
    assert enclave.bare.word(page) == VALID | TCS | MODIFIED


@pytest.mark.parametrize("bit", [PENDING, MODIFIED, PR])
def test_emodt_ignores_the_state_bits_in_secinfo(bit: int) -> None:
    """They are defined bits, so not reserved; the reading that reserves them has its rows above."""
    enclave = edmm.built()
    page = enclave.pages[DATA]
    assert enclave.bare.emodt(page, TRIM | bit) == 0
    assert enclave.bare.word(page) == VALID | TRIM | MODIFIED


def test_emodt_stamps_the_page_with_the_current_epoch() -> None:
    enclave = edmm.built()
    page = enclave.pages[DATA]
    for _ in range(3):
        assert enclave.bare.etrack(enclave.secs) == 0
    enclave.bare.emodt(page, TRIM)
    assert enclave.bare.processor.epcm.stamp[page] == 4


def test_emodt_of_a_restricted_page_stamps_it_anew() -> None:
    """The ETRACK between EMODPR and EMODT does not cover the EMODT."""
    enclave = edmm.running()
    page = enclave.pages[DATA]
    enclave.bare.emodpr(page, R)
    edmm.etrack(enclave)
    enclave.bare.emodt(page, TRIM)
    assert edmm.eaccept(enclave, DATA, TRIM | MODIFIED) == 11
    edmm.etrack(enclave)
    assert edmm.eaccept(enclave, DATA, TRIM | MODIFIED) == 0


@pytest.mark.parametrize("new", [REG, TCS, TRIM])
@pytest.mark.parametrize("old", [REG, TCS, TRIM])
def test_emodt_cannot_produce_reg_nor_start_from_trim_nor_renew_a_tcs(old: int, new: int) -> None:
    """Of nine transitions three are allowed."""
    enclave = edmm.built()
    word(VALID | old)(enclave, DATA)
    if (old, new) in ((REG, TCS), (REG, TRIM), (TCS, TRIM)):
        assert enclave.bare.emodt(enclave.pages[DATA], new) == 0
        return
    with pytest.raises(Fault) as caught:
        enclave.bare.emodt(enclave.pages[DATA], new)
    assert caught.value.rule == ("EMODT.05" if new == REG else "EMODT.09")


def test_emodt_makes_the_page_inaccessible_at_once_to_new_translations() -> None:
    enclave = edmm.running()
    lp = edmm.inside(enclave)
    lp.load(DATA, 1)
    enclave.bare.emodt(enclave.pages[DATA], TRIM)
    assert lp.load(DATA, 1) == b"\0"  # the translation from before still serves
    edmm.reenter(enclave)
    with pytest.raises(Fault) as caught:
        lp.load(DATA, 1)
    assert (caught.value.rule, caught.value.code) == ("ACCESS.06", 0x8005)


@pytest.mark.parametrize("rights", [R, R | W, RWX, X])
@pytest.mark.parametrize("new", [TCS, TRIM])
def test_after_emodt_eaccept_with_rights_in_secinfo_is_a_mismatch(new: int, rights: int) -> None:
    enclave = edmm.running()
    enclave.bare.emodt(enclave.pages[DATA], new)
    edmm.etrack(enclave)
    flags = new | MODIFIED
    assert edmm.eaccept(enclave, DATA, flags | rights) == SGX_PAGE_ATTRIBUTES_MISMATCH


def test_emodt_reaches_the_page_through_any_mapping() -> None:
    """RCX is the kernel's address; ENCLAVEADDRESS is not compared with it."""
    enclave = edmm.built()
    bare, page = enclave.bare, enclave.pages[DATA]
    bare.processor.space.map(edmm.OUTSIDE, bare.processor.epc.pfn(page), user=False)
    assert bare.lp.encls(EMODT, bare.secinfo(TRIM), edmm.OUTSIDE) == 0
    assert bare.word(page) == VALID | TRIM | MODIFIED
