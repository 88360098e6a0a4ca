"""EMODPE: every check, their order, and what success does. SDM 3D, EMODPE.

The enclave of `edmm` runs; a case extends DATA, an accepted page with R and W.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from softsgx.cpu import Bare, Fault, Readings
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    REG,
    RWX,
    SECS,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
    X,
)
from softsgx.spec.leaves import EMODPE
from softsgx.spec.paging import SECINFO
from softsgx.spec.status import SGX_PAGE_ATTRIBUTES_MISMATCH
from tests.cpu import edmm
from tests.cpu.changes import Changes, check_row, success
from tests.cpu.edmm import (
    BASE,
    DATA,
    ENCLU_PFEC,
    END,
    OPERAND_SPOILS,
    SCRATCH,
    user_leaf,
    word,
)
from tests.cpu.table import Attempt, Row, gp, pf, row_id

RESERVED: Final = Readings(secinfo_state_bits_reserved=True)
NEEDS_READ: Final = Readings(emodpe_needs_read=True)
PAGE: Final = 5  # EPC page number of DATA
PF_RBX, PF_RCX = pf("rbx", ENCLU_PFEC), pf("rcx", ENCLU_PFEC)


def case(flags: int = REG | X, **options: Any) -> Callable[[], Attempt]:
    """EMODPE of the page at DATA."""
    options.setdefault("rcx", DATA)
    return lambda: user_leaf(EMODPE, flags, **options)


def target(rule: str, spoil: edmm.Spoil, note: str = "") -> Row:
    """The EPCM entry of DATA is not that of an accepted PT_REG page of the enclave."""
    return Row(rule, case(spoil={DATA: spoil}), PF_RCX, note)


ROWS = [
    Row("EMODPE.01", case(rbx=SCRATCH + 32), gp()),
    Row("EMODPE.02", case(rcx=DATA + 8), gp()),
    Row("EMODPE.03", case(rbx=END), gp(), "past"),
    Row("EMODPE.03", case(rbx=BASE - 64), gp(), "before"),
    Row("EMODPE.04", case(rcx=END), gp(), "past"),
    Row("EMODPE.04", case(rcx=BASE - PAGE_SIZE), gp(), "before"),
    Row("EMODPE.05", case(spoil={SCRATCH: edmm.not_epc}), PF_RBX),
    Row("EMODPE.06", case(spoil={DATA: edmm.not_epc}), PF_RCX),
    *(
        Row("EMODPE.07", case(spoil={SCRATCH: spoil}), PF_RBX, note)
        for note, spoil in OPERAND_SPOILS.items()
    ),
    *(Row("EMODPE.08", case(REG | X | 1 << b), gp(), f"bit {b}") for b in (6, 7, 16, 63)),
    *(Row("EMODPE.08", case(tail=at), gp(), f"byte {at}") for at in (8, 63)),
    *(
        Row("EMODPE.08", case(REG | X | bit, readings=RESERVED), gp(), f"reading {bit:#x}")
        for bit in (PENDING, MODIFIED, PR)
    ),
    target("EMODPE.09", edmm.free),
    target("EMODPE.10", edmm.pending, "PENDING"),
    target("EMODPE.10", edmm.modified, "MODIFIED"),
    target("EMODPE.10", edmm.blocked, "BLOCKED"),
    *(target("EMODPE.11", word(VALID | pt), f"type {pt:#x}") for pt in (SECS, TCS, VA, TRIM)),
    target("EMODPE.12", edmm.foreign),
    Row("EMODPE.13", case(spoil={DATA: edmm.unreadable}, readings=NEEDS_READ), PF_RCX),
    Row("EMODPE.14", case(busy=(DATA, 1)), gp()),
    target("EMODPE.15", edmm.moved),
    Row("EMODPE.16", case(W, spoil={DATA: word(VALID | REG)}), gp(), "W"),
    Row("EMODPE.16", case(W | X, spoil={DATA: word(VALID | REG)}), gp(), "WX"),
    Row("EMODPE.16", case(W, spoil={DATA: word(VALID | REG | X)}), gp(), "W on X"),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_emodpe_refuses(row: Row) -> None:
    check_row(row)


# Two conditions spoilt at once: the one that the listing names first is reported.
ORDER = [
    Row("EMODPE.01", case(rbx=SCRATCH + 8, rcx=DATA + 8), gp(), "before 02"),
    Row("EMODPE.02", case(rbx=END, rcx=DATA + 8), gp(), "before 03"),
    Row("EMODPE.04", case(rcx=END, spoil={SCRATCH: edmm.not_epc}), gp(), "before 05"),
    Row("EMODPE.05", case(spoil={SCRATCH: edmm.not_epc, DATA: edmm.not_epc}), PF_RBX, "before 06"),
    Row("EMODPE.06", case(spoil={DATA: edmm.not_epc, SCRATCH: edmm.blocked}), PF_RCX, "before 07"),
    Row("EMODPE.07", case(1 << 6, spoil={SCRATCH: edmm.modified}), PF_RBX, "before 08"),
    Row("EMODPE.08", case(1 << 6, spoil={DATA: edmm.free}), gp(), "before 09"),
    Row("EMODPE.09", case(busy=(DATA, 1), spoil={DATA: edmm.free}), PF_RCX, "before 14"),
    Row("EMODPE.10", case(busy=(DATA, 1), spoil={DATA: edmm.blocked}), PF_RCX, "before 14"),
    Row("EMODPE.12", case(busy=(DATA, 1), spoil={DATA: edmm.foreign}), PF_RCX, "before 14"),
    Row("EMODPE.14", case(busy=(DATA, 1), spoil={DATA: edmm.moved}), gp(), "before 15"),
    Row(
        "EMODPE.15",
        case(W, spoil={DATA: edmm.all_of(word(VALID | REG), edmm.moved)}),
        PF_RCX,
        "before 16",
    ),
    Row("EMODPE.10", case(W, spoil={DATA: word(VALID | REG | BLOCKED)}), PF_RCX, "before 16"),
]


@pytest.mark.parametrize("row", ORDER, ids=row_id)
def test_emodpe_tests_in_the_order_of_the_listing(row: Row) -> None:
    check_row(row)


@pytest.mark.parametrize(
    "row",
    [
        Row("PAGING.01", case(spoil={SCRATCH: edmm.unmapped}), pf("rbx", 4), "SECINFO"),
        Row("PAGING.01", case(spoil={DATA: edmm.unmapped}), pf("rcx", 4), "target"),
    ],
    ids=row_id,
)
def test_an_unmapped_operand_is_an_ordinary_fault_of_a_read(row: Row) -> None:
    check_row(row)


def legal(rights: int) -> bool:
    """W only together with R."""
    return rights & (R | W) != W


@pytest.mark.parametrize("held", [0, R, X, R | W, R | X, RWX])
@pytest.mark.parametrize("asked", range(8))
def test_emodpe_adds_rights_and_judges_w_without_r_on_the_union(held: int, asked: int) -> None:
    attempt = case(asked, spoil={DATA: word(VALID | REG | held)})()
    if not legal(held | asked):
        check_row(Row("EMODPE.16", lambda: attempt, gp()))
        return
    added = {} if held | asked == held else {PAGE: VALID | REG | held | asked}
    assert success(attempt, writes_rax=False) == Changes(words=added)


@pytest.mark.parametrize("flags", [0, TCS, TRIM, 0xFF00, PENDING, MODIFIED, PR, REG | 0x38])
def test_emodpe_looks_at_the_rights_in_secinfo_alone(flags: int) -> None:
    """Type and state bits are not consulted; the reading that reserves the latter has its rows."""
    assert success(case(flags | X)(), writes_rax=False).words == {PAGE: VALID | REG | RWX}


def test_the_extended_rights_have_no_bound_in_what_was_measured() -> None:
    """DATA was added, and measured, with R and W."""
    enclave = Bare(16).enclave(pages=2, measure=True)
    secs = enclave.bare.processor.secs[enclave.secs]
    measured = secs.MRENCLAVE
    lp = edmm.inside(enclave)
    enclave.enter(lp)
    enclave.emodpe(DATA, RWX, lp)
    lp.store(DATA, b"\x90")
    assert lp.fetch(DATA) == b"\x90"
    assert measured == secs.MRENCLAVE


def test_emodpe_works_alone_and_undoes_a_restriction_at_once() -> None:
    """Even while PR = 1, without kernel, ETRACK, EACCEPT. PR is neither tested nor changed; what
    the kernel asked for is then no longer what the page has."""
    enclave = edmm.running()
    lp = edmm.inside(enclave)
    enclave.bare.emodpr(enclave.pages[DATA], R)
    enclave.emodpe(DATA, R | W, lp)
    assert edmm.entry(enclave, DATA) == VALID | REG | PR | R | W
    lp.store(DATA, b"written")
    edmm.etrack(enclave)
    assert edmm.eaccept(enclave, DATA, REG | PR | R) == SGX_PAGE_ATTRIBUTES_MISMATCH
    assert edmm.eaccept(enclave, DATA, REG | PR | R | W) == 0


def test_emodpe_does_not_renew_the_stamp() -> None:
    """It makes no translation obsolete: an ETRACK from before it still counts."""
    enclave = edmm.running()
    enclave.bare.emodpr(enclave.pages[DATA], R)
    edmm.etrack(enclave)
    stamp = enclave.bare.processor.epcm.stamp[PAGE]
    enclave.emodpe(DATA, X, edmm.inside(enclave))
    assert enclave.bare.processor.epcm.stamp[PAGE] == stamp
    assert edmm.eaccept(enclave, DATA, REG | PR | R | X) == 0


@pytest.mark.parametrize("execute", [False, True])
def test_emodpe_does_not_touch_the_page_tables(execute: bool) -> None:
    """Both layers must permit: without X in the page tables the fault is an ordinary one."""
    enclave = edmm.running()
    lp, space = edmm.inside(enclave), enclave.bare.processor.space
    enclave.map(DATA, enclave.pages[DATA], execute=execute)
    edmm.mark_used(enclave)
    before = space.snapshot()
    enclave.emodpe(DATA, X, lp)
    assert space.snapshot() == before
    if execute:
        assert lp.fetch(DATA) == b"\0"
        return
    with pytest.raises(Fault) as caught:
        lp.fetch(DATA)
    assert (caught.value.rule, caught.value.code) == ("PAGING.04", 0x15)


def test_emodpe_of_an_unusable_page_is_a_fault_not_a_code() -> None:
    """PENDING, MODIFIED, BLOCKED: EMODPR and EMODT report them in RAX, EMODPE does not."""
    for bit in (PENDING, MODIFIED, BLOCKED):
        enclave = edmm.running()
        word(VALID | REG | R | W | bit)(enclave, DATA)
        with pytest.raises(Fault) as caught:
            enclave.emodpe(DATA, X, edmm.inside(enclave))
        assert (caught.value.rule, caught.value.code) == ("EMODPE.10", ENCLU_PFEC)


def test_a_page_may_extend_itself() -> None:
    """SECINFO and target in one page."""
    enclave = edmm.running()
    lp = edmm.inside(enclave)
    lp.store(DATA + 64, SECINFO(FLAGS=X).pack())
    assert lp.enclu(EMODPE, DATA + 64, DATA) is None
    assert edmm.entry(enclave, DATA) == VALID | REG | RWX


@pytest.mark.parametrize("needs_read", [False, True])
def test_reading_emodpe_needs_read(needs_read: bool) -> None:
    """Whether a page that was restricted to nothing can get its rights back."""
    enclave = edmm.running(readings=Readings(emodpe_needs_read=needs_read))
    lp = edmm.inside(enclave)
    word(VALID | REG)(enclave, DATA)
    if needs_read:
        with pytest.raises(Fault, match=r"EMODPE\.13"):
            enclave.emodpe(DATA, R | W, lp)
    else:
        enclave.emodpe(DATA, R | W, lp)
    assert edmm.entry(enclave, DATA) == VALID | REG | (0 if needs_read else R | W)
