"""EBLOCK: every check, their order, and what success does. SDM 3D, EBLOCK."""

from dataclasses import dataclass

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.spec.epcm import (
    BLOCKED,
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
from softsgx.spec.leaves import EBLOCK, ETRACK, ETRACKC
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RFLAGS
from softsgx.spec.status import (
    SGX_BLKSTATE,
    SGX_ENTRYEPOCH_LOCKED,
    SGX_EPC_PAGE_CONFLICT,
    SGX_NOTBLOCKABLE,
    SGX_PG_INVLD,
    SGX_PG_IS_SECS,
)
from tests.cpu.paging import ENCLS_PFEC, Paged, beside_registers, hold_open, paged, pattern
from tests.cpu.spoil import Spoil, Trials, spoil_id
from tests.cpu.table import Attempt, Row, code, execute, gp, hold, info, pf, row_id, run_row

LOCKED_LAST = Readings(eblock_locked_first=False)


@dataclass
class Trial:
    """EBLOCK of a data page that is not blocked."""

    machine: Paged
    page: int
    ram: int = 0
    rcx_off: int = 0


def fresh(readings: Readings | None = None) -> Trial:
    machine = paged(readings=readings)
    return Trial(machine, machine.page)


def attempt(t: Trial) -> Attempt:
    bare = t.machine.bare
    return Attempt(bare.lp, "encls", EBLOCK, rcx=(t.ram or bare.address(t.page)) + t.rcx_off)


def misalign(t: Trial) -> None:
    t.rcx_off = 8


def not_epc(t: Trial) -> None:
    t.ram = t.machine.bare.source(b"")


def busy(t: Trial) -> None:
    hold(t.machine.bare, t.page, 0)


def locked(t: Trial) -> None:
    hold(t.machine.bare, t.machine.enclave.secs, 3)


def free(t: Trial) -> None:
    t.page = t.machine.bare.free_page()


def secs_page(t: Trial) -> None:
    t.page = t.machine.enclave.secs


def va_page(t: Trial) -> None:
    t.page = t.machine.va


def blocked(t: Trial) -> None:
    t.machine.word(t.page, VALID | REG | R | W | BLOCKED)


SPOILS = [
    Spoil("EBLOCK.01", "offset", misalign, gp()),
    Spoil("EBLOCK.02", "page", not_epc, pf("rcx", ENCLS_PFEC)),
    Spoil("EBLOCK.03", "busy", busy, code(SGX_EPC_PAGE_CONFLICT)),
    # It is the parent that is locked; a free page, a SECS and a VA page have none.
    Spoil("EBLOCK.04", "locked kind", locked, code(SGX_ENTRYEPOCH_LOCKED)),
    Spoil("EBLOCK.05", "page kind word", free, code(SGX_PG_INVLD)),
    Spoil("EBLOCK.06", "page kind word", secs_page, info(SGX_PG_IS_SECS)),
    Spoil("EBLOCK.07", "page kind word", va_page, info(SGX_NOTBLOCKABLE)),
    Spoil("EBLOCK.08", "word", blocked, info(SGX_BLKSTATE)),
]
LATE_SPOILS = [
    SPOILS[-1],
    Spoil("EBLOCK.09", "locked", locked, code(SGX_ENTRYEPOCH_LOCKED)),
]
TRIALS = Trials(fresh, attempt)
LATE_TRIALS = Trials(lambda: fresh(LOCKED_LAST), attempt)

ROWS = [
    *TRIALS.rows(SPOILS),
    *LATE_TRIALS.rows(LATE_SPOILS[1:]),
    Row("EBLOCK.06", TRIALS.build(SPOILS[3], SPOILS[5]), info(SGX_PG_IS_SECS), "has no parent"),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_eblock_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", SPOILS[:-4], ids=spoil_id)
def test_eblock_order_of_checks(first: Spoil[Trial]) -> None:
    assert TRIALS.verify_order(SPOILS, first)


def test_eblock_order_when_the_epoch_lock_is_tested_last() -> None:
    assert LATE_TRIALS.verify_order(LATE_SPOILS, LATE_SPOILS[0]) == 1


@pytest.mark.parametrize("row", [r for r in ROWS if r.expected.kind == "code"], ids=row_id)
def test_eblock_refusal_in_rax_changes_nothing_else(row: Row) -> None:
    a = row.build()
    before = beside_registers(a.lp)
    assert execute(a) == row.expected.value
    assert beside_registers(a.lp) == before


@pytest.mark.parametrize("leaf", [ETRACK, ETRACKC])
@pytest.mark.parametrize(
    ("readings", "codes"), [(Readings(), [15, 18, 15]), (LOCKED_LAST, [15, 18, 3])]
)
def test_reading_eblock_locked_first(leaf: int, readings: Readings, codes: list[int]) -> None:
    """An ETRACK in flight; EBLOCK of an unblocked, a SECS and a blocked page on the other LP."""
    machine = paged(readings=readings, pages=2)
    bare, enclave = machine.bare, machine.enclave
    done = enclave.pages[enclave.data[1]]
    assert bare.eblock(done) == 0
    tracked = bare.address(enclave.secs if leaf == ETRACK else enclave.pages[enclave.scratch])
    finish = hold_open(bare.processor.lps[1].encls_steps(leaf, 0, tracked))
    assert [bare.eblock(page) for page in (machine.page, enclave.secs, done)] == codes
    assert finish() == 0
    assert bare.eblock(machine.page) == 0


def test_etrack_of_another_enclave_does_not_lock_the_epoch() -> None:
    machine = paged()
    bare = machine.bare
    other = bare.enclave(base=0x10_0000_0000, init=False)
    steps = bare.processor.lps[1].encls_steps(ETRACK, 0, bare.address(other.secs))
    finish = hold_open(steps)
    assert bare.eblock(machine.page) == 0
    assert finish() == 0


@pytest.mark.parametrize(
    "word",
    [
        *(VALID | REG | rights for rights in (0, R, R | W, RWX, R | X)),
        VALID | REG | R | W | PENDING,
        VALID | REG | R | PR,
        VALID | TCS,
        VALID | TCS | MODIFIED,
        VALID | TRIM | MODIFIED,
        VALID | TRIM,
    ],
    ids=word_text,
)
def test_eblock_sets_blocked_and_nothing_else(word: int) -> None:
    machine = paged()
    bare, page = machine.bare, machine.page
    machine.word(page, word)
    machine.fill(page, pattern(1))
    epcm = bare.processor.epcm
    kept = epcm.secs[page], epcm.address[page], bare.processor.secs[machine.enclave.secs].key()
    bare.lp.regs[RFLAGS] |= RFLAGS_STATUS
    assert bare.eblock(page) == 0
    assert (bare.lp.regs[RAX], bare.lp.regs[RFLAGS] & RFLAGS_STATUS) == (0, 0)
    assert bare.word(page) == word | BLOCKED
    assert machine.content(page) == pattern(1)
    now = epcm.secs[page], epcm.address[page], bare.processor.secs[machine.enclave.secs].key()
    assert now == kept


def test_eblock_stops_new_translations_and_leaves_old_ones() -> None:
    machine = paged(init=True)
    bare, enclave = machine.bare, machine.enclave
    address = enclave.data[0]
    enclave.enter()
    bare.lp.store(address, b"old")
    assert bare.eblock(machine.page, bare.processor.lps[1]) == 0
    # The translation of before serves on, also for writes.
    bare.lp.store(address, b"new")
    assert bare.lp.load(address, 3) == b"new"
    bare.lp.interrupt()
    enclave.resume()
    with pytest.raises(Fault) as caught:
        bare.lp.load(address, 3)
    assert (caught.value.rule, caught.value.code) == ("ACCESS.09", 0x8005)
