"""ERDINFO: every check, their order, and what it reports. SDM 3D, ERDINFO."""

from dataclasses import dataclass

import pytest

from softsgx.cpu import SGX1_PART, Bare, Fault, Readings
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PR, REG, RWX, TRIM, VALID, R, W, word_text
from softsgx.spec.leaves import EMODPR, ERDINFO, EREMOVE
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.registers import RAX, RFLAGS
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PG_INVLD, SGX_PG_NONEPC
from tests.cpu.paging import CHILD_WORDS, Paged, beside_registers, hold_open, paged, poke, ram
from tests.cpu.spoil import Spoil, Trials, spoil_id
from tests.cpu.table import Attempt, Row, code, execute, gp, hold, info, pf, row_id, run_row

CHILDPRESENT, VIRTCHILDPRESENT = 1 << 0, 1 << 1
MOVED = Readings(rdinfo_blocked_bit=40, rdinfo_childpresent_bit=5, rdinfo_virtchildpresent_bit=9)


@dataclass
class Trial:
    """ERDINFO of a data page."""

    machine: Paged
    page: int
    ram: int = 0
    rbx_off: int = 0
    rcx_off: int = 0


def fresh() -> Trial:
    machine = paged()
    return Trial(machine, machine.page)


def attempt(t: Trial) -> Attempt:
    bare = t.machine.bare
    rcx = (t.ram or bare.address(t.page)) + t.rcx_off
    return Attempt(bare.lp, "encls", ERDINFO, bare.rdinfo + t.rbx_off, rcx)


def misalign_rbx(t: Trial) -> None:
    t.rbx_off = 16


def misalign_rcx(t: Trial) -> None:
    t.rcx_off = 8


def not_epc(t: Trial) -> None:
    t.ram = t.machine.bare.source(b"")


def busy(t: Trial) -> None:
    hold(t.machine.bare, t.page, 0)


def free(t: Trial) -> None:
    t.machine.bare.processor.epcm.free(t.page)


SPOILS = [
    Spoil("ERDINFO.01", "rbx", misalign_rbx, gp()),
    Spoil("ERDINFO.02", "offset", misalign_rcx, gp()),
    # Not a fault: this leaf is for asking.
    Spoil("ERDINFO.03", "page", not_epc, info(SGX_PG_NONEPC)),
    Spoil("ERDINFO.04", "busy", busy, code(SGX_EPC_PAGE_CONFLICT)),
    Spoil("ERDINFO.05", "page", free, info(SGX_PG_INVLD)),
]
TRIALS = Trials(fresh, attempt)
ROWS = TRIALS.rows(SPOILS)


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_erdinfo_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("first", SPOILS[:-1], ids=spoil_id)
def test_erdinfo_order_of_checks(first: Spoil[Trial]) -> None:
    assert TRIALS.verify_order(SPOILS, first)


@pytest.mark.parametrize("row", ROWS[2:], ids=row_id)
def test_erdinfo_refusal_in_rax_changes_nothing_else(row: Row) -> None:
    a = row.build()
    before = beside_registers(a.lp)
    assert execute(a) == row.expected.value
    assert beside_registers(a.lp) == before


def test_erdinfo_faults_on_a_buffer_that_cannot_be_written() -> None:
    machine = paged()
    bare = machine.bare
    bare.processor.space.map(0x5000_0000, bare.processor.memory.alloc(), write=False)
    a = Attempt(bare.lp, "encls", ERDINFO, 0x5000_0000, bare.address(machine.page))
    run_row(Row("PAGING.06", lambda: a, pf("rbx", 3)))


def rdinfo(machine: Paged, page: int) -> tuple[int, int, int]:
    """STATUS, FLAGS and ENCLAVECONTEXT of a page. Only 24 bytes are written, RAX and flags are."""
    bare = machine.bare
    poke(bare, bare.rdinfo, b"\xa5" * 32)
    bare.lp.regs[RFLAGS] |= RFLAGS_STATUS
    before = [bare.word(p) for p in range(bare.processor.epcm.pages)]
    assert bare.lp.encls(ERDINFO, bare.rdinfo, bare.address(page)) == 0
    assert (bare.lp.regs[RAX], bare.lp.regs[RFLAGS] & RFLAGS_STATUS) == (0, 0)
    assert [bare.word(p) for p in range(bare.processor.epcm.pages)] == before
    raw = ram(bare, bare.rdinfo, 32)
    assert raw[24:] == b"\xa5" * 8
    first, second, third = (int.from_bytes(raw[at : at + 8], "little") for at in (0, 8, 16))
    return first, second, third


@pytest.mark.parametrize("blocked", [0, BLOCKED])
@pytest.mark.parametrize("word", [*CHILD_WORDS, VALID | REG | RWX | PR], ids=word_text)
def test_erdinfo_of_a_child_page(word: int, blocked: int) -> None:
    machine = paged()
    context = machine.bare.processor.epc.physical(machine.enclave.secs)
    machine.word(machine.page, word | blocked)
    # BLOCKED is reported at bit 6 of FLAGS (an open reading), all else where SECINFO has it.
    assert rdinfo(machine, machine.page) == (0, word & ~VALID | blocked, context)


def test_erdinfo_of_va_and_secs_pages() -> None:
    machine = paged()
    bare, secs = machine.bare, machine.enclave.secs
    context = bare.processor.epc.physical(secs)
    assert rdinfo(machine, machine.va) == (0, 0x300, 0)
    assert rdinfo(machine, secs) == (CHILDPRESENT, 0, context)
    bare.processor.secs[secs].VIRTCHILDCNT = 2
    # Outside of a guest VIRTCHILDCNT has a bit of its own.
    assert rdinfo(machine, secs) == (CHILDPRESENT | VIRTCHILDPRESENT, 0, context)
    for page in machine.enclave.pages.values():
        bare.eremove(page)
    assert rdinfo(machine, secs) == (VIRTCHILDPRESENT, 0, context)
    bare.processor.secs[secs].VIRTCHILDCNT = 0
    assert rdinfo(machine, secs) == (0, 0, context)


@pytest.mark.parametrize(
    ("readings", "bits"), [(Readings(), (6, 0, 1)), (MOVED, (40, 5, 9))], ids=["default", "moved"]
)
def test_reading_rdinfo_bit_positions(readings: Readings, bits: tuple[int, int, int]) -> None:
    machine = paged(readings=readings)
    secs = machine.enclave.secs
    machine.bare.processor.secs[secs].VIRTCHILDCNT = 1
    machine.word(machine.page, VALID | TRIM | MODIFIED | BLOCKED)
    blocked, child, virtchild = (1 << bit for bit in bits)
    assert rdinfo(machine, machine.page)[1] == TRIM | MODIFIED | blocked
    assert rdinfo(machine, secs)[0] == child | virtchild


@pytest.mark.parametrize(("leaf", "status"), [(EREMOVE, SGX_EPC_PAGE_CONFLICT), (EMODPR, 0)])
def test_erdinfo_shares_the_page(leaf: int, status: int) -> None:
    """EREMOVE takes the page exclusively, EMODPR shares it."""
    machine = paged(init=True)
    bare = machine.bare
    rbx = bare.secinfo(R) if leaf == EMODPR else 0
    steps = bare.processor.lps[1].encls_steps(leaf, rbx, bare.address(machine.page))
    finish = hold_open(steps)
    assert bare.lp.encls(ERDINFO, bare.rdinfo, bare.address(machine.page)) == status
    assert finish() == 0


def test_erdinfo_of_a_pending_page_of_a_running_enclave() -> None:
    machine = paged(init=True)
    page = machine.enclave.eaug(machine.enclave.heap)
    machine.enclave.enter()
    context = machine.bare.processor.epc.physical(machine.enclave.secs)
    lp = machine.bare.processor.lps[1]
    assert lp.encls(ERDINFO, machine.bare.rdinfo, machine.bare.address(page)) == 0
    raw = ram(machine.bare, machine.bare.rdinfo, 24)
    expected = (0, REG | PENDING | R | W, context)
    assert raw == b"".join(value.to_bytes(8, "little") for value in expected)


def test_erdinfo_is_absent_without_oversub() -> None:
    bare = Bare(16, part=SGX1_PART)
    page = bare.epa()
    with pytest.raises(Fault, match=r"ENCLS\.04"):
        bare.lp.encls(ERDINFO, bare.rdinfo, bare.address(page))
