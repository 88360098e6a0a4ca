"""Access control: what is permitted, abort pages, accesses over a boundary.

SDM 3D, 38.3 "Access-control Requirements", 38.5 "Page-Based Access Control".
"""

from collections.abc import Callable
from typing import Final

import pytest

from softsgx.cpu import Readings
from softsgx.cpu.bare import BareEnclave
from softsgx.mem.pagetable import PTE_A, PTE_D
from softsgx.mem.tlb import CLEAN, FETCH, READ, WRITE
from softsgx.spec.epcm import PR, REG, RWX, TCS, TRIM, VALID, R, W, X
from tests.cpu import edmm
from tests.cpu.accesses import (
    KINDS,
    WRITTEN,
    Access,
    alias,
    fault_of,
    from_inside,
    from_outside,
    perform,
)
from tests.cpu.changes import NOTHING, Changes, changes
from tests.cpu.edmm import DATA, OUTSIDE, RAM, all_of, word

PAGE: Final = 5  # EPC page number of DATA
CONTENT: Final = b"secret"
kept: Final = edmm.holding(CONTENT)


def ram(enclave: BareEnclave, address: int) -> None:
    """Ordinary memory with known content, mapped with every right."""
    enclave.bare.processor.memory.write(RAM, CONTENT)
    edmm.not_epc(enclave, address)


def aliased(enclave: BareEnclave, address: int) -> None:
    """DATA is mapped here as well, and holds something."""
    kept(enclave, DATA)
    alias(enclave, address)


def wrote(access: Access) -> Changes:
    """What a store changed."""
    return changes(access.lp.processor, lambda: perform(access))


def page_of(content: bytes) -> bytes:
    """A page that starts with `content`."""
    return content + bytes(4096 - len(content))


def refused(access: Access) -> tuple[str, int]:
    """Rule and error code of the fault that an access causes."""
    fault = fault_of(access)
    return fault.rule, fault.code


# From outside


@pytest.mark.parametrize("address", [OUTSIDE, DATA])
def test_from_outside_ordinary_memory_is_ordinary(address: int) -> None:
    """At any address: ELRANGE means nothing to a processor that is not in enclave mode."""
    for kind in (READ, FETCH):
        assert perform(from_outside(kind, address, ram, size=6)()) == CONTENT
    assert wrote(from_outside(WRITE, address, ram)()).ram == (RAM >> 12,)


@pytest.mark.parametrize("kind", [READ, FETCH])
@pytest.mark.parametrize("address", [DATA, OUTSIDE])
def test_from_outside_the_epc_reads_as_ones(kind: int, address: int) -> None:
    assert perform(from_outside(kind, address, aliased, size=6)()) == b"\xff" * 6


@pytest.mark.parametrize("address", [DATA, OUTSIDE])
def test_from_outside_writes_to_the_epc_are_dropped(address: int) -> None:
    """No fault, no effect, and D is set as by any write."""
    access = from_outside(WRITE, address, aliased)()
    assert wrote(access) == NOTHING
    assert access.lp.space.lookup(address) & PTE_D


@pytest.mark.parametrize("entry", [0, VALID | TCS, VALID | TRIM, VALID | REG])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_from_outside_the_epcm_is_not_asked(kind: int, entry: int) -> None:
    spoil = word(entry) if entry else edmm.free
    got = perform(from_outside(kind, DATA, spoil)())
    assert got == (b"" if kind == WRITE else b"\xff")


def test_the_kernel_sees_the_abort_page_too() -> None:
    enclave = edmm.running()
    kept(enclave, DATA)
    lp, address = enclave.bare.lp, enclave.bare.address(PAGE)
    assert lp.system_read(address, 6) == b"\xff" * 6
    assert changes(lp.processor, lambda: lp.system_write(address, b"\0")) == NOTHING


def test_the_abort_page_obeys_the_page_tables() -> None:
    """A read cached its translation; the write must not find rights there that no entry gave."""
    for build, address in ((from_outside, DATA), (from_inside, OUTSIDE)):
        access = build(WRITE, address, all_of(aliased, narrow_alias))()
        access.lp.load(address, 1)
        assert refused(access) == ("PAGING.03", 0x7)


def narrow_alias(enclave: BareEnclave, address: int) -> None:
    """DATA is mapped here without W."""
    enclave.map(address, enclave.pages[DATA], write=False)


# From inside


def test_from_inside_data_outside_elrange_is_ordinary() -> None:
    assert perform(from_inside(READ, OUTSIDE, ram, size=6)()) == CONTENT
    assert wrote(from_inside(WRITE, OUTSIDE, ram)()).ram == (RAM >> 12,)


def test_from_inside_an_alias_outside_elrange_is_the_abort_page() -> None:
    """Even of a page of the same enclave."""
    assert perform(from_inside(READ, OUTSIDE, aliased, size=6)()) == b"\xff" * 6
    assert wrote(from_inside(WRITE, OUTSIDE, aliased)()) == NOTHING


@pytest.mark.parametrize("rights", [0, PR, PR | R])
def test_from_inside_the_page_itself_is_memory(rights: int) -> None:
    """PR is no reason to refuse: a page under restriction stays usable with the rights it has."""
    entry = word(VALID | REG | RWX | rights)
    assert perform(from_inside(READ, DATA, all_of(kept, entry), size=6)()) == CONTENT
    assert perform(from_inside(FETCH, DATA, all_of(kept, entry), size=6)()) == CONTENT
    assert wrote(from_inside(WRITE, DATA, entry)()) == Changes(contents={PAGE: page_of(WRITTEN)})


@pytest.mark.parametrize("held", [R, X, R | W, R | X, RWX])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_epcm_permits_exactly_its_rights(kind: int, held: int) -> None:
    """READ, WRITE and FETCH are R, W and X; X alone does not read."""
    access = from_inside(kind, DATA, word(VALID | REG | held))()
    if held & kind:
        assert perform(access) == (b"" if kind == WRITE else b"\0")
    else:
        assert fault_of(access).rule == "ACCESS.12"


@pytest.mark.parametrize("held", [0, R, X, R | W, R | X, RWX])
@pytest.mark.parametrize("mapped", [R, R | W, R | X, RWX])
def test_both_layers_must_agree(mapped: int, held: int) -> None:
    """An access needs the right of the page tables and that of the EPCM; the page tables speak
    first, so bit 15 says that they permitted it."""

    def narrow(enclave: BareEnclave, address: int) -> None:
        write, execute = bool(mapped & W), bool(mapped & X)
        enclave.map(address, enclave.pages[address], write=write, execute=execute)

    for kind in KINDS.values():
        access = from_inside(kind, DATA, all_of(word(VALID | REG | held), narrow))()
        if kind & mapped & held:
            perform(access)
            assert access.lp.tlb.holds(DATA) & kind
        else:
            assert bool(fault_of(access).code & 0x8000) == bool(kind & mapped)


# What a walk leaves in the page tables, and the TLB


@pytest.mark.parametrize(("kind", "bits"), [(READ, 0), (FETCH, 0), (WRITE, PTE_D)])
def test_an_access_sets_a_and_a_write_sets_d(kind: int, bits: int) -> None:
    access = from_inside(kind, DATA, clean)()
    perform(access)
    assert access.lp.space.lookup(DATA) & (PTE_A | PTE_D) == PTE_A | bits


def clean(enclave: BareEnclave, address: int) -> None:
    """A and D are clear."""
    enclave.map(address, enclave.pages[address])


def test_a_read_caches_the_rights_of_both_layers_but_a_write_waits_for_d() -> None:
    access = from_inside(READ, DATA, clean)()
    perform(access)
    assert access.lp.tlb.holds(DATA) == READ | FETCH | CLEAN
    perform(access._replace(kind=WRITE))
    assert access.lp.tlb.holds(DATA) == READ | FETCH | WRITE


def test_the_first_write_walks_again_and_asks_both_layers() -> None:
    """The translation was clean: to set D the processor reads the entry, as it is now."""
    for spoil, rule, code in (
        (edmm.unmapped, "PAGING.01", 0x6),
        (edmm.read_only, "PAGING.03", 0x7),
        (word(VALID | REG | PR | R), "ACCESS.12", 0x8007),
    ):
        enclave = edmm.running()
        clean(enclave, DATA)
        lp = edmm.inside(enclave)
        lp.load(DATA, 1)
        spoil(enclave, DATA)
        assert refused(Access(lp, WRITE, DATA)) == (rule, code)


@pytest.mark.parametrize("rewalks", [True, False])
@pytest.mark.parametrize("spoil", [edmm.unmapped, edmm.read_only, word(VALID | REG | PR | R)])
def test_a_first_write_that_faults_drops_the_translation(
    spoil: Callable[[BareEnclave, int], object], rewalks: bool
) -> None:
    """A page fault takes the translation of its address with it.

    SDM 3A, 4.10.4.1 "Operations that Invalidate TLBs and Paging-Structure Caches".

    The clean one stayed: another page could be mapped there, and reads went on to the old one.
    """
    enclave = edmm.running(readings=Readings(stale_narrow_rewalks=rewalks))
    clean(enclave, DATA)
    lp = edmm.inside(enclave)
    lp.load(DATA, 1)
    spoil(enclave, DATA)
    refused(Access(lp, WRITE, DATA))
    assert lp.tlb.holds(DATA) == 0


def test_a_page_whose_d_is_set_already_needs_no_second_walk() -> None:
    enclave = edmm.running()
    edmm.mark_used(enclave)
    lp = edmm.inside(enclave)
    lp.load(DATA, 1)
    assert lp.tlb.holds(DATA) & (WRITE | CLEAN) == WRITE
    edmm.unmapped(enclave, DATA)
    lp.store(DATA, b"through the cached translation")


def test_without_w_in_the_epcm_a_translation_is_not_even_clean() -> None:
    access = from_inside(READ, DATA, all_of(clean, word(VALID | REG | R)))()
    perform(access)
    assert access.lp.tlb.holds(DATA) == READ
