"""The TLB: what it holds, and the only ways it forgets.

SDM 3A, 4.10 "Caching Translation Information".
"""

import pytest

from softsgx.cpu import Bare
from softsgx.mem import Tlb
from softsgx.mem.pagetable import PTE_D, AddressSpace
from softsgx.mem.tlb import ABORT, CLEAN, FETCH, READ, RIGHTS, WRITE, rights_text

ADDRESS = 0x40_0000


def test_a_new_tlb_holds_nothing() -> None:
    tlb = Tlb()
    assert (tlb.holds(ADDRESS), tlb.flushes) == (0, 0)


def test_an_entry_serves_its_whole_page_and_no_other() -> None:
    tlb = Tlb()
    tlb.entries[ADDRESS >> 12] = 0x7000 | READ | FETCH
    assert tlb.holds(ADDRESS + 0xFFF) == READ | FETCH
    assert tlb.holds(ADDRESS + 0x1000) == 0


def test_invlpg_drops_one_page() -> None:
    tlb = Tlb()
    for page in (1, 2):
        tlb.entries[page] = READ
    tlb.invlpg(0x1FFF)
    tlb.invlpg(0x9000)
    assert (tlb.entries, tlb.flushes) == ({2: READ}, 0)


def test_flush_drops_all_in_place() -> None:
    """In place: a reference to the dictionary sees it empty."""
    tlb = Tlb()
    entries = tlb.entries
    entries[1] = READ
    tlb.flush()
    assert (entries, tlb.entries is entries, tlb.flushes) == ({}, True, 1)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (0, "---"),
        (READ, "r--"),
        (READ | WRITE, "rw-"),
        (READ | CLEAN, "rw-"),
        (READ | FETCH, "r-x"),
        (FETCH, "--x"),
        (0x7000 | RIGHTS | ABORT, "rwx"),
    ],
)
def test_rights_text(entry: int, text: str) -> None:
    assert rights_text(entry) == text


def outside() -> Bare:
    """A processor outside, with one page of RAM mapped RW at ADDRESS."""
    bare = Bare(16)
    bare.processor.space.map(ADDRESS, bare.processor.memory.alloc())
    return bare


def test_a_read_caches_a_writable_page_as_clean_until_its_first_write() -> None:
    """The first write must walk again, to set D."""
    bare = outside()
    bare.lp.load(ADDRESS, 1)
    assert bare.lp.tlb.holds(ADDRESS) == READ | CLEAN
    assert not bare.processor.space.lookup(ADDRESS) & PTE_D
    bare.lp.store(ADDRESS, b"a")
    assert bare.lp.tlb.holds(ADDRESS) == READ | WRITE
    assert bare.processor.space.lookup(ADDRESS) & PTE_D


def test_translations_of_two_processors_are_apart() -> None:
    bare = outside()
    other = bare.processor.lps[1]
    bare.lp.load(ADDRESS, 1)
    assert other.tlb.entries == {}
    other.load(ADDRESS, 1)
    other.tlb.invlpg(ADDRESS)
    assert bare.lp.tlb.holds(ADDRESS)


def test_a_changed_entry_acts_when_the_translation_is_gone() -> None:
    bare = outside()
    bare.lp.store(ADDRESS, b"old")
    bare.processor.space.map(ADDRESS, bare.processor.memory.alloc())
    assert bare.lp.load(ADDRESS, 3) == b"old"
    bare.lp.tlb.invlpg(ADDRESS)
    assert bare.lp.load(ADDRESS, 3) == bytes(3)


def test_a_switch_of_address_spaces_flushes() -> None:
    bare = outside()
    bare.lp.store(ADDRESS, b"one")
    second = AddressSpace("second")
    second.map(ADDRESS, bare.processor.memory.alloc())
    bare.lp.load_cr3(second)
    assert bare.lp.tlb.entries == {}
    assert bare.lp.load(ADDRESS, 3) == bytes(3)
    bare.lp.load_cr3(bare.processor.space)
    assert bare.lp.load(ADDRESS, 3) == b"one"
    assert bare.lp.tlb.flushes == 2


def test_an_outside_view_of_epc_is_cached_as_abort_page() -> None:
    bare = outside()
    page = bare.epa()
    bare.processor.space.map(ADDRESS, bare.processor.epc.pfn(page))
    assert bare.lp.load(ADDRESS, 4) == b"\xff" * 4
    assert bare.lp.tlb.holds(ADDRESS) & ABORT
    bare.lp.store(ADDRESS, b"lost")
    assert bare.processor.memory.read_page(bare.processor.epc.pfn(page)) == bytes(4096)
