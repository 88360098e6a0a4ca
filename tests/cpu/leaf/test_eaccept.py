"""EACCEPT: every check, and their order. What success does: test_eaccept_effects. SDM 3D, EACCEPT.

The enclave of `edmm` runs; HEAP is PENDING, DATA an accepted page. A case accepts HEAP unless told.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.cpu.bare import BareEnclave
from softsgx.spec.attributes import ATTR_MODE64BIT
from softsgx.spec.epcm import (
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
)
from softsgx.spec.leaves import EACCEPT
from softsgx.spec.status import SGX_PAGE_ATTRIBUTES_MISMATCH, SGX_PAGE_NOT_TRACKED
from tests.cpu import edmm
from tests.cpu.changes import check_row
from tests.cpu.edmm import (
    BASE,
    DATA,
    ENCLU_PFEC,
    END,
    HEAP,
    OPERAND_SPOILS,
    SCRATCH,
    all_of,
    restricted,
    retyped,
    thread_page,
    user_leaf,
    word,
)
from tests.cpu.table import Attempt, Expected, Row, code, gp, hold, pf, row_id

AUGMENTED: Final = REG | PENDING | R | W  # what the SECINFO says after EAUG
RESTRICTED: Final = REG | PR | R  # after EMODPR to R
NEW_TCS: Final = TCS | MODIFIED  # after EMODT
NEEDS_READ: Final = Readings(eaccept_needs_read=True)
FLAGS_RESERVED: Final = Readings(tcs_flags_reserved_at_eaccept=True)
NEEDS_NSSA: Final = Readings(eaccept_needs_nssa=True)

PF_RBX, PF_RCX = pf("rbx", ENCLU_PFEC), pf("rcx", ENCLU_PFEC)
MISMATCH, NOT_TRACKED = code(SGX_PAGE_ATTRIBUTES_MISMATCH), code(SGX_PAGE_NOT_TRACKED)


def case(flags: int = AUGMENTED, **options: Any) -> Callable[[], Attempt]:
    """EACCEPT of the page at HEAP."""
    return lambda: user_leaf(EACCEPT, flags, **options)


def new_tcs(flags: int = NEW_TCS, **fields: Any) -> Callable[[], Attempt]:
    """EACCEPT of DATA, which EMODT made a TCS with these fields; tracking is complete."""
    readings = fields.pop("readings", None)
    spoil = {DATA: thread_page(**fields)}
    return lambda: user_leaf(EACCEPT, flags, rcx=DATA, spoil=spoil, readings=readings)


def narrow_tcs(**fields: Any) -> Callable[[], Attempt]:
    """The same in a 32-bit enclave, which the model cannot enter: it becomes one while it runs."""

    def narrow(enclave: BareEnclave, _address: int) -> None:
        enclave.bare.processor.secs[enclave.secs].ATTRIBUTES &= ~ATTR_MODE64BIT

    spoil = {DATA: all_of(thread_page(**fields), narrow)}
    return lambda: user_leaf(EACCEPT, NEW_TCS, rcx=DATA, spoil=spoil)


def of_type(page_type: int, flags: int) -> Row:
    """HEAP is a page of a type that no enclave owns."""
    spoil = {HEAP: word(VALID | page_type)}
    return Row("EACCEPT.15", case(flags, spoil=spoil), PF_RCX, f"type {page_type:#x}")


def differs(note: str, held: int, flags: int) -> Row:
    """The EPCM entry of HEAP is not what the SECINFO says."""
    return Row("EACCEPT.20", case(flags, spoil={HEAP: word(VALID | held)}), MISMATCH, note)


COMBINATIONS = [
    *(
        Row("EACCEPT.09", case(REG | MODIFIED | bits | R), gp(), f"{bits:#x}")
        for bits in (0, PR, PENDING, PR | PENDING)
    ),
    Row("EACCEPT.10", case(REG | R | W), gp()),
    *(
        Row("EACCEPT.11", case(pt | bits), gp(), f"{pt | bits:#x}")
        for pt in (TCS, TRIM)
        for bits in (0, PR, PENDING, MODIFIED | PR, MODIFIED | PENDING, MODIFIED | PR | PENDING)
    ),
    *(
        Row("EACCEPT.12", case(pt | PENDING | R | W), gp(), f"{pt:#x}")
        for pt in (SECS, VA, 7 << 8, 0xFF << 8)
    ),
]
MISMATCHES = [
    differs("R wider", REG | PR | W, REG | PR | R | W),
    differs("W wider", REG | PR | R, REG | PR | R | W),
    differs("X wider", REG | PENDING | R | W, REG | PENDING | RWX),
    differs("W narrower", REG | PENDING | R | W, REG | PENDING | R),
    differs("X narrower", REG | PR | RWX, REG | PR | R | W),
    differs("none of R W", REG | PENDING | R | W, REG | PENDING),
    differs("PENDING", REG | PENDING | R | W, REG | PR | R | W),
    differs("not PENDING", REG | PR | R | W, REG | PENDING | R | W),
    differs("MODIFIED", REG | MODIFIED | R | W, REG | PR | R | W),
    differs("not MODIFIED", TRIM, TRIM | MODIFIED),
    differs("PT TRIM for TCS", TCS | MODIFIED, TRIM | MODIFIED),
    differs("PT TCS for TRIM", TRIM | MODIFIED, TCS | MODIFIED),
    differs("PT TRIM for REG", REG | MODIFIED, TRIM | MODIFIED),
]
CONTENTS = [
    Row("EACCEPT.22", new_tcs(ragged=72), gp(), "byte 72"),
    Row("EACCEPT.22", new_tcs(ragged=4095), gp(), "byte 4095"),
    Row("EACCEPT.23", new_tcs(FLAGS=1), gp()),
    Row("EACCEPT.24", new_tcs(NSSA=0, readings=NEEDS_NSSA), gp(), "0 of 0"),
    Row("EACCEPT.24", new_tcs(CSSA=1), gp(), "1 of 1"),
    Row("EACCEPT.24", new_tcs(CSSA=3, NSSA=2), gp(), "3 of 2"),
    Row("EACCEPT.25", new_tcs(AEP=1 << 63), gp()),
    Row("EACCEPT.26", new_tcs(STATE=1), gp()),
    Row("EACCEPT.26", new_tcs(STATE=1 << 63), gp(), "bit 63"),
    Row("EACCEPT.27", narrow_tcs(FSLIMIT=0xFFE, GSLIMIT=0xFFF), gp(), "FSLIMIT"),
    Row("EACCEPT.27", narrow_tcs(FSLIMIT=0xFFF, GSLIMIT=0x1000), gp(), "GSLIMIT"),
    Row("EACCEPT.27", narrow_tcs(), gp(), "both 0"),
    Row("EACCEPT.28", new_tcs(FLAGS=1 << 2, readings=FLAGS_RESERVED), gp(), "bit 2"),
    Row("EACCEPT.28", new_tcs(FLAGS=1 << 63, readings=FLAGS_RESERVED), gp(), "bit 63"),
]
ROWS = [
    Row("EACCEPT.01", case(rbx=SCRATCH + 32), gp()),
    Row("EACCEPT.02", case(rbx=END), gp(), "past"),
    Row("EACCEPT.02", case(rbx=BASE - 64), gp(), "before"),
    Row("EACCEPT.03", case(spoil={SCRATCH: edmm.not_epc}), PF_RBX),
    *(
        Row("EACCEPT.04", case(spoil={SCRATCH: spoil}), PF_RBX, note)
        for note, spoil in OPERAND_SPOILS.items()
    ),
    *(Row("EACCEPT.05", case(AUGMENTED | 1 << b), gp(), f"bit {b}") for b in (6, 7, 16, 63)),
    *(Row("EACCEPT.05", case(tail=at), gp(), f"byte {at}") for at in (8, 63)),
    Row("EACCEPT.06", case(rcx=HEAP + 8), gp()),
    Row("EACCEPT.07", case(rcx=END), gp(), "past"),
    Row("EACCEPT.07", case(rcx=BASE - 4096), gp(), "before"),
    Row("EACCEPT.08", case(spoil={HEAP: edmm.not_epc}), PF_RCX),
    *COMBINATIONS,
    Row("EACCEPT.13", case(spoil={HEAP: edmm.free}), PF_RCX),
    Row("EACCEPT.14", case(spoil={HEAP: edmm.blocked}), PF_RCX),
    of_type(SECS, AUGMENTED),
    of_type(VA, TRIM | MODIFIED),
    Row("EACCEPT.16", case(spoil={HEAP: edmm.foreign}), PF_RCX),
    Row(
        "EACCEPT.17",
        case(REG | PR, spoil={HEAP: word(VALID | REG | PR)}, readings=NEEDS_READ),
        PF_RCX,
    ),
    Row("EACCEPT.18", case(busy=(HEAP, 0)), gp(), "base"),
    Row("EACCEPT.18", case(busy=(HEAP, 1)), gp(), "M"),
    Row("EACCEPT.19", case(spoil={HEAP: edmm.moved}), MISMATCH),
    *MISMATCHES,
    Row("EACCEPT.21", case(RESTRICTED, rcx=DATA, spoil={DATA: restricted(R)}), NOT_TRACKED, "PR"),
    Row("EACCEPT.21", case(NEW_TCS, rcx=DATA, spoil={DATA: retyped(TCS)}), NOT_TRACKED, "TCS"),
    Row(
        "EACCEPT.21",
        case(TRIM | MODIFIED, rcx=DATA, spoil={DATA: retyped(TRIM)}),
        NOT_TRACKED,
        "TRIM",
    ),
    *CONTENTS,
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eaccept_refuses(row: Row) -> None:
    check_row(row)


# Two conditions spoilt at once: the one that the listing names first is reported.
ORDER = [
    Row("EACCEPT.01", case(rbx=END + 32), gp(), "before 02"),
    # ELRANGE is tested before anything is translated.
    Row("EACCEPT.02", case(rbx=BASE - 64), gp(), "before PAGING.01"),
    Row("EACCEPT.04", case(1 << 6, spoil={SCRATCH: edmm.modified}), PF_RBX, "before 05"),
    Row("EACCEPT.05", case(1 << 6, rcx=HEAP + 8), gp(), "before 06"),
    Row("EACCEPT.04", case(rcx=END, spoil={SCRATCH: edmm.unreadable}), PF_RBX, "before 07"),
    Row("EACCEPT.06", case(rcx=END + 8), gp(), "before 07"),
    Row("EACCEPT.08", case(REG, spoil={HEAP: edmm.not_epc}), PF_RCX, "before 10"),
    Row("EACCEPT.10", case(REG, spoil={HEAP: edmm.free}), gp(), "before 13"),
    Row("EACCEPT.11", case(TRIM, spoil={HEAP: edmm.blocked}), gp(), "before 14"),
    Row("EACCEPT.12", case(VA | PENDING, spoil={HEAP: edmm.foreign}), gp(), "before 16"),
    Row("EACCEPT.13", case(busy=(HEAP, 1), spoil={HEAP: edmm.free}), PF_RCX, "before 18"),
    Row("EACCEPT.14", case(busy=(HEAP, 1), spoil={HEAP: edmm.blocked}), PF_RCX, "before 18"),
    Row("EACCEPT.16", case(busy=(HEAP, 0), spoil={HEAP: edmm.foreign}), PF_RCX, "before 18"),
    Row("EACCEPT.18", case(busy=(HEAP, 1), spoil={HEAP: edmm.moved}), gp(), "before 19"),
    Row("EACCEPT.18", case(REG | PENDING | R, busy=(HEAP, 1)), gp(), "before 20"),
    Row("EACCEPT.14", case(REG | PENDING | R, spoil={HEAP: edmm.blocked}), PF_RCX, "before 20"),
]


@pytest.mark.parametrize("row", ORDER, ids=row_id)
def test_eaccept_tests_in_the_order_of_the_listing(row: Row) -> None:
    check_row(row)


@pytest.mark.parametrize(
    ("rbx", "spoil", "rule", "expected"),
    [
        (edmm.OUTSIDE, edmm.not_epc, "EACCEPT.02", gp()),
        (DATA, edmm.not_epc, "EACCEPT.03", PF_RBX),
        (DATA, edmm.pending, "EACCEPT.04", PF_RBX),
        (DATA, edmm.unreadable, "EACCEPT.04", PF_RBX),
        (BASE, all_of(), "EACCEPT.04", PF_RBX),
    ],
)
def test_secinfo_of_enclu_lies_in_an_accepted_readable_page_of_the_enclave(
    rbx: int, spoil: edmm.Spoil, rule: str, expected: Expected
) -> None:
    """Not outside, not in ordinary memory, not in a page to be accepted, not in a TCS."""
    check_row(Row(rule, case(rbx=rbx, spoil={rbx: spoil}), expected))


@pytest.mark.parametrize("flags", [REG | R | W, TCS, TRIM, TCS | MODIFIED | PR, TRIM | PENDING])
def test_a_senseless_secinfo_is_gp_and_not_a_mismatch(flags: int) -> None:
    """PT_REG without PR and PENDING; PT_TCS and PT_TRIM with anything but MODIFIED."""
    rule = "EACCEPT.10" if flags & REG else "EACCEPT.11"
    check_row(Row(rule, case(flags), gp()))


@pytest.mark.parametrize(
    ("spoil", "flags"),
    [
        (restricted(R), REG | PR | R | W),
        (restricted(R | W), REG | PR | R),
        (retyped(TCS), TRIM | MODIFIED),
        (retyped(TRIM), TRIM | MODIFIED | R),
    ],
)
def test_a_mismatch_is_reported_before_missing_tracking(spoil: edmm.Spoil, flags: int) -> None:
    check_row(Row("EACCEPT.20", case(flags, rcx=DATA, spoil={DATA: spoil}), MISMATCH))


def test_missing_tracking_is_reported_before_bad_tcs_contents() -> None:
    spoil = all_of(edmm.holding(b"\x01" * 4096), retyped(TCS))
    check_row(Row("EACCEPT.21", case(NEW_TCS, rcx=DATA, spoil={DATA: spoil}), NOT_TRACKED))


def test_a_mismatch_is_reported_before_bad_tcs_contents() -> None:
    check_row(Row("EACCEPT.20", new_tcs(NEW_TCS | R, STATE=1), MISMATCH))


@pytest.mark.parametrize(
    "row",
    [
        Row("PAGING.01", case(spoil={HEAP: edmm.unmapped}), pf("rcx", 4), "target"),
        Row("PAGING.01", case(spoil={SCRATCH: edmm.unmapped}), pf("rbx", 4), "SECINFO"),
        Row("PAGING.01", case(REG, spoil={HEAP: edmm.unmapped}), pf("rcx", 4), "before 10"),
        Row(
            "PAGING.01",
            case(spoil={HEAP: all_of(edmm.blocked, edmm.unmapped)}),
            pf("rcx", 4),
            "before 14",
        ),
    ],
    ids=row_id,
)
def test_an_unmapped_operand_is_an_ordinary_fault_of_a_read(row: Row) -> None:
    check_row(row)


@pytest.mark.parametrize("spoil", [edmm.read_only, word(VALID | REG | PENDING | R | W)])
def test_eaccept_only_reads_its_operands(spoil: edmm.Spoil) -> None:
    """A page that the page tables do not permit to write can be accepted."""
    attempt = user_leaf(EACCEPT, AUGMENTED, spoil={HEAP: spoil, SCRATCH: edmm.read_only})
    assert attempt.lp.enclu(EACCEPT, attempt.rbx, attempt.rcx) == 0


@pytest.mark.parametrize("needs_read", [False, True])
def test_reading_eaccept_needs_read(needs_read: bool) -> None:
    """Whether a page that was restricted to nothing can be accepted."""
    enclave = edmm.running(readings=Readings(eaccept_needs_read=needs_read))
    enclave.bare.emodpr(enclave.pages[DATA], 0)
    edmm.etrack(enclave)
    if needs_read:
        with pytest.raises(Fault, match=r"EACCEPT\.17"):
            edmm.eaccept(enclave, DATA, REG | PR)
    else:
        assert edmm.eaccept(enclave, DATA, REG | PR) == 0
    assert edmm.entry(enclave, DATA) == VALID | REG | (PR if needs_read else 0)


def test_reading_eaccept_needs_read_and_a_page_has_it() -> None:
    enclave = edmm.running(readings=NEEDS_READ)
    enclave.bare.emodpr(enclave.pages[DATA], R)
    edmm.etrack(enclave)
    assert edmm.eaccept(enclave, DATA, REG | R | PR) == 0


@pytest.mark.parametrize("pt", [TCS, TRIM])
def test_reading_eaccept_needs_read_concerns_only_regular_pages(pt: int) -> None:
    """After EMODT no page has R; the reading must not make the result impossible to accept."""
    enclave = edmm.running(readings=NEEDS_READ)
    spoil = thread_page() if pt == TCS else retyped(TRIM)
    spoil(enclave, DATA)
    edmm.etrack(enclave)
    assert edmm.eaccept(enclave, DATA, pt | MODIFIED) == 0


@pytest.mark.parametrize("bits", [1 << 2, 1 << 63])
def test_reading_tcs_flags_reserved_at_eaccept(bits: int) -> None:
    """By default the reserved area is tested and FLAGS are left to entry."""
    attempt = new_tcs(FLAGS=bits)()
    assert attempt.lp.enclu(EACCEPT, attempt.rbx, attempt.rcx) == 0
    check_row(Row("EACCEPT.28", new_tcs(FLAGS=bits, readings=FLAGS_RESERVED), gp()))


def test_a_tcs_of_a_32_bit_enclave_has_limits_of_whole_pages() -> None:
    attempt = narrow_tcs(FSLIMIT=0xFFF, GSLIMIT=0xFFFF_FFFF)()
    assert attempt.lp.enclu(EACCEPT, attempt.rbx, attempt.rcx) == 0


def test_eaccept_may_overlap_with_a_leaf_that_shares_the_page() -> None:
    """EBLOCK shares the base lock, as EACCEPT does."""
    enclave = edmm.augmented()
    hold(enclave.bare, enclave.pages[HEAP], 0, exclusive=False)
    assert edmm.eaccept(enclave, HEAP, AUGMENTED) == 0
