"""Physical memory: sparse, across pages, copied on write after a snapshot, digested."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softsgx.mem import PhysicalMemory
from softsgx.spec.bits import PAGE_SIZE

BASE = 0x5000


def test_unwritten_memory_reads_as_zero_and_costs_nothing() -> None:
    memory = PhysicalMemory()
    assert memory.read(0x1234, 100) == bytes(100)
    assert memory.read(1 << 50, PAGE_SIZE + 1) == bytes(PAGE_SIZE + 1)
    assert memory.read_page(77) == bytes(PAGE_SIZE)
    assert bytes(memory.page_view(77)) == bytes(PAGE_SIZE)
    assert memory.read_int(0x1238, 8) == 0
    assert memory.pages == {}


def test_only_written_pages_exist() -> None:
    memory = PhysicalMemory()
    memory.write(0x12_3456_7000, b"a")
    memory.write(BASE + 7, b"b")
    assert sorted(memory.pages) == [BASE >> 12, 0x12_3456_7000 >> 12]


def test_a_write_changes_its_bytes_and_no_others() -> None:
    memory = PhysicalMemory()
    memory.write_page(5, b"\x11" * PAGE_SIZE)
    memory.write(BASE + 100, b"xyz")
    assert memory.read_page(5) == b"\x11" * 100 + b"xyz" + b"\x11" * (PAGE_SIZE - 103)
    assert memory.read(BASE + 99, 5) == b"\x11xyz\x11"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [2, PAGE_SIZE, PAGE_SIZE + 2, 3 * PAGE_SIZE + 5])
def test_reads_and_writes_cross_pages(
    size: int, kind: type[bytes | bytearray | memoryview]
) -> None:
    memory = PhysicalMemory()
    data = bytes(n * 7 % 251 for n in range(size))
    memory.write(BASE + PAGE_SIZE - 1, kind(data))
    assert memory.read(BASE + PAGE_SIZE - 1, size) == data
    assert memory.read(BASE, PAGE_SIZE - 1) == bytes(PAGE_SIZE - 1)
    assert memory.read(BASE + PAGE_SIZE - 1 + size, 16) == bytes(16)


def test_large_reads_and_writes_are_not_bounded_by_the_stack() -> None:
    memory = PhysicalMemory()
    data = bytes(range(256)) * (8 << 20 >> 8)
    memory.write(BASE + 100, data)
    assert memory.read(BASE + 100, len(data)) == data


def test_what_is_read_does_not_change_with_the_memory() -> None:
    memory = PhysicalMemory()
    memory.write(BASE, b"old")
    part, page = memory.read(BASE, 3), memory.read_page(5)
    memory.write(BASE, b"new")
    assert (part, page[:3]) == (b"old", b"old")


def test_a_page_written_from_a_bytearray_is_a_copy() -> None:
    memory = PhysicalMemory()
    source = bytearray(PAGE_SIZE)
    memory.write_page(5, source)
    source[0] = 1
    assert memory.read_page(5) == bytes(PAGE_SIZE)


def test_a_copied_page_is_shared_until_one_side_is_written() -> None:
    memory = PhysicalMemory()
    memory.write(BASE, b"old")
    memory.write_page(9, memory.read_page(5))
    memory.write_page(10, memory.read_page(9))
    assert memory.pages[10] is memory.pages[9]
    memory.write(9 << 12, b"new")
    assert [memory.read(pfn << 12, 3) for pfn in (5, 9, 10)] == [b"old", b"new", b"old"]


def test_a_copy_of_unwritten_memory_costs_nothing() -> None:
    memory = PhysicalMemory()
    memory.write(BASE, b"old")
    digest = PhysicalMemory().digest()
    memory.write_page(5, memory.read(9 << 12, PAGE_SIZE))
    assert memory.is_zero(5)
    assert memory.pages == {}
    assert memory.digest() == digest


def test_a_frame_is_zero_however_it_came_to_be_so() -> None:
    memory = PhysicalMemory()
    memory.write(BASE, b"x")
    assert not memory.is_zero(5)
    memory.write(BASE, b"\0")
    assert memory.is_zero(5)
    assert memory.is_zero(6)


def test_a_frame_changed_in_place_is_digested_again_and_no_snapshot_sees_it() -> None:
    memory = PhysicalMemory()
    memory.write(BASE, b"old")
    image, digest = memory.snapshot(), memory.digest()
    memory.writable(5)[:3] = b"new"
    assert memory.read(BASE, 3) == b"new"
    assert memory.digest() != digest
    memory.restore(image)
    assert memory.read(BASE, 3) == b"old"
    assert memory.digest() == digest


def test_read_int_is_little_endian() -> None:
    memory = PhysicalMemory()
    memory.write(BASE + 8, bytes(range(1, 9)))
    assert memory.read_int(BASE + 8, 8) == 0x0807060504030201
    assert memory.read_int(BASE + 8, 2) == 0x0201
    assert memory.read_int(BASE + PAGE_SIZE - 8, 8) == 0


def test_a_cleared_page_is_zero_and_gone() -> None:
    memory = PhysicalMemory()
    memory.write(BASE, b"a")
    memory.clear_page(5)
    memory.clear_page(6)
    assert memory.read_page(5) == bytes(PAGE_SIZE)
    assert memory.pages == {}
    memory.write(BASE + 1, b"b")
    assert memory.read(BASE, 3) == b"\0b\0"


def test_alloc_hands_out_consecutive_frames_once() -> None:
    memory = PhysicalMemory(frames=10)
    first = memory.alloc()
    assert first > 0  # frame 0 is never handed out
    assert memory.alloc(3) == first + 1
    assert memory.alloc() == first + 4
    assert memory.pages == {}
    with pytest.raises(MemoryError, match="6 frames asked, 4 left"):
        memory.alloc(6)
    assert memory.alloc(4) == first + 5
    with pytest.raises(MemoryError):
        memory.alloc()


def test_restore_gives_frames_back_to_alloc() -> None:
    memory = PhysicalMemory()
    image = memory.snapshot()
    first = memory.alloc(7)
    memory.restore(image)
    assert memory.alloc() == first


def test_a_snapshot_shares_pages_until_either_side_writes() -> None:
    memory = PhysicalMemory()
    memory.write_page(5, b"\x01" * PAGE_SIZE)
    memory.write_page(6, b"\x02" * PAGE_SIZE)
    shared = memory.pages[6]
    image = memory.snapshot()
    memory.write(BASE, b"new")
    assert memory.pages[6] is shared
    assert memory.pages[5] is not image[0][5]
    assert bytes(image[0][5]) == b"\x01" * PAGE_SIZE
    # The second write to a copied page goes in place.
    copied = memory.pages[5]
    memory.write(BASE + 9, b"more")
    assert memory.pages[5] is copied


def test_a_snapshot_can_be_restored_again_and_again() -> None:
    memory = PhysicalMemory()
    memory.write(BASE, b"one")
    image = memory.snapshot()
    for change in (b"two", b"six"):
        memory.write(BASE, change)
        memory.write(BASE + PAGE_SIZE, change)
        memory.restore(image)
        assert memory.read(BASE, 3) == b"one"
        assert memory.pages.keys() == {5}
    memory.clear_page(5)
    memory.restore(image)
    assert memory.read(BASE, 3) == b"one"


def test_snapshots_of_snapshots_are_independent() -> None:
    memory = PhysicalMemory()
    images = []
    for number in range(4):
        memory.write(BASE, bytes([number]))
        images.append(memory.snapshot())
    for number in (2, 0, 3, 1):
        memory.restore(images[number])
        assert memory.read(BASE, 1) == bytes([number])


def test_page_digests_tell_pages_and_places_apart() -> None:
    memory = PhysicalMemory()
    assert memory.page_digest(5) == 0
    digests = set()
    for pfn in (5, 6, 1 << 40):
        for content in (b"\x01", b"\x02"):
            memory.write_page(pfn, content * PAGE_SIZE)
            digests.add(memory.page_digest(pfn))
    assert len(digests) == 6
    memory.write_page(5, bytes(PAGE_SIZE))
    assert memory.page_digest(5) == 0


def test_the_digest_forgets_how_the_contents_came_about() -> None:
    straight, devious = PhysicalMemory(), PhysicalMemory()
    straight.write(BASE, b"abc")
    straight.write_page(9, b"\x07" * PAGE_SIZE)
    devious.write_page(9, b"\x08" * PAGE_SIZE)
    devious.write_page(30, b"\x09" * PAGE_SIZE)
    first = devious.digest()
    devious.write_page(9, b"\x07" * PAGE_SIZE)
    devious.write(30 << 12, bytes(PAGE_SIZE))  # a page of zeros equals one never written
    devious.write(BASE + 1, b"bc")
    devious.write(BASE, b"a")
    assert devious.digest() == straight.digest() != first


def test_swapped_pages_have_another_digest() -> None:
    one, other = PhysicalMemory(), PhysicalMemory()
    for memory, order in ((one, (5, 6)), (other, (6, 5))):
        for value, pfn in enumerate(order, 1):
            memory.write_page(pfn, bytes([value]) * PAGE_SIZE)
    assert one.digest() != other.digest()


PAGES = 6
WRITES = st.tuples(
    st.just("write"),
    st.integers(0, PAGES * PAGE_SIZE - 1),
    st.binary(max_size=40).map(lambda b: b * 300),
)
OTHERS = st.tuples(
    st.sampled_from(["write_page", "clear_page", "snapshot", "restore", "digest"]),
    st.integers(0, PAGES - 1),
    st.binary(min_size=1, max_size=1),
)


@settings(max_examples=150)
@given(steps=st.lists(WRITES | OTHERS, max_size=40))
def test_memory_agrees_with_plain_bytes(steps: list[tuple[str, int, bytes]]) -> None:
    memory, plain = PhysicalMemory(), bytearray(PAGES * PAGE_SIZE)
    images = [(memory.snapshot(), bytes(plain))]
    for what, number, data in steps:
        at = number * PAGE_SIZE
        if what == "write":
            data = data[: PAGES * PAGE_SIZE - number]
            memory.write(number, data)
            plain[number : number + len(data)] = data
        elif what == "write_page":
            memory.write_page(number, data * PAGE_SIZE)
            plain[at : at + PAGE_SIZE] = data * PAGE_SIZE
        elif what == "clear_page":
            memory.clear_page(number)
            plain[at : at + PAGE_SIZE] = bytes(PAGE_SIZE)
        elif what == "snapshot":
            images.append((memory.snapshot(), bytes(plain)))
        elif what == "restore":
            image, before = images[number % len(images)]
            memory.restore(image)
            plain[:] = before
        else:
            memory.digest()
    assert memory.read(0, len(plain)) == plain
    fresh = PhysicalMemory()
    fresh.write(0, plain)
    assert memory.digest() == fresh.digest()
    for image, before in images:
        memory.restore(image)
        assert memory.read(0, len(plain)) == before
