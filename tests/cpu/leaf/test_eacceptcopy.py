"""EACCEPTCOPY: every check, their order, and what success does. SDM 3D, EACCEPTCOPY.

The enclave of `edmm` runs; a case copies DATA to HEAP, which is PENDING.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.mem.pagetable import PTE_D
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
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
from softsgx.spec.leaves import EACCEPTCOPY
from softsgx.spec.status import SGX_PAGE_ATTRIBUTES_MISMATCH
from tests.cpu import edmm
from tests.cpu.changes import Changes, check_row, success
from tests.cpu.edmm import (
    BASE,
    DATA,
    DATA2,
    ENCLU_PFEC,
    ENCLU_PFEC_W,
    END,
    HEAP,
    OPERAND_SPOILS,
    SCRATCH,
    all_of,
    changed,
    user_leaf,
    word,
)
from tests.cpu.table import Attempt, Row, code, gp, pf, row_id

RESERVED: Final = Readings(secinfo_state_bits_reserved=True)
PF_RBX, PF_RDX = pf("rbx", ENCLU_PFEC), pf("rdx", ENCLU_PFEC)
PF_RCX = pf("rcx", ENCLU_PFEC_W)  # the destination is written
MISMATCH = code(SGX_PAGE_ATTRIBUTES_MISMATCH)


def case(flags: int = REG | R | W, **options: Any) -> Callable[[], Attempt]:
    """EACCEPTCOPY of DATA to HEAP."""
    options.setdefault("rdx", DATA)
    return lambda: user_leaf(EACCEPTCOPY, flags, **options)


def destination(rule: str, spoil: edmm.Spoil, note: str) -> Row:
    """The EPCM entry of HEAP is not that of a page fresh from EAUG."""
    return Row(rule, case(spoil={HEAP: spoil}), MISMATCH, note)


ROWS = [
    Row("EACCEPTCOPY.01", case(rbx=SCRATCH + 32), gp()),
    Row("EACCEPTCOPY.02", case(rcx=HEAP + 8), gp(), "RCX"),
    Row("EACCEPTCOPY.02", case(rdx=DATA + 8), gp(), "RDX"),
    Row("EACCEPTCOPY.03", case(rbx=END), gp(), "RBX"),
    Row("EACCEPTCOPY.03", case(rcx=END), gp(), "RCX"),
    Row("EACCEPTCOPY.03", case(rdx=BASE - PAGE_SIZE), gp(), "RDX"),
    Row("EACCEPTCOPY.04", case(spoil={SCRATCH: edmm.not_epc}), PF_RBX),
    Row("EACCEPTCOPY.05", case(spoil={HEAP: edmm.not_epc}), PF_RCX),
    Row("EACCEPTCOPY.06", case(spoil={DATA: edmm.not_epc}), PF_RDX),
    *(
        Row("EACCEPTCOPY.07", case(spoil={SCRATCH: spoil}), PF_RBX, note)
        for note, spoil in OPERAND_SPOILS.items()
    ),
    *(Row("EACCEPTCOPY.08", case(REG | R | 1 << b), gp(), f"bit {b}") for b in (6, 7, 16, 63)),
    *(Row("EACCEPTCOPY.08", case(tail=at), gp(), f"byte {at}") for at in (8, 63)),
    *(
        Row("EACCEPTCOPY.08", case(REG | R | bit, readings=RESERVED), gp(), f"reading {bit:#x}")
        for bit in (PENDING, MODIFIED, PR)
    ),
    Row("EACCEPTCOPY.09", case(REG | W), gp(), "W"),
    Row("EACCEPTCOPY.09", case(REG | W | X), gp(), "WX"),
    *(
        Row("EACCEPTCOPY.10", case(pt | R | W), gp(), f"type {pt:#x}")
        for pt in (SECS, TCS, VA, TRIM, SS_FIRST)
    ),
    *(
        Row("EACCEPTCOPY.11", case(spoil={DATA: spoil}), PF_RDX, note)
        for note, spoil in OPERAND_SPOILS.items()
    ),
    destination("EACCEPTCOPY.12", edmm.free, "VALID"),
    destination("EACCEPTCOPY.12", changed(clear=PENDING), "not PENDING"),
    destination("EACCEPTCOPY.12", edmm.modified, "MODIFIED"),
    destination("EACCEPTCOPY.12", edmm.blocked, "BLOCKED"),
    destination("EACCEPTCOPY.13", edmm.a_tcs, "TCS"),
    destination("EACCEPTCOPY.13", changed(clear=PT_MASK, to=TRIM), "TRIM"),
    destination("EACCEPTCOPY.14", edmm.foreign, ""),
    Row("EACCEPTCOPY.15", case(busy=(HEAP, 1)), gp()),
    destination("EACCEPTCOPY.16", changed(clear=W), "R"),
    destination("EACCEPTCOPY.16", changed(to=X), "RWX"),
    destination("EACCEPTCOPY.16", changed(clear=R), "W"),
    destination("EACCEPTCOPY.17", edmm.moved, ""),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eacceptcopy_refuses(row: Row) -> None:
    check_row(row)


# Two conditions spoilt at once: the one that the listing names first is reported.
ORDER = [
    Row("EACCEPTCOPY.01", case(rbx=SCRATCH + 8, rcx=HEAP + 8), gp(), "before 02"),
    Row("EACCEPTCOPY.02", case(rbx=END, rdx=DATA + 8), gp(), "before 03"),
    Row("EACCEPTCOPY.03", case(rdx=END, spoil={SCRATCH: edmm.not_epc}), gp(), "before 04"),
    Row(
        "EACCEPTCOPY.04",
        case(spoil={SCRATCH: edmm.not_epc, HEAP: edmm.not_epc}),
        PF_RBX,
        "before 05",
    ),
    Row(
        "EACCEPTCOPY.05",
        case(spoil={HEAP: edmm.not_epc, DATA: edmm.not_epc}),
        PF_RCX,
        "before 06",
    ),
    Row(
        "EACCEPTCOPY.06",
        case(spoil={DATA: edmm.not_epc, SCRATCH: edmm.blocked}),
        PF_RDX,
        "before 07",
    ),
    Row("EACCEPTCOPY.07", case(1 << 6, spoil={SCRATCH: edmm.pending}), PF_RBX, "before 08"),
    Row("EACCEPTCOPY.08", case(REG | W | 1 << 6), gp(), "before 09"),
    Row("EACCEPTCOPY.09", case(TCS | W), gp(), "before 10"),
    Row("EACCEPTCOPY.10", case(TCS | R, spoil={DATA: edmm.blocked}), gp(), "before 11"),
    Row(
        "EACCEPTCOPY.11",
        case(spoil={DATA: edmm.pending, HEAP: edmm.free}),
        PF_RDX,
        "before 12",
    ),
    Row("EACCEPTCOPY.12", case(busy=(HEAP, 1), spoil={HEAP: edmm.free}), MISMATCH, "before 15"),
    Row("EACCEPTCOPY.14", case(busy=(HEAP, 1), spoil={HEAP: edmm.foreign}), MISMATCH, "before 15"),
    Row("EACCEPTCOPY.15", case(busy=(HEAP, 1), spoil={HEAP: edmm.moved}), gp(), "before 17"),
    Row("EACCEPTCOPY.15", case(busy=(HEAP, 1), spoil={HEAP: changed(to=X)}), gp(), "before 16"),
]


@pytest.mark.parametrize("row", ORDER, ids=row_id)
def test_eacceptcopy_tests_in_the_order_of_the_listing(row: Row) -> None:
    check_row(row)


PAGING = [
    Row("PAGING.01", case(spoil={SCRATCH: edmm.unmapped}), pf("rbx", 4), "SECINFO"),
    Row("PAGING.01", case(spoil={HEAP: edmm.unmapped}), pf("rcx", 6), "destination"),
    Row("PAGING.01", case(spoil={DATA: edmm.unmapped}), pf("rdx", 4), "source"),
    Row("PAGING.03", case(spoil={HEAP: edmm.read_only}), pf("rcx", 7), "destination"),
]


@pytest.mark.parametrize("row", PAGING, ids=row_id)
def test_eacceptcopy_writes_the_destination_and_reads_the_rest(row: Row) -> None:
    """The page tables see a write of RCX, reads of RBX and RDX."""
    check_row(row)


@pytest.mark.parametrize("rights", [0, R, X, R | W, R | X, RWX])
def test_eacceptcopy_copies_and_sets_any_legal_rights(rights: int) -> None:
    """Assigned, not added: also fewer than R and W, also X."""
    attempt = case(REG | rights, spoil={DATA: edmm.holding(b"code" * 1024)})()
    page = 7
    assert success(attempt, writes_rax=True) == Changes(
        words={page: VALID | REG | rights}, contents={page: b"code" * 1024}
    )


@pytest.mark.parametrize("bit", [PENDING, MODIFIED, PR])
def test_eacceptcopy_ignores_the_state_bits_in_secinfo(bit: int) -> None:
    """They are defined bits, so not reserved; the reading that reserves them has its rows above."""
    enclave = edmm.augmented()
    assert enclave.eacceptcopy(HEAP, DATA, REG | R | bit, edmm.inside(enclave)) == 0
    assert edmm.entry(enclave, HEAP) == VALID | REG | R


@pytest.mark.parametrize("source", [R, R | W | PR, RWX])
def test_the_source_needs_r_alone(source: int) -> None:
    """A page under restriction is a legal operand; its rights are not inherited."""
    attempt = case(REG | R | X, spoil={DATA: word(VALID | REG | source)})()
    assert success(attempt, writes_rax=True).words == {7: VALID | REG | R | X}


def test_secinfo_and_source_may_be_one_page() -> None:
    enclave = edmm.augmented()
    lp = edmm.inside(enclave)
    lp.store(DATA, (REG | R).to_bytes(64, "little"))
    assert lp.enclu(EACCEPTCOPY, DATA, HEAP, DATA) == 0
    assert lp.load(HEAP, 64) == (REG | R).to_bytes(64, "little")


def test_source_and_destination_cannot_be_one_page() -> None:
    """The source must not be PENDING, and that is a fault, not a mismatch."""
    check_row(Row("EACCEPTCOPY.11", case(rdx=HEAP), PF_RDX))


def test_eacceptcopy_is_only_for_pages_fresh_from_eaug() -> None:
    """Not for an accepted page, nor a restricted one, nor one that EMODT changed."""
    for spoil in (word(VALID | REG | R | W), word(VALID | REG | PR | R | W), edmm.retyped(TRIM)):
        enclave = edmm.running()
        spoil(enclave, DATA2)
        before = edmm.entry(enclave, DATA2)
        assert enclave.eacceptcopy(DATA2, DATA, REG | R | W, edmm.inside(enclave)) == 19
        assert edmm.entry(enclave, DATA2) == before


def test_a_wrong_destination_is_a_mismatch_but_a_wrong_source_a_fault() -> None:
    for spoil in (edmm.blocked, edmm.modified, edmm.a_tcs, edmm.free):
        check_row(Row("EACCEPTCOPY.11", case(spoil={DATA: all_of(spoil)}), pf(DATA, ENCLU_PFEC)))
        attempt = case(spoil={HEAP: spoil})()
        assert attempt.lp.enclu(EACCEPTCOPY, SCRATCH, HEAP, DATA) == 19


def test_eacceptcopy_needs_no_tracking() -> None:
    enclave = edmm.augmented()
    assert enclave.bare.processor.secs[enclave.secs].EPOCH == 0
    assert enclave.eacceptcopy(HEAP, DATA, REG | R | X, edmm.inside(enclave)) == 0


def test_a_page_is_copied_once() -> None:
    enclave = edmm.augmented()
    lp = edmm.inside(enclave)
    assert enclave.eacceptcopy(HEAP, DATA, REG | R | W, lp) == 0
    assert enclave.eacceptcopy(HEAP, DATA2, REG | R | W, lp) == SGX_PAGE_ATTRIBUTES_MISMATCH


def test_eacceptcopy_sets_d_of_the_destination_only() -> None:
    enclave = edmm.augmented()
    space, lp = enclave.bare.processor.space, edmm.inside(enclave)
    enclave.eacceptcopy(HEAP, DATA, REG | R, lp)
    assert [bool(space.lookup(a) & PTE_D) for a in (HEAP, DATA)] == [True, False]


def test_a_copied_page_without_w_refuses_the_enclave_that_copied_it() -> None:
    enclave = edmm.augmented()
    lp = edmm.inside(enclave)
    assert enclave.eacceptcopy(HEAP, DATA, REG | R | X, lp) == 0
    assert lp.fetch(HEAP) == lp.load(HEAP, 1) == b"\0"
    with pytest.raises(Fault) as caught:
        lp.store(HEAP, b"\1")
    assert (caught.value.rule, caught.value.code) == ("ACCESS.12", 0x8007)
