"""EMODPR: every check, and what success does. SDM 3D, EMODPR."""

import pytest

from softsgx.cpu import Bare
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    REG,
    RWX,
    TCS,
    TRIM,
    VALID,
    R,
    W,
    X,
    word_text,
)
from softsgx.spec.leaves import EMODPR
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PAGE_NOT_MODIFIABLE
from tests.cpu.table import Attempt, Row, code, gp, hold, pf, row_id, run_row

ENCLS_PFEC = 0x8003


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


ROWS = [
    Row("EMODPR.01", lambda: simple(rbx_off=32), gp()),
    Row("EMODPR.02", lambda: simple(rcx_off=8), gp()),
    Row("EMODPR.03", not_epc, pf("rcx", ENCLS_PFEC)),
    Row("EMODPR.04", lambda: simple(rights=R | 1 << 6), gp(), "bit 6"),
    Row("EMODPR.04", lambda: simple(rights=R | 1 << 16), gp(), "bit 16"),
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
    Row("EMODPR.11", lambda: simple(init=False), gp()),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_emodpr_refuses(row: Row) -> None:
    run_row(row)


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
