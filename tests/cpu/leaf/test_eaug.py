"""EAUG: every check, their order, and what success does. SDM 3D, EAUG."""

from collections.abc import Callable
from typing import Final

import pytest

from softsgx.cpu import Fault, Part
from softsgx.mem.pagetable import direct
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.concurrency import CONCURRENCY
from softsgx.spec.epcm import (
    PENDING,
    PR,
    REG,
    RWX,
    SS_FIRST,
    SS_REST,
    TCS,
    TRIM,
    VALID,
    R,
    W,
)
from softsgx.spec.leaves import EAUG
from tests.cpu import edmm
from tests.cpu.changes import Changes, check_row, success
from tests.cpu.edmm import (
    BASE,
    DATA,
    ENCLS_PFEC,
    END,
    HEAP,
    OUTSIDE,
    RAM,
    epc_address,
)
from tests.cpu.table import Attempt, Row, gp, hold, pf, row_id

NO_CET: Final = Part(absent_leaves_fault=True)
SECS_PAGE, DATA_PAGE = 0, 5  # EPC page numbers in the enclave of `edmm`; later ones are free
FREE: Final = epc_address(20)


def case(
    *,
    rbx_off: int = 0,
    rcx: int = FREE,
    linaddr: int = HEAP,
    srcpge: int = 0,
    secinfo: int | None = None,
    secinfo_off: int = 0,
    tail: int = 0,
    secs: int | None = None,
    busy: int | None = None,
    shared: bool = False,
    init: bool = True,
    part: Part | None = None,
) -> Callable[[], Attempt]:
    """EAUG of a free page. `secinfo` are the FLAGS of a SECINFO that PAGEINFO points to."""

    def build() -> Attempt:
        enclave = edmm.built(init=init, part=part or Part())
        bare, pointer = enclave.bare, secinfo_off
        assert (enclave.secs, enclave.pages[DATA]) == (SECS_PAGE, DATA_PAGE)
        if secinfo is not None:
            pointer += bare.secinfo(secinfo)
            if tail:
                bare.lp.system_write(pointer + tail, b"\x01")
        parent = bare.address(enclave.secs) if secs is None else secs
        rbx = bare.pageinfo(linaddr=linaddr, srcpge=srcpge, secinfo=pointer, secs=parent)
        if busy is not None:
            hold(bare, busy, 0, exclusive=not shared)
        return Attempt(bare.lp, "encls", EAUG, rbx + rbx_off, rcx)

    return build


def pageinfo_in_epc() -> Attempt:
    """The PAGEINFO, legal as it is, lies in the EPC, where ENCLS reads ones."""
    attempt = case()()
    processor, lp = attempt.lp.processor, attempt.lp
    processor.memory.write(processor.epc.physical(21), lp.system_read(attempt.rbx, 32))
    return attempt._replace(rbx=epc_address(21))


PF_RCX = pf("rcx", ENCLS_PFEC)
ROWS = [
    Row("EAUG.01", case(rbx_off=16), gp()),
    Row("EAUG.02", case(rcx=FREE + 8), gp()),
    Row("EAUG.03", case(rcx=direct(RAM)), PF_RCX),
    Row("EAUG.04", case(secinfo=REG, secinfo_off=32), gp()),
    Row("EAUG.04", case(secinfo_off=1), gp(), "no pointer but 1"),
    Row("EAUG.04", pageinfo_in_epc, gp(), "PAGEINFO in the EPC"),
    Row("EAUG.05", case(secs=epc_address(SECS_PAGE) + 8), gp()),
    Row("EAUG.06", case(linaddr=HEAP + 8), gp()),
    Row("EAUG.07", case(srcpge=direct(RAM)), gp()),
    Row("EAUG.07", case(srcpge=1), gp(), "1"),
    Row("EAUG.08", case(secs=direct(RAM)), pf(direct(RAM), ENCLS_PFEC)),
    Row("EAUG.09", case(busy=20), gp()),
    Row("EAUG.09", case(busy=20, shared=True), gp(), "shared"),
    Row("EAUG.10", case(rcx=epc_address(DATA_PAGE)), PF_RCX),
    *(Row("EAUG.11", case(secinfo=REG | 1 << b), gp(), f"bit {b}") for b in (6, 7, 16, 63)),
    *(Row("EAUG.11", case(secinfo=REG, tail=at), gp(), f"byte {at}") for at in (8, 63)),
    *(
        Row("EAUG.12", case(secinfo=flags), gp(), f"{flags:#x}")
        for flags in (0, REG, REG | R | W, REG | PENDING, REG | RWX, TCS, TRIM)
    ),
    Row("EAUG.12", case(secinfo=SS_FIRST | R | W), gp(), "SS_FIRST without CET"),
    Row("EAUG.12", case(secinfo=SS_REST | R | W), gp(), "SS_REST without CET"),
    Row("EAUG.13", case(busy=SECS_PAGE), gp()),
    Row("EAUG.14", case(secs=epc_address(DATA_PAGE)), pf(epc_address(DATA_PAGE), ENCLS_PFEC)),
    Row("EAUG.14", case(secs=epc_address(21)), pf(epc_address(21), ENCLS_PFEC), "VALID = 0"),
    Row("EAUG.15", case(init=False), gp()),
    Row("EAUG.16", case(linaddr=END), gp(), "past"),
    Row("EAUG.16", case(linaddr=BASE - PAGE_SIZE), gp(), "before"),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eaug_refuses(row: Row) -> None:
    check_row(row)


USED, NOT_SECS = epc_address(DATA_PAGE), epc_address(21)
# Two conditions spoilt at once: the one that the listing names first is reported.
ORDER = [
    Row("EAUG.01", case(rbx_off=8, rcx=FREE + 8), gp(), "before 02"),
    Row("EAUG.02", case(rcx=direct(RAM) + 8), gp(), "before 03"),
    Row("EAUG.03", case(rcx=direct(RAM), srcpge=1), PF_RCX, "before 07"),
    Row("EAUG.06", case(linaddr=HEAP + 8, secs=direct(RAM)), gp(), "before 08"),
    Row("EAUG.08", case(secs=direct(RAM), busy=20), pf(direct(RAM), ENCLS_PFEC), "before 09"),
    Row("EAUG.09", case(rcx=USED, busy=DATA_PAGE), gp(), "before 10"),
    # The newer text: VALID and the place of the SECS come before the SECINFO.
    Row("EAUG.08", case(secs=direct(RAM), secinfo=REG), pf(direct(RAM), ENCLS_PFEC), "before 12"),
    Row("EAUG.10", case(rcx=USED, secinfo=REG | 1 << 6), PF_RCX, "before 11"),
    Row("EAUG.11", case(secinfo=TCS | 1 << 6), gp(), "before 12"),
    Row("EAUG.12", case(secinfo=REG, busy=SECS_PAGE), gp(), "before 13"),
    Row("EAUG.13", case(secs=NOT_SECS, busy=21), gp(), "before 14"),
    Row("EAUG.15", case(init=False, linaddr=END), gp(), "before 16"),
]


@pytest.mark.parametrize("row", ORDER, ids=row_id)
def test_eaug_tests_in_the_order_of_the_listing(row: Row) -> None:
    check_row(row)


def test_eaug_makes_a_zeroed_pending_page_of_r_and_w() -> None:
    """And nothing else: no measurement, no stamp, no RAX, no flags. X has to come later."""
    attempt = case()()
    processor = attempt.lp.processor
    processor.memory.write(processor.epc.physical(20), b"left by the last owner")
    children = processor.secs[SECS_PAGE].children
    assert success(attempt, writes_rax=False) == Changes(
        words={20: VALID | REG | PENDING | R | W},
        owners={20: (SECS_PAGE, HEAP)},
        contents={20: bytes(PAGE_SIZE)},
        secs={(SECS_PAGE, "children"): children + 1},
    )


@pytest.mark.parametrize("linaddr", [BASE, END - PAGE_SIZE])
def test_eaug_reaches_the_first_and_the_last_page_of_elrange(linaddr: int) -> None:
    assert success(case(linaddr=linaddr)(), writes_rax=False).owners == {20: (SECS_PAGE, linaddr)}


def test_eaug_needs_an_initialised_enclave_eadd_and_eextend_an_uninitialised_one() -> None:
    enclave = edmm.built(init=False)
    page = enclave.add(HEAP)
    enclave.bare.eextend(enclave.secs, page)
    with pytest.raises(Fault) as caught:
        enclave.eaug(HEAP + PAGE_SIZE)
    assert caught.value.rule == "EAUG.15"
    bare = enclave.bare
    assert bare.einit(enclave.secs, bare.sigstruct(enclave.secs)) == 0
    enclave.eaug(HEAP + PAGE_SIZE)
    with pytest.raises(Fault, match="EADD"):
        enclave.add(HEAP + 2 * PAGE_SIZE)
    with pytest.raises(Fault, match="EEXTEND"):
        bare.eextend(enclave.secs, page)


def test_eaug_yields_no_x_which_comes_from_emodpe_or_eacceptcopy() -> None:
    enclave = edmm.augmented()
    lp = edmm.inside(enclave)
    assert enclave.eacceptcopy(HEAP, DATA, REG | RWX, lp) == 0
    enclave.eaug(HEAP + PAGE_SIZE)
    assert edmm.eaccept(enclave, HEAP + PAGE_SIZE, REG | PENDING | RWX) == 19
    assert edmm.eaccept(enclave, HEAP + PAGE_SIZE, REG | PENDING | R | W) == 0
    enclave.emodpe(HEAP + PAGE_SIZE, RWX, lp)
    for address in (HEAP, HEAP + PAGE_SIZE):
        assert edmm.entry(enclave, address) == VALID | REG | RWX


def test_eaug_needs_no_etrack_before_acceptance() -> None:
    """The page was not VALID, so no translation of it can be stale; a thread is inside."""
    enclave = edmm.augmented()
    assert enclave.bare.processor.epcm.stamp[enclave.pages[HEAP]] == 0
    assert enclave.bare.processor.secs[enclave.secs].EPOCH == 0
    assert edmm.eaccept(enclave, HEAP, REG | PENDING | R | W) == 0


def test_eaug_does_not_refuse_an_address_that_has_a_page() -> None:
    """The enclave's defence is that it accepts an address once; the first page stays as it is."""
    enclave = edmm.running()
    first = enclave.pages[DATA]
    second = enclave.eaug(DATA)
    epcm = enclave.bare.processor.epcm
    assert [epcm.address[page] for page in (first, second)] == [DATA, DATA]
    assert enclave.bare.word(first) == VALID | REG | R | W
    assert enclave.bare.word(second) == VALID | REG | PENDING | R | W


def test_eaug_reads_its_operands_through_any_mapping_of_the_kernel() -> None:
    attempt = case()()
    space, epc = attempt.lp.space, attempt.lp.processor.epc
    space.map(OUTSIDE, epc.pfn(20), user=False)
    attempt.lp.encls(EAUG, attempt.rbx, OUTSIDE)
    assert attempt.lp.processor.epcm.state[20] == VALID | REG | PENDING | R | W


def test_two_eaugs_of_one_enclave_overlap() -> None:
    """They share the SECS; only the target is exclusive."""
    assert [claim.mode for claim in CONCURRENCY["EAUG"]] == ["exclusive", "shared"]
    attempt = case(busy=SECS_PAGE, shared=True)()
    assert attempt.lp.encls(EAUG, attempt.rbx, attempt.rcx) is None
    assert attempt.lp.processor.epcm.state[20] == VALID | REG | PENDING | R | W


def test_eaug_in_flight_with_one_page_as_target_and_secs() -> None:
    """A leaf does not conflict with itself: the target is VALID, which is #PF. Nothing is held."""
    attempt = case(rcx=epc_address(SECS_PAGE))()
    steps = attempt.lp.encls_steps(EAUG, attempt.rbx, attempt.rcx)
    next(steps)
    with pytest.raises(Fault) as caught:
        next(steps)
    assert (caught.value.rule, caught.value.address) == ("EAUG.10", attempt.rcx)
    assert attempt.lp.processor.claims == {}


def test_an_accepted_page_is_as_good_as_an_added_one() -> None:
    """PR and the stamp stay clear, so a later EMODPR starts from a clean entry."""
    enclave = edmm.augmented()
    assert edmm.eaccept(enclave, HEAP, REG | PENDING | R | W) == 0
    assert edmm.entry(enclave, HEAP) == edmm.entry(enclave, DATA) == VALID | REG | R | W
    assert enclave.bare.emodpr(enclave.pages[HEAP], R) == 0
    assert edmm.entry(enclave, HEAP) == VALID | REG | R | PR
