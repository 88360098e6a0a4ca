"""Translations that the TLB keeps: wider or narrower than what the tables say by now.

SDM 3D, 38.3 "Access-control Requirements"; SDM 3A, 4.10.4.3 "Optional Invalidation".

Neither EPCM nor page tables reach into a TLB. Wider ones are what tracking is for; a narrower one
may cause one spurious fault.
"""

from collections.abc import Callable
from typing import Final

import pytest

from softsgx.cpu import Bare, LogicalProcessor, Readings
from softsgx.cpu.bare import BareEnclave
from softsgx.mem.pagetable import AddressSpace
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.spec.epcm import PENDING, REG, RWX, TCS, TRIM, VALID, R, W, X
from tests.cpu import edmm
from tests.cpu.accesses import Access, AccessRow, fault_of, perform, row_name, run_access
from tests.cpu.edmm import DATA, OUTSIDE, RAM, word
from tests.cpu.table import gp, pf

Change = Callable[[BareEnclave, int], object]


def warm(**options: Readings) -> tuple[BareEnclave, LogicalProcessor]:
    """A running enclave whose thread holds a translation of DATA with every right."""
    enclave = edmm.running(**options)
    word(VALID | REG | RWX)(enclave, DATA)
    lp = edmm.inside(enclave)
    lp.store(DATA, b"before")
    assert lp.tlb.holds(DATA) == READ | WRITE | FETCH
    return enclave, lp


def emodpr(enclave: BareEnclave, address: int) -> object:
    return enclave.bare.emodpr(enclave.pages[address], 0)


def eblock(enclave: BareEnclave, address: int) -> object:
    return enclave.bare.eblock(enclave.pages[address])


# Wider than the tables

NARROWER: Final[list[tuple[str, Change, str, int]]] = [
    ("EMODPR", emodpr, "ACCESS.12", 0x8007),
    ("EBLOCK", eblock, "ACCESS.09", 0x8007),
    ("EMODT TRIM", edmm.retyped(TRIM), "ACCESS.06", 0x8007),
    ("EMODT TCS", edmm.retyped(TCS), "ACCESS.06", 0x8007),
    ("PTE gone", edmm.unmapped, "PAGING.01", 0x6),
    ("PTE read-only", edmm.read_only, "PAGING.03", 0x7),
    ("PTE to RAM", edmm.not_epc, "ACCESS.04", 0x8007),
]


def exit_and_enter(enclave: BareEnclave, lp: LogicalProcessor) -> None:
    enclave.exit(lp)
    enclave.enter(lp)


def interrupt_and_resume(enclave: BareEnclave, lp: LogicalProcessor) -> None:
    assert lp.interrupt().from_enclave
    enclave.resume(lp)


@pytest.mark.parametrize("flush", [exit_and_enter, interrupt_and_resume])
@pytest.mark.parametrize(("note", "narrow", "rule", "code"), NARROWER)
def test_a_wider_translation_serves_until_the_thread_has_left(
    note: str,
    narrow: Change,
    rule: str,
    code: int,
    flush: Callable[[BareEnclave, LogicalProcessor], None],
) -> None:
    enclave, lp = warm()
    narrow(enclave, DATA)
    lp.store(DATA, b"during")
    assert lp.load(DATA, 6) == lp.fetch(DATA, 6) == b"during", note
    flush(enclave, lp)
    fault = fault_of(Access(lp, WRITE, DATA))
    assert (fault.rule, fault.code) == (rule, code)


def test_only_the_processor_that_leaves_loses_its_translations() -> None:
    """Two threads inside; the interrupt of one does not help against the other."""
    bare = Bare(16, lps=3)
    enclave = bare.enclave(pages=1, threads=2)
    threads = bare.processor.lps[1:]
    for number, lp in enumerate(threads):
        enclave.enter(lp, thread=number)
        lp.store(enclave.data[0], b"a")
    bare.emodpr(enclave.pages[enclave.data[0]], R)
    threads[0].interrupt()
    enclave.resume(threads[0])
    assert fault_of(Access(threads[0], WRITE, enclave.data[0])).code == 0x8007
    threads[1].store(enclave.data[0], b"b")


def test_leaves_of_the_enclave_flush_nothing() -> None:
    """EACCEPT, EMODPE and EACCEPTCOPY work on the EPCM; what is cached stays cached."""
    enclave, lp = warm()
    enclave.eaug(edmm.HEAP)
    enclave.eaug(edmm.HEAP + 4096)
    edmm.eaccept(enclave, edmm.HEAP, REG | PENDING | R | W)
    enclave.emodpe(edmm.DATA2, X, lp)
    enclave.eacceptcopy(edmm.HEAP + 4096, DATA, REG | R, lp)
    assert lp.tlb.holds(DATA) == READ | WRITE | FETCH


def invlpg(lp: LogicalProcessor) -> None:
    lp.tlb.invlpg(OUTSIDE)


def mov_cr3(lp: LogicalProcessor) -> None:
    lp.load_cr3(lp.space)


@pytest.mark.parametrize("drop", [invlpg, mov_cr3])
def test_outside_a_translation_serves_until_the_kernel_drops_it(
    drop: Callable[[LogicalProcessor], None],
) -> None:
    enclave = edmm.built()
    lp = edmm.inside(enclave)
    edmm.not_epc(enclave, OUTSIDE)
    lp.load(OUTSIDE, 1)
    edmm.unmapped(enclave, OUTSIDE)
    lp.load(OUTSIDE, 1)
    drop(lp)
    assert fault_of(Access(lp, READ, OUTSIDE)).rule == "PAGING.01"


def test_entry_drops_the_translations_of_outside() -> None:
    """Before, DATA was the abort page; inside it is memory; and outside again the abort page."""
    enclave = edmm.built()
    lp = edmm.inside(enclave)
    seen = [lp.load(DATA, 1)]
    enclave.enter(lp)
    seen.append(lp.load(DATA, 1))
    enclave.exit(lp)
    seen.append(lp.load(DATA, 1))
    assert seen == [b"\xff", b"\0", b"\xff"]


def test_an_address_space_has_its_own_translations() -> None:
    enclave = edmm.built()
    lp = edmm.inside(enclave)
    lp.load(DATA, 1)
    lp.load_cr3(AddressSpace("empty"))
    assert fault_of(Access(lp, READ, DATA)).rule == "PAGING.01"


# A cached right to fetch is no right to leave the enclave


def test_a_cached_translation_does_not_permit_a_fetch_outside_elrange() -> None:
    """The page tables permit it, and a load has cached them."""
    enclave = edmm.running()
    lp = edmm.inside(enclave)
    edmm.not_epc(enclave, OUTSIDE)
    lp.load(OUTSIDE, 1)
    run_access(AccessRow("ACCESS.01", lambda: Access(lp, FETCH, OUTSIDE), gp()))


def test_nor_under_the_reading_that_asks_the_page_tables_first() -> None:
    enclave = edmm.running(readings=Readings(fetch_outside_elrange_first=False))
    lp = edmm.inside(enclave)
    edmm.not_epc(enclave, OUTSIDE)
    lp.load(OUTSIDE, 1)
    run_access(AccessRow("ACCESS.03", lambda: Access(lp, FETCH, OUTSIDE), gp()))


# Narrower than the tables


def narrow(right: int, **readings: bool) -> tuple[BareEnclave, Access]:
    """DATA was read when its EPCM entry lacked a right that EMODPE has added since."""
    enclave = edmm.running(readings=Readings(**readings))
    word(VALID | REG | (RWX & ~right if right == X else R))(enclave, DATA)
    lp = edmm.inside(enclave)
    lp.load(DATA, 1)
    enclave.emodpe(DATA, right, lp)
    return enclave, Access(lp, right, DATA)


ROWS = [
    AccessRow("ACCESS.13", lambda: narrow(W)[1], pf(DATA, 0x7), "W"),
    AccessRow("ACCESS.13", lambda: narrow(X)[1], pf(DATA, 0x15), "X"),
    AccessRow("ACCESS.13", lambda: narrow(W, stale_narrow_sgx=True)[1], pf(DATA, 0x8007), "W SGX"),
    AccessRow("ACCESS.13", lambda: narrow(X, stale_narrow_sgx=True)[1], pf(DATA, 0x8015), "X SGX"),
]


@pytest.mark.parametrize("row", ROWS, ids=row_name)
def test_a_narrower_translation_causes_a_fault_that_the_tables_do_not(row: AccessRow) -> None:
    run_access(row)


@pytest.mark.parametrize("right", [W, X])
def test_reading_stale_narrow_rewalks(right: int) -> None:
    """The other reading: the access walks again and succeeds."""
    _, access = narrow(right, stale_narrow_rewalks=True)
    perform(access)
    assert access.lp.tlb.holds(DATA) & right


@pytest.mark.parametrize("right", [W, X])
def test_after_the_spurious_fault_the_enclave_just_resumes(right: int) -> None:
    enclave, access = narrow(right)
    lp = access.lp
    assert lp.deliver_fault(fault_of(access)).from_enclave
    enclave.resume(lp)
    perform(access)


def test_the_fault_itself_drops_the_translation() -> None:
    _, access = narrow(W)
    fault_of(access)
    assert access.lp.tlb.holds(DATA) == 0
    perform(access)


@pytest.mark.parametrize(
    ("spoil", "rule", "code"),
    [
        (edmm.unmapped, "PAGING.01", 0x6),
        (edmm.read_only, "PAGING.03", 0x7),
        (edmm.blocked, "ACCESS.09", 0x8007),
        (edmm.not_epc, "ACCESS.04", 0x8007),
    ],
)
def test_if_the_tables_refuse_as_well_they_say_why(spoil: edmm.Spoil, rule: str, code: int) -> None:
    enclave, access = narrow(W)
    spoil(enclave, DATA)
    fault = fault_of(access)
    assert (fault.rule, fault.code) == (rule, code)


def test_outside_a_narrower_page_table_entry_does_the_same() -> None:
    """An ordinary process: the kernel granted W and flushed nothing."""
    lp = edmm.inside(edmm.built())
    lp.space.map(OUTSIDE, RAM >> 12, write=False)
    lp.load(OUTSIDE, 1)
    lp.space.map(OUTSIDE, RAM >> 12, write=True)
    run_access(AccessRow("ACCESS.13", lambda: Access(lp, WRITE, OUTSIDE), pf(OUTSIDE, 0x7)))
    lp.store(OUTSIDE, b"\1")
