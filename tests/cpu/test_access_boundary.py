"""Accesses over a page boundary and the end of ELRANGE: each part is checked by itself."""

from typing import Final

import pytest

from softsgx.cpu import Bare, Fault, LogicalProcessor, Readings
from softsgx.cpu.bare import BareEnclave
from softsgx.events.cpu import AccessFaulted
from softsgx.sim import Event
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import REG, RWX, VALID, R
from tests.cpu import edmm
from tests.cpu.accesses import alias
from tests.cpu.changes import NOTHING, Changes, changes
from tests.cpu.edmm import BASE, DATA, DATA2, RAM, word

SIZE: Final = 1 << 15  # an enclave without a hole: its last page ends with ELRANGE
END: Final = BASE + SIZE
LAST: Final = END - PAGE_SIZE
RAM_PFN: Final = RAM >> 12
HALVES: Final = b"8 before" + b"8 beyond"


def full(readings: Readings | None = None) -> tuple[BareEnclave, LogicalProcessor]:
    """A running enclave that fills its ELRANGE, the last page with every right."""
    enclave = Bare(16, readings=readings or Readings()).enclave(pages=4, size=SIZE)
    word(VALID | REG | RWX)(enclave, LAST)
    lp = edmm.inside(enclave)
    enclave.enter(lp)
    return enclave, lp


def refused(lp: LogicalProcessor, store_at: int) -> Fault:
    """The fault of a store of HALVES around an address; nothing of it was written."""
    faults = []

    def store() -> None:
        with pytest.raises(Fault) as caught:
            lp.store(store_at - 8, HALVES)
        faults.append(caught.value)

    assert changes(lp.processor, store) == NOTHING
    return faults[0]


def test_data_over_the_end_of_elrange_is_split() -> None:
    """The part inside is checked by the EPCM, the part outside by the page tables alone."""
    enclave, lp = full()
    edmm.not_epc(enclave, END)
    page = enclave.pages[LAST]
    assert changes(lp.processor, lambda: lp.store(END - 8, HALVES)) == Changes(
        contents={page: bytes(PAGE_SIZE - 8) + HALVES[:8]}, ram=(RAM_PFN,)
    )
    assert lp.load(END - 8, 16) == HALVES
    assert lp.processor.memory.read(RAM, 8) == HALVES[8:]


def test_data_over_the_start_of_elrange_is_split() -> None:
    """The first page of the enclave is its TCS, which no access may touch."""
    enclave, lp = full()
    edmm.not_epc(enclave, BASE - PAGE_SIZE)
    assert lp.load(BASE - 8, 8) == bytes(8)
    fault = refused(lp, BASE)
    assert (fault.rule, fault.code, fault.address) == ("ACCESS.06", 0x8007, BASE)


def test_over_the_end_into_an_alias_the_second_part_is_the_abort_page() -> None:
    enclave, lp = full()
    alias(enclave, END)
    page = enclave.pages[LAST]
    assert changes(lp.processor, lambda: lp.store(END - 8, HALVES)) == Changes(
        contents={page: bytes(PAGE_SIZE - 8) + HALVES[:8]}
    )
    assert lp.load(END - 8, 16) == HALVES[:8] + b"\xff" * 8


def test_if_the_part_outside_faults_nothing_is_written() -> None:
    """An ordinary fault, at the boundary."""
    _, lp = full()
    fault = refused(lp, END)
    assert (fault.rule, fault.code, fault.address) == ("PAGING.01", 0x6, END)


def test_if_the_part_inside_faults_nothing_is_written() -> None:
    """A refusal of the EPCM, at the first byte."""
    enclave, lp = full()
    edmm.not_epc(enclave, END)
    word(VALID | REG | R)(enclave, LAST)
    fault = refused(lp, END)
    assert (fault.rule, fault.code, fault.address) == ("ACCESS.12", 0x8007, END - 8)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_fetch_over_the_end_of_elrange_is_gp(mapped: bool) -> None:
    enclave, lp = full()
    if mapped:
        edmm.not_epc(enclave, END)
    assert lp.fetch(END - 8, 8) == bytes(8)
    with pytest.raises(Fault) as caught:
        lp.fetch(END - 8, 9)
    assert (caught.value.vector, caught.value.rule) == (13, "ACCESS.01")


def test_a_fetch_over_the_start_of_elrange_is_gp() -> None:
    enclave, lp = full()
    edmm.not_epc(enclave, BASE - PAGE_SIZE)
    with pytest.raises(Fault) as caught:
        lp.fetch(BASE - 1, 2)
    assert (caught.value.vector, caught.value.rule) == (13, "ACCESS.01")


@pytest.mark.parametrize("gp_first", [False, True])
@pytest.mark.parametrize("beyond", ["mapped", "not mapped"])
def test_reading_fetch_split_gp_first(gp_first: bool, beyond: str) -> None:
    """Neither half may be executed: whose fault it is. The half outside is #GP(0) either way."""
    enclave, lp = full(Readings(fetch_split_gp_first=gp_first))
    if beyond == "mapped":
        edmm.not_epc(enclave, END)
    assert lp.fetch(END - 8, 8) == bytes(8)
    with pytest.raises(Fault) as caught:
        lp.fetch(END - 8, 9)
    assert (caught.value.vector, caught.value.code) == (13, 0)
    word(VALID | REG | R)(enclave, LAST)
    edmm.reenter(enclave)
    with pytest.raises(Fault) as caught:
        lp.fetch(END - 8, 9)
    split = caught.value
    if gp_first:
        assert (split.vector, split.rule) == (13, "ACCESS.14")
    else:
        assert (split.rule, split.code, split.address) == ("ACCESS.12", 0x8015, END - 8)
    with pytest.raises(Fault) as caught:
        lp.fetch(END - 8, 8)
    assert caught.value.rule == "ACCESS.12"


def test_a_refused_split_fetch_is_logged_once() -> None:
    _, lp = full(Readings(fetch_split_gp_first=True))
    told: list[Event] = []
    lp.log.subscribe(told.append)
    with pytest.raises(Fault):
        lp.fetch(END - 8, 9)
    assert [(e.rule, e.linear) for e in told if isinstance(e, AccessFaulted)] == [
        ("ACCESS.14", END - 8)
    ]


def test_over_a_page_boundary_the_fault_names_the_second_page() -> None:
    enclave, lp = full()
    edmm.blocked(enclave, DATA2)
    with pytest.raises(Fault) as caught:
        lp.load(DATA2 - 1, 2)
    read = caught.value
    assert (read.rule, read.code, read.address) == ("ACCESS.09", 0x8005, DATA2)
    written = refused(lp, DATA2)
    assert (written.rule, written.code, written.address) == ("ACCESS.09", 0x8007, DATA2)


def test_over_three_pages_every_page_is_checked() -> None:
    enclave, lp = full()
    data = bytes(range(256)) * 20
    lp.store(DATA + 0x800, data)
    assert lp.load(DATA + 0x800, len(data)) == data
    edmm.blocked(enclave, DATA2)
    edmm.reenter(enclave)
    with pytest.raises(Fault, match=r"ACCESS\.09"):
        lp.store(DATA + 0x800, data)
    assert lp.load(DATA + 0x800, 0x800) == data[:0x800]
