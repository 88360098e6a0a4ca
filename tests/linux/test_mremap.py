"""mremap of enclave areas. Linux 6.12, mm/mremap.c; the driver has no hook in it."""

import pytest

from softsgx.linux.errno import EFAULT, EINVAL, ENOMEM
from softsgx.linux.uapi import MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE
from softsgx.sim import Steps, Unmodelled
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.system import EnclaveThread, Machine
from tests.linux.world import World, world

FAR = 0x2000_0000
MOVE = MREMAP_MAYMOVE | MREMAP_FIXED


def pages(count: int) -> tuple[World, int]:
    w = world(pages=count)
    return w, w.enclave.data[0]


def mremap(w: World, old: int, old_pages: int, new_pages: int, flags: int, new: int = 0) -> int:
    lengths = old_pages * PAGE_SIZE, new_pages * PAGE_SIZE
    return w.do(w.host.mremap(old, *lengths, flags, new))


def layout(w: World) -> list[tuple[int, int]]:
    return w.areas(w.enclave.data[0], len(w.enclave.data) * PAGE_SIZE)


@pytest.mark.parametrize("flags", [0, MREMAP_MAYMOVE])
def test_growing_is_efault(flags: int) -> None:
    w, data = pages(3)
    assert mremap(w, data, 3, 4, flags) == -EFAULT
    assert mremap(w, data, 0, 1, flags) == -EFAULT
    assert layout(w) == [(3, R | W)]


def test_growing_to_a_fixed_place_destroys_what_was_there() -> None:
    w, data = pages(3)
    target = w.do(w.host.alloc(4 * PAGE_SIZE))
    assert mremap(w, data, 3, 4, MOVE, target) == -EFAULT
    assert w.mm.vma_lookup(target) is None
    assert layout(w) == [(3, R | W)]


def test_6_18_checks_before_it_unmaps() -> None:
    """Linux 6.18, mm/mremap.c, remap_move: as 6.12 if it is one area and nothing is refused."""
    w = world(Machine(epc="1M", linux="6.18"), pages=3)
    data = w.enclave.data[0]
    target = w.do(w.host.alloc(4 * PAGE_SIZE))
    said = "mremap to a fixed address, of several areas or refused, on Linux 6.18"
    with pytest.raises(Unmodelled, match=said):
        mremap(w, data, 3, 4, MOVE, target)
    assert w.mm.vma_lookup(target) is not None
    w.do(w.host.mprotect(data, PAGE_SIZE, R))
    with pytest.raises(Unmodelled, match=said):
        mremap(w, data, 3, 3, MOVE, target)
    assert mremap(w, data, 1, 1, MOVE, target) == target
    assert mremap(w, data + PAGE_SIZE, 2, 3, MREMAP_MAYMOVE) == -EFAULT


def test_dontunmap_is_einval() -> None:
    w, data = pages(3)
    flags = MREMAP_DONTUNMAP | MREMAP_MAYMOVE
    assert mremap(w, data, 3, 3, flags) == -EINVAL
    assert mremap(w, data, 3, 3, flags | MREMAP_FIXED, FAR) == -EINVAL
    assert mremap(w, data, 3, 2, flags) == -EINVAL
    assert mremap(w, data, 3, 3, MREMAP_DONTUNMAP) == -EINVAL
    assert layout(w) == [(3, R | W)]


@pytest.mark.parametrize("flags", [0, MREMAP_MAYMOVE])
def test_same_size_in_place_does_nothing(flags: int) -> None:
    w, data = pages(3)
    assert mremap(w, data, 3, 3, flags) == data
    assert layout(w) == [(3, R | W)]


def test_shrinking_unmaps_the_tail() -> None:
    w, data = pages(3)
    references = w.host.process.files[w.enclave.fd].count
    assert mremap(w, data, 3, 1, 0) == data
    assert layout(w) == [(1, R | W)]
    # The area was split and its upper part dropped: as many areas hold the file as before.
    assert w.host.process.files[w.enclave.fd].count == references


def test_bad_arguments() -> None:
    w, data = pages(2)
    assert mremap(w, data + 1, 1, 1, 0) == -EINVAL
    assert mremap(w, data, 1, 0, 0) == -EINVAL
    assert mremap(w, data, 1, 1, 8) == -EINVAL
    assert mremap(w, data, 1, 1, MREMAP_FIXED, FAR) == -EINVAL
    assert mremap(w, data, 1, 1, MOVE, FAR + 1) == -EINVAL
    assert mremap(w, data, 2, 2, MOVE, data + PAGE_SIZE) == -EINVAL
    assert mremap(w, data, 1, 1, MOVE, (1 << 47) - PAGE_SIZE) == -EINVAL
    assert mremap(w, FAR, 1, 1, 0) == -EFAULT
    assert mremap(w, data, 1 << 10, 1 << 10, MOVE, FAR) == -EFAULT
    assert layout(w) == [(2, R | W)]


def test_move_needs_room_for_five_areas() -> None:
    w, data = pages(1)
    w.mm.max_map_count = len(w.mm.vmas) + 5
    assert mremap(w, data, 1, 1, MOVE, FAR) == -ENOMEM
    w.mm.max_map_count += 1
    assert mremap(w, data, 1, 1, MOVE, FAR) == FAR


def touch(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"value")


def test_moved_area_takes_its_entries_along() -> None:
    """The EPCM has the page under its linear address: useless there, but the move succeeds."""
    w, data = pages(2)
    w.call(touch, data)
    entry = w.mm.space.lookup(data)
    place = w.enclave.heap
    assert mremap(w, data, 2, 2, MOVE, place) == place
    assert layout(w) == []
    assert w.mm.space.lookup(data) == 0
    assert w.mm.space.lookup(place) == entry
    assert w.fault(touch, place) == (14, 0x8007, place)
    assert w.fault(touch, data) == (14, 0x6, data)


def test_missing_entry_of_a_moved_area_meets_the_fault_handler() -> None:
    """It looks at the linear address, not at the file offset: here is a hole, which EAUG fills."""
    w, data = pages(2)
    place = w.enclave.heap
    assert mremap(w, data, 2, 2, MOVE, place) == place
    assert w.encl.page(place) is None

    def accept(t: EnclaveThread) -> Steps[None]:
        assert (yield from t.accept_new(place)) == 0

    w.call(accept)
    assert w.encl.page(place) is not None


def test_part_of_an_area_moves_and_the_enclave_still_ends() -> None:
    w, data = pages(3)
    middle = data + PAGE_SIZE
    w.call(touch, middle)
    assert mremap(w, middle, 1, 1, MOVE, FAR) == FAR
    assert layout(w) == [(1, R | W), (1, R | W)]
    assert w.areas(FAR, PAGE_SIZE) == [(1, R | W)]
    w.do(w.host.exit())
    assert w.all_epc_free()


def test_anonymous_memory_that_would_grow_is_not_modelled() -> None:
    w = world()
    memory = w.do(w.host.alloc(PAGE_SIZE))
    with pytest.raises(Unmodelled):
        mremap(w, memory, 1, 2, MREMAP_MAYMOVE)
