"""ETRACK: every check, their order. What it does to the epochs is in test_tracking."""

from dataclasses import dataclass

import pytest

from softsgx.spec.leaves import EBLOCK, EREMOVE, ETRACK, ETRACKC
from softsgx.spec.status import SGX_PREV_TRK_INCMPL
from tests.cpu.paging import ENCLS_PFEC, Paged, beside_registers, hold_open, paged
from tests.cpu.spoil import Spoil, Trials, spoil_id
from tests.cpu.table import Attempt, Row, code, execute, gp, hold, pf, row_id, run_row


@dataclass
class Trial:
    """ETRACK of an enclave with nobody inside."""

    machine: Paged
    page: int
    ram: int = 0
    rcx_off: int = 0


def fresh() -> Trial:
    machine = paged(init=True)
    return Trial(machine, machine.enclave.secs)


def attempt(t: Trial) -> Attempt:
    bare = t.machine.bare
    return Attempt(bare.lp, "encls", ETRACK, rcx=(t.ram or bare.address(t.page)) + t.rcx_off)


def misalign(t: Trial) -> None:
    t.rcx_off = 8


def not_epc(t: Trial) -> None:
    t.ram = t.machine.bare.source(b"")


def used(t: Trial) -> None:
    hold(t.machine.bare, t.page, 0)


def tracking(t: Trial) -> None:
    hold(t.machine.bare, t.page, 3)


def free(t: Trial) -> None:
    t.page = t.machine.bare.free_page()


def data_page(t: Trial) -> None:
    t.page = t.machine.page


def va_page(t: Trial) -> None:
    t.page = t.machine.va


def incomplete(t: Trial) -> None:
    t.machine.enclave.enter(t.machine.bare.processor.lps[1])
    assert t.machine.bare.etrack(t.machine.enclave.secs) == 0


SPOILS = [
    Spoil("ETRACK.01", "offset", misalign, gp()),
    Spoil("ETRACK.02", "page", not_epc, pf("rcx", ENCLS_PFEC)),
    Spoil("ETRACK.03", "busy", used, gp(), "SECS"),
    Spoil("ETRACK.03", "busy", tracking, gp(), "tracking"),
    Spoil("ETRACK.04", "page", free, pf("rcx", ENCLS_PFEC), "free"),
    Spoil("ETRACK.04", "page", data_page, pf("rcx", ENCLS_PFEC), "REG"),
    Spoil("ETRACK.04", "page", va_page, pf("rcx", ENCLS_PFEC), "VA"),
    Spoil("ETRACK.05", "cycle", incomplete, code(SGX_PREV_TRK_INCMPL)),
]
TRIALS = Trials(fresh, attempt)
ROWS = TRIALS.rows(SPOILS)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_etrack_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", SPOILS[:-1], ids=spoil_id)
def test_etrack_order_of_checks(first: Spoil[Trial]) -> None:
    assert TRIALS.verify_order(SPOILS, first)


def test_etrack_code_17_changes_nothing() -> None:
    a = ROWS[-1].build()
    before = beside_registers(a.lp)
    assert execute(a) == SGX_PREV_TRK_INCMPL
    assert beside_registers(a.lp) == before


def test_etrack_needs_no_initialised_enclave() -> None:
    machine = paged(init=False)
    assert machine.bare.etrack(machine.enclave.secs) == 0
    assert machine.bare.processor.secs[machine.enclave.secs].EPOCH == 1


@pytest.mark.parametrize("leaf", [ETRACK, ETRACKC])
def test_two_tracking_leaves_on_one_enclave_conflict(leaf: int) -> None:
    machine = paged()
    bare = machine.bare
    rcx = bare.address(machine.enclave.secs if leaf == ETRACK else machine.page)
    finish = hold_open(bare.processor.lps[1].encls_steps(leaf, 0, rcx))
    run_row(Row("ETRACK.03", lambda: attempt(Trial(machine, machine.enclave.secs)), gp()))
    assert finish() == 0
    assert bare.etrack(machine.enclave.secs) == 0


@pytest.mark.parametrize(("leaf", "busy"), [(EREMOVE, True), (EBLOCK, False)])
def test_etrack_shares_the_secs_page(leaf: int, busy: bool) -> None:
    """EREMOVE takes the SECS page exclusively, EBLOCK shares it."""
    machine = paged()
    bare, secs = machine.bare, machine.enclave.secs
    finish = hold_open(bare.processor.lps[1].encls_steps(leaf, 0, bare.address(secs)))
    if busy:
        run_row(Row("ETRACK.03", lambda: attempt(Trial(machine, secs)), gp()))
    else:
        assert bare.etrack(secs) == 0
    assert finish() != 0
