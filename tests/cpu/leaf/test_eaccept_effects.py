"""EACCEPT: what success does, and when tracking is complete. SDM 3D, EACCEPT."""

import pytest

from softsgx.cpu import Bare, Fault, Readings
from softsgx.cpu.bare import BareEnclave
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import MODIFIED, PENDING, PR, REG, RWX, TCS, TRIM, VALID, R, W, X
from softsgx.spec.leaves import EACCEPT
from softsgx.spec.status import (
    SGX_PAGE_ATTRIBUTES_MISMATCH,
    SGX_PAGE_NOT_TRACKED,
    SGX_PREV_TRK_INCMPL,
)
from tests.cpu import edmm
from tests.cpu.changes import Changes, success
from tests.cpu.edmm import DATA, HEAP, SCRATCH, etrack, inside, reenter, word
from tests.cpu.table import Attempt


def attempt(enclave: BareEnclave, address: int, flags: int) -> Attempt:
    """EACCEPT by the thread inside."""
    lp = inside(enclave)
    return Attempt(lp, "enclu", EACCEPT, enclave.secinfo(flags, lp), address)


def accepted(enclave: BareEnclave, address: int, flags: int) -> Changes:
    """What a successful EACCEPT changed."""
    return success(attempt(enclave, address, flags), writes_rax=True)


# Effects


def test_eaccept_of_a_pending_page_clears_pending_alone() -> None:
    enclave = edmm.augmented()
    page = enclave.pages[HEAP]
    assert accepted(enclave, HEAP, REG | PENDING | R | W) == Changes(words={page: VALID | REG | 3})


@pytest.mark.parametrize("rights", [0, R, R | W])
def test_eaccept_of_a_restricted_page_clears_pr_and_the_stamp(rights: int) -> None:
    enclave = edmm.running()
    page = enclave.pages[DATA]
    enclave.bare.emodpr(page, rights)
    etrack(enclave)
    assert accepted(enclave, DATA, REG | PR | rights) == Changes(
        words={page: VALID | REG | rights}, stamps={page: 0}
    )


def test_eaccept_of_a_trimmed_page_clears_modified_alone() -> None:
    """The page stays VALID and inaccessible until EREMOVE, which then works with a thread inside;
    of a page that is not accepted it does not."""
    enclave = edmm.running()
    page, lp = enclave.pages[DATA], inside(enclave)
    enclave.bare.emodt(page, TRIM)
    etrack(enclave)
    assert enclave.bare.eremove(page) == 14
    assert accepted(enclave, DATA, TRIM | MODIFIED) == Changes(
        words={page: VALID | TRIM}, stamps={page: 0}
    )
    with pytest.raises(Fault) as caught:
        lp.load(DATA, 1)
    assert (caught.value.rule, caught.value.code) == ("ACCESS.06", 0x8005)
    assert enclave.bare.eremove(page) == 0
    assert enclave.bare.word(page) == 0


def test_eaccept_of_a_tcs_page_clears_modified_alone_and_the_tcs_can_be_entered() -> None:
    enclave = edmm.running(lps=3)
    page = enclave.pages[DATA]
    # The second thread borrows the unused second frame of the first thread's SSA stack.
    edmm.thread_page(OSSA=edmm.SSA + PAGE_SIZE - edmm.BASE)(enclave, DATA)
    assert accepted(enclave, DATA, TCS | MODIFIED) == Changes(
        words={page: VALID | TCS}, stamps={page: 0}
    )
    third = enclave.bare.processor.lps[2]
    enclave.tcs.append(DATA)
    enclave.enter(third, thread=1)
    assert third.tcs_page == page


@pytest.mark.parametrize("needs_nssa", [False, True])
def test_reading_eaccept_needs_nssa(needs_nssa: bool) -> None:
    """A page of zeroes has NSSA = 0, so CSSA is not below it: Intel's own tests make such a TCS.

    Nobody can enter it: EENTER tests NSSA in any case.
    """
    enclave = edmm.running(lps=3, readings=Readings(eaccept_needs_nssa=needs_nssa))
    enclave.bare.emodt(enclave.pages[DATA], TCS)
    etrack(enclave)
    if needs_nssa:
        with pytest.raises(Fault, match=r"EACCEPT\.24"):
            edmm.eaccept(enclave, DATA, TCS | MODIFIED)
        assert edmm.entry(enclave, DATA) == VALID | TCS | MODIFIED
    else:
        assert edmm.eaccept(enclave, DATA, TCS | MODIFIED) == 0
        enclave.tcs.append(DATA)
        with pytest.raises(Fault, match=r"EENTER\.09"):
            enclave.enter(enclave.bare.processor.lps[2], thread=1)
    edmm.thread_page()(enclave, edmm.DATA2)
    assert edmm.eaccept(enclave, edmm.DATA2, TCS | MODIFIED) == 0


@pytest.mark.parametrize(
    "fields",
    [{"FLAGS": 2}, {"FSLIMIT": 1, "GSLIMIT": 2}, {"CSSA": 1, "NSSA": 2}, {"OSSA": 8}],
)
def test_eaccept_leaves_the_other_tcs_fields_to_entry(fields: dict[str, int]) -> None:
    """AEXNOTIFY is a defined flag, the limits matter in 32-bit mode, offsets are entry's."""
    enclave = edmm.running()
    edmm.thread_page(**fields)(enclave, DATA)
    assert edmm.eaccept(enclave, DATA, TCS | MODIFIED) == 0


def test_eaccept_takes_a_secinfo_anywhere_in_its_page() -> None:
    enclave = edmm.augmented()
    lp = inside(enclave)
    lp.store(SCRATCH + PAGE_SIZE - 64, (REG | PENDING | R | W).to_bytes(64, "little"))
    assert lp.enclu(EACCEPT, SCRATCH + PAGE_SIZE - 64, HEAP) == 0


def test_a_page_may_hold_the_secinfo_of_its_own_acceptance() -> None:
    """A restricted page with PR = 1 is a legal operand."""
    enclave = edmm.running()
    lp = inside(enclave)
    lp.store(DATA, (REG | PR | R).to_bytes(64, "little"))
    enclave.bare.emodpr(enclave.pages[DATA], R)
    etrack(enclave)
    assert lp.enclu(EACCEPT, DATA, DATA) == 0
    assert edmm.entry(enclave, DATA) == VALID | REG | R


# What is compared


@pytest.mark.parametrize("asked", range(8))
@pytest.mark.parametrize("held", range(8))
def test_eaccept_wants_the_rights_exactly_and_changes_none(held: int, asked: int) -> None:
    """Neither "at most" nor "at least"."""
    enclave = edmm.running()
    word(VALID | REG | PR | held)(enclave, DATA)
    equal = held == asked
    expected = 0 if equal else SGX_PAGE_ATTRIBUTES_MISMATCH
    assert edmm.eaccept(enclave, DATA, REG | PR | asked) == expected
    assert edmm.entry(enclave, DATA) == VALID | REG | held | (0 if equal else PR)


@pytest.mark.parametrize("asked", [0, PR])
@pytest.mark.parametrize("held", [0, PR])
def test_eaccept_does_not_compare_pr(held: int, asked: int) -> None:
    """Of a page that is PENDING, so that either value of SECINFO.PR is legal."""
    enclave = edmm.augmented()
    word(VALID | REG | PENDING | held | R | W)(enclave, HEAP)
    assert edmm.eaccept(enclave, HEAP, REG | PENDING | asked | R | W) == 0
    assert edmm.entry(enclave, HEAP) == VALID | REG | R | W


def test_eaccept_with_pr_of_a_page_never_restricted_succeeds_without_effect() -> None:
    enclave = edmm.running()
    assert accepted(enclave, DATA, REG | PR | R | W) == Changes()


def test_eaccept_at_another_address_is_a_mismatch() -> None:
    enclave = edmm.augmented()
    enclave.map(HEAP + PAGE_SIZE, enclave.pages[HEAP])
    flags = REG | PENDING | R | W
    assert edmm.eaccept(enclave, HEAP + PAGE_SIZE, flags) == SGX_PAGE_ATTRIBUTES_MISMATCH
    assert edmm.eaccept(enclave, HEAP, flags) == 0


# Tracking


def restricted(**options: Readings | int) -> BareEnclave:
    """A running enclave whose DATA was just restricted to R."""
    enclave = edmm.running(**options)
    enclave.bare.emodpr(enclave.pages[DATA], R)
    return enclave


def accept_r(enclave: BareEnclave) -> int:
    """EACCEPT of DATA restricted to R; RAX."""
    return edmm.eaccept(enclave, DATA, REG | PR | R)


def test_eaccept_verifies_the_restriction_and_does_not_apply_it() -> None:
    """The EPCM has it at once; only a translation from before is wider."""
    enclave = edmm.running()
    lp = inside(enclave)
    lp.store(DATA, b"a")
    enclave.bare.emodpr(enclave.pages[DATA], R)
    assert edmm.entry(enclave, DATA) == VALID | REG | PR | R
    lp.store(DATA, b"b")
    assert accept_r(enclave) == SGX_PAGE_NOT_TRACKED
    etrack(enclave)
    before = edmm.entry(enclave, DATA)
    assert accept_r(enclave) == 0
    assert edmm.entry(enclave, DATA) == before & ~PR


def test_the_thread_that_accepts_must_itself_have_left_after_the_etrack() -> None:
    enclave = restricted()
    reenter(enclave)
    assert accept_r(enclave) == SGX_PAGE_NOT_TRACKED  # it left, but before the ETRACK
    assert enclave.bare.etrack(enclave.secs) == 0
    assert accept_r(enclave) == SGX_PAGE_NOT_TRACKED  # ETRACK, but it has not left since
    reenter(enclave)
    assert accept_r(enclave) == 0


@pytest.mark.parametrize("way", ["EEXIT", "AEX"])
def test_an_exit_of_either_kind_counts_as_having_left(way: str) -> None:
    enclave = restricted()
    lp = inside(enclave)
    enclave.bare.etrack(enclave.secs)
    if way == "AEX":
        lp.interrupt()
        enclave.resume(lp)
    else:
        reenter(enclave)
    assert accept_r(enclave) == 0


def test_etrack_before_the_restriction_does_not_count() -> None:
    enclave = edmm.running()
    etrack(enclave)
    enclave.bare.emodpr(enclave.pages[DATA], R)
    reenter(enclave)
    assert accept_r(enclave) == SGX_PAGE_NOT_TRACKED


def test_a_thread_that_enters_after_the_etrack_does_not_matter() -> None:
    enclave = edmm.built(lps=2)
    enclave.bare.emodpr(enclave.pages[DATA], R)
    enclave.bare.etrack(enclave.secs)
    enclave.enter(inside(enclave))
    assert accept_r(enclave) == 0


def test_two_restrictions_may_share_one_etrack() -> None:
    enclave = restricted()
    enclave.bare.emodpr(enclave.pages[edmm.DATA2], R)
    etrack(enclave)
    assert accept_r(enclave) == 0
    assert edmm.eaccept(enclave, edmm.DATA2, REG | PR | R) == 0


def test_two_cycles_later_the_page_is_tracked_whoever_is_inside() -> None:
    """Stamp epoch <= EPOCH - 2: the second ETRACK succeeded, so the first cycle is complete."""
    enclave = restricted()
    etrack(enclave)
    assert enclave.bare.etrack(enclave.secs) == 0
    assert enclave.bare.etrack(enclave.secs) == SGX_PREV_TRK_INCMPL
    assert accept_r(enclave) == 0


def test_a_thread_of_another_enclave_does_not_matter() -> None:
    enclave = edmm.running(lps=3)
    other = Bare(processor=enclave.bare.processor).enclave(base=edmm.BASE + (1 << 32))
    other.enter(enclave.bare.processor.lps[2])
    enclave.bare.emodpr(enclave.pages[DATA], R)
    etrack(enclave)
    assert accept_r(enclave) == 0


# Readings


@pytest.mark.parametrize(("needed", "rax"), [(True, SGX_PAGE_NOT_TRACKED), (False, 0)])
def test_reading_etrack_needed_when_empty(needed: bool, rax: int) -> None:
    """Nobody was inside when the page was restricted, so nobody can hold an old translation."""
    enclave = edmm.built(readings=Readings(etrack_needed_when_empty=needed))
    enclave.bare.emodpr(enclave.pages[DATA], R)
    enclave.enter(inside(enclave))
    assert accept_r(enclave) == rax


@pytest.mark.parametrize("needed", [True, False])
def test_reading_etrack_needed_when_empty_frees_nobody_who_was_inside(needed: bool) -> None:
    enclave = restricted(readings=Readings(etrack_needed_when_empty=needed))
    reenter(enclave)
    assert accept_r(enclave) == SGX_PAGE_NOT_TRACKED


@pytest.mark.parametrize(("needed", "rax"), [(True, SGX_PAGE_NOT_TRACKED), (False, 0)])
def test_reading_etrack_needed_when_empty_forgets_an_older_stamp(needed: bool, rax: int) -> None:
    """Restricted with a thread inside, and again when it had left: nothing old is left either."""
    enclave = restricted(readings=Readings(etrack_needed_when_empty=needed))
    enclave.exit(inside(enclave))
    enclave.bare.emodpr(enclave.pages[DATA], R)
    enclave.enter(inside(enclave))
    assert accept_r(enclave) == rax


@pytest.mark.parametrize(("counts", "rax"), [(True, SGX_PAGE_NOT_TRACKED), (False, 0)])
def test_reading_late_entry_counts(counts: bool, rax: int) -> None:
    """The thread entered between EMODPR and ETRACK, and has not left since."""
    enclave = edmm.built(readings=Readings(late_entry_counts=counts))
    enclave.bare.emodpr(enclave.pages[DATA], R)
    enclave.enter(inside(enclave))
    enclave.bare.etrack(enclave.secs)
    assert accept_r(enclave) == rax


def test_reading_late_entry_counts_still_counts_who_was_inside() -> None:
    enclave = restricted(readings=Readings(late_entry_counts=False))
    enclave.bare.etrack(enclave.secs)
    assert accept_r(enclave) == SGX_PAGE_NOT_TRACKED


@pytest.mark.parametrize(("tracked", "rax"), [(True, 0), (False, SGX_PAGE_NOT_TRACKED)])
def test_reading_reloaded_tracked(tracked: bool, rax: int) -> None:
    """A restricted page was evicted and loaded again; PR survived, no translation can have."""
    enclave = edmm.built(readings=Readings(reloaded_tracked=tracked))
    bare, page = enclave.bare, enclave.pages[DATA]
    bare.emodpr(page, R)
    va, backing = bare.epa(), bare.backing()
    assert (bare.eblock(page), bare.etrack(enclave.secs)) == (0, 0)
    assert bare.ewb(page, va, 0, backing) == 0
    page, status = bare.eld(backing, va, 0, enclave.secs)
    assert (status, bare.word(page)) == (0, VALID | REG | PR | R)
    enclave.map(DATA, page)
    enclave.enter(inside(enclave))
    assert accept_r(enclave) == rax


def test_eaccept_does_not_flush_the_tlb() -> None:
    """A stale, wider translation would outlive it; that is why tracking is verified first."""
    enclave = edmm.augmented()
    lp = inside(enclave)
    lp.load(DATA, 1)
    entries, flushes = dict(lp.tlb.entries), lp.tlb.flushes
    assert edmm.eaccept(enclave, HEAP, REG | PENDING | R | W) == 0
    assert (lp.tlb.flushes, lp.tlb.holds(DATA)) == (flushes, entries[DATA >> 12] & 0xFFF)
    lp.store(HEAP, b"new")
    assert lp.load(HEAP, 3) == b"new"


def test_eaccept_grants_no_right_that_secinfo_asks_for() -> None:
    enclave = edmm.augmented()
    assert edmm.eaccept(enclave, HEAP, REG | PENDING | RWX) == SGX_PAGE_ATTRIBUTES_MISMATCH
    assert edmm.entry(enclave, HEAP) & X == 0
