"""Page tables: entries as x86 has them, and nothing else. SDM 3A, 4.5 "IA-32e Paging"."""

import pytest

from softsgx.events.cpu import PteChanged
from softsgx.mem import AddressSpace, Tlb, direct
from softsgx.mem.pagetable import (
    DIRECT_MAP,
    PTE_A,
    PTE_D,
    PTE_NX,
    PTE_P,
    PTE_PFN_MASK,
    PTE_U,
    PTE_W,
    USER_TOP,
    pte_text,
)
from softsgx.sim import Log

ADDRESS = 0x7F00_0000_3000
PAGE = ADDRESS >> 12


@pytest.mark.parametrize(
    ("rights", "bits"),
    [
        ({}, PTE_P | PTE_W | PTE_U | PTE_NX),
        ({"write": False}, PTE_P | PTE_U | PTE_NX),
        ({"execute": True}, PTE_P | PTE_W | PTE_U),
        ({"user": False}, PTE_P | PTE_W | PTE_NX),
        ({"write": False, "execute": True, "user": False}, PTE_P),
    ],
)
def test_map_makes_the_entry_x86_would_read(rights: dict[str, bool], bits: int) -> None:
    space = AddressSpace()
    space.map(ADDRESS, 0x12345, **rights)
    assert space.lookup(ADDRESS) == 0x12345 << 12 | bits
    assert space.lookup(ADDRESS) & PTE_PFN_MASK == 0x12345000


def test_an_entry_covers_its_page_and_no_other() -> None:
    space = AddressSpace()
    with pytest.raises(ValueError, match="not a multiple of 4096"):
        space.map(ADDRESS + 0x123, 7)
    space.map(ADDRESS, 7)
    assert space.ptes == {PAGE: space.lookup(ADDRESS)}
    assert space.lookup(ADDRESS + 0xFFF) == space.lookup(ADDRESS) != 0
    assert (space.lookup(ADDRESS - 1), space.lookup(ADDRESS + 0x1000)) == (0, 0)


def test_a_new_entry_has_neither_a_nor_d() -> None:
    space = AddressSpace()
    space.map(ADDRESS, 7)
    space.set(ADDRESS, space.lookup(ADDRESS) | PTE_A | PTE_D)
    space.map(ADDRESS, 7)
    assert not space.lookup(ADDRESS) & (PTE_A | PTE_D)


def test_unmap_returns_the_entry_that_was() -> None:
    space = AddressSpace()
    space.map(ADDRESS, 7)
    entry = space.lookup(ADDRESS)
    assert space.unmap(ADDRESS + 5) == entry
    assert space.unmap(ADDRESS) == 0
    assert space.ptes == {}


@pytest.mark.parametrize("address", [USER_TOP, DIRECT_MAP, (1 << 64) - 4096, -4096])
def test_only_user_addresses_have_entries(address: int) -> None:
    space = AddressSpace()
    with pytest.raises(ValueError, match="is not a user address"):
        space.map(address, 7)
    assert space.ptes == {}
    space.map(USER_TOP - 4096, 7)
    space.map(0, 7)
    assert list(space.ptes) == [(USER_TOP >> 12) - 1, 0]


def test_the_accessed_bit_is_tested_and_cleared() -> None:
    space = AddressSpace()
    assert not space.test_and_clear_accessed(ADDRESS)
    space.map(ADDRESS, 7)
    assert not space.test_and_clear_accessed(ADDRESS)
    space.set(ADDRESS, space.lookup(ADDRESS) | PTE_A | PTE_D)
    assert space.test_and_clear_accessed(ADDRESS)
    assert space.lookup(ADDRESS) & (PTE_A | PTE_D) == PTE_D
    assert not space.test_and_clear_accessed(ADDRESS)


def test_entries_do_not_reach_into_a_tlb() -> None:
    space, tlb = AddressSpace(), Tlb()
    space.map(ADDRESS, 7)
    tlb.entries[PAGE] = 7 << 12 | 1
    space.unmap(ADDRESS)
    assert tlb.holds(ADDRESS) == 1


def test_changes_are_logged_with_the_name_of_the_space() -> None:
    log = Log()
    space = AddressSpace("child", log)
    with log.record() as events:
        space.map(ADDRESS, 7)
        old = space.lookup(ADDRESS)
        space.set(ADDRESS, old & ~PTE_W)
        space.unmap(ADDRESS)
        space.unmap(ADDRESS)  # nothing is mapped there, so there is no event
    assert events == [
        PteChanged("child", PAGE, 0, old),
        PteChanged("child", PAGE, old, old & ~PTE_W),
        PteChanged("child", PAGE, old & ~PTE_W, 0),
    ]


def test_a_snapshot_is_a_copy_and_can_be_restored_again_and_again() -> None:
    space = AddressSpace()
    space.map(ADDRESS, 7)
    image = space.snapshot()
    before = dict(image)
    for _ in range(2):
        space.map(ADDRESS + 0x1000, 8)
        space.unmap(ADDRESS)
        assert image == before
        space.restore(image)
        assert space.ptes == before


def test_the_digest_follows_the_entries_and_not_their_order() -> None:
    one, other = AddressSpace("one"), AddressSpace("other")
    assert one.digest() == other.digest()
    one.map(ADDRESS, 7)
    empty = other.digest()
    assert one.digest() != empty
    one.map(ADDRESS + 0x1000, 8)
    other.map(ADDRESS + 0x1000, 8)
    other.map(ADDRESS, 7)
    assert one.digest() == other.digest()
    image = one.snapshot()
    seen = {one.digest()}
    for change in (
        lambda: one.set(ADDRESS, one.lookup(ADDRESS) | PTE_A),
        lambda: one.test_and_clear_accessed(ADDRESS + 0x1000) or one.unmap(ADDRESS + 0x1000),
        lambda: one.test_and_clear_accessed(ADDRESS),
        lambda: one.map(ADDRESS, 7, write=False),
    ):
        change()
        seen.add(one.digest())
    assert len(seen) == 5
    one.restore(image)
    assert one.digest() == other.digest()
    assert empty not in seen


def test_two_pages_that_change_places_have_another_digest() -> None:
    one, other = AddressSpace(), AddressSpace()
    for space, frames in ((one, (7, 8)), (other, (8, 7))):
        for number, pfn in enumerate(frames):
            space.map(ADDRESS + 0x1000 * number, pfn)
    assert one.digest() != other.digest()


def test_the_direct_map_is_where_linux_has_it() -> None:
    assert direct(0x1234) == 0xFFFF_8880_0000_1234


@pytest.mark.parametrize(
    ("pte", "text"),
    [
        (0, "none"),
        (PTE_W | PTE_U, "none"),
        (PTE_P | PTE_NX, "r--"),
        (PTE_P | PTE_W | PTE_NX, "rw-"),
        (PTE_P, "r-x"),
        (PTE_P | PTE_W, "rwx"),
    ],
)
def test_pte_text(pte: int, text: str) -> None:
    assert pte_text(pte) == text
