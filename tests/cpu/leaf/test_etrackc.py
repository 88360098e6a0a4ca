"""ETRACKC: every check, their order. What it does to the epochs is in test_tracking."""

from dataclasses import dataclass

import pytest

from softsgx.cpu import SGX1_PART, Bare, Fault
from softsgx.spec.leaves import EREMOVE, ETRACK, ETRACKC
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RFLAGS
from softsgx.spec.status import (
    SGX_EPC_PAGE_CONFLICT,
    SGX_PG_INVLD,
    SGX_PREV_TRK_INCMPL,
    SGX_TRACK_NOT_REQUIRED,
)
from tests.cpu.paging import ENCLS_PFEC, Paged, beside_registers, hold_open, paged
from tests.cpu.spoil import Spoil, Trials, spoil_id
from tests.cpu.table import Attempt, Row, code, execute, gp, hold, info, pf, row_id, run_row


@dataclass
class Trial:
    """ETRACKC by a data page of an enclave with nobody inside."""

    machine: Paged
    page: int
    ram: int = 0
    rcx_off: int = 0


def fresh() -> Trial:
    machine = paged(init=True)
    return Trial(machine, machine.page)


def attempt(t: Trial) -> Attempt:
    bare = t.machine.bare
    return Attempt(bare.lp, "encls", ETRACKC, rcx=(t.ram or bare.address(t.page)) + t.rcx_off)


def misalign(t: Trial) -> None:
    t.rcx_off = 8


def not_epc(t: Trial) -> None:
    t.ram = t.machine.bare.source(b"")


def busy(t: Trial) -> None:
    hold(t.machine.bare, t.page, 0)


def free(t: Trial) -> None:
    t.page = t.machine.bare.free_page()


def va_page(t: Trial) -> None:
    t.page = t.machine.va


def tracking(t: Trial) -> None:
    hold(t.machine.bare, t.machine.enclave.secs, 3)


def incomplete(t: Trial) -> None:
    t.machine.enclave.enter(t.machine.bare.processor.lps[1])
    assert t.machine.bare.etrack(t.machine.enclave.secs) == 0


SPOILS = [
    Spoil("ETRACKC.01", "offset", misalign, gp()),
    # The sheet prints for this leaf that PFEC.SGX is set.
    Spoil("ETRACKC.02", "page", not_epc, pf("rcx", ENCLS_PFEC)),
    Spoil("ETRACKC.03", "busy", busy, code(SGX_EPC_PAGE_CONFLICT)),
    Spoil("ETRACKC.04", "page secs", free, code(SGX_PG_INVLD)),
    Spoil("ETRACKC.05", "page secs", va_page, info(SGX_TRACK_NOT_REQUIRED)),
    Spoil("ETRACKC.06", "tracking secs", tracking, code(SGX_EPC_PAGE_CONFLICT)),
    Spoil("ETRACKC.07", "cycle", incomplete, code(SGX_PREV_TRK_INCMPL)),
]
TRIALS = Trials(fresh, attempt)
ROWS = TRIALS.rows(SPOILS)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_etrackc_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", SPOILS[:-1], ids=spoil_id)
def test_etrackc_order_of_checks(first: Spoil[Trial]) -> None:
    assert TRIALS.verify_order(SPOILS, first)


@pytest.mark.parametrize("row", [r for r in ROWS if r.expected.kind == "code"], ids=row_id)
def test_etrackc_refusal_in_rax_changes_nothing_else(row: Row) -> None:
    a = row.build()
    before = beside_registers(a.lp)
    assert execute(a) == row.expected.value
    assert beside_registers(a.lp) == before


@pytest.mark.parametrize("which", ["data page", "TCS page", "SECS page"])
def test_etrackc_success_by_any_page_of_the_enclave(which: str) -> None:
    machine = paged()
    bare, enclave = machine.bare, machine.enclave
    page = {
        "data page": machine.page,
        "TCS page": enclave.pages[enclave.tcs[0]],
        "SECS page": enclave.secs,
    }[which]
    words = [bare.word(p) for p in range(bare.processor.epcm.pages)]
    bare.lp.regs[RFLAGS] |= RFLAGS_STATUS
    assert bare.etrackc(page) == 0
    assert (bare.lp.regs[RAX], bare.lp.regs[RFLAGS] & RFLAGS_STATUS) == (0, 0)
    assert bare.processor.secs[enclave.secs].EPOCH == 1
    assert [bare.word(p) for p in range(bare.processor.epcm.pages)] == words


@pytest.mark.parametrize("leaf", [ETRACK, ETRACKC])
def test_etrackc_waits_for_the_tracking_facility(leaf: int) -> None:
    machine = paged(pages=2)
    bare, enclave = machine.bare, machine.enclave
    other = enclave.pages[enclave.data[1]]
    rcx = bare.address(enclave.secs if leaf == ETRACK else other)
    finish = hold_open(bare.processor.lps[1].encls_steps(leaf, 0, rcx))
    run_row(Row("ETRACKC.06", lambda: attempt(Trial(machine, machine.page)), code(7)))
    assert finish() == 0
    assert bare.etrackc(machine.page) == 0


def test_etrackc_of_a_child_does_not_need_the_secs_page() -> None:
    """The SECS page is taken concurrently: only the tracking facility can be in the way."""
    machine = paged()
    bare, secs = machine.bare, machine.enclave.secs
    finish = hold_open(bare.processor.lps[1].encls_steps(EREMOVE, 0, bare.address(secs)))
    assert bare.etrackc(machine.page) == 0
    run_row(Row("ETRACKC.03", lambda: attempt(Trial(machine, secs)), code(7)))
    assert finish() == 13  # SGX_CHILD_PRESENT


def test_etrackc_is_absent_without_oversub() -> None:
    bare = Bare(16, part=SGX1_PART)
    page = bare.epa()
    with pytest.raises(Fault, match=r"ENCLS\.04"):
        bare.etrackc(page)
