"""Which pages of a process have to change, and when: `softsgx.runner.native.maps`."""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import pytest

from softsgx.linux.mm import Mm, Vma
from softsgx.linux.vfs import File
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_P, PTE_U, PTE_W
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.host import nr
from softsgx.runner.inserted.layout import NATIVE_EPC
from softsgx.runner.native.lp import WATCHED
from softsgx.runner.native.maps import NativeMap
from softsgx.runner.native.slots import OPERATIONS_MAX, Operation, Slots
from softsgx.runner.process.world import LiveProcess, World
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PR, REG, TCS, VALID, R, W, X

BASE = 0x7000_0000_0000
USED = PTE_P | PTE_U | PTE_W | PTE_A | PTE_D
EPCM = VALID | REG | R | W | X
ONE, OTHER = Slots.staging(1), Slots.staging(2)


class Bench(NamedTuple):
    """A process with one area, and EPC pages in it to which the model allows access."""

    world: World
    mm: Mm
    native: NativeMap

    def page(self, number: int, rights: int = READ | WRITE | FETCH) -> int:
        """Install and map one; its linear page number."""
        address = BASE + number * PAGE_SIZE
        epcm, first = self.world.machine.processor.epcm, self.world.memory.first
        epcm.install(number, EPCM, 0, address)
        self.mm.space.set(address, (first + number) << PAGE_SHIFT | USED)
        word = (first + number) << PAGE_SHIFT | rights
        self.native.enter(1, [(address >> PAGE_SHIFT, word)], ONE)
        self.native.entered(1, certain=True)
        return address >> PAGE_SHIFT


@pytest.fixture
def bench() -> Bench:
    world = World(WATCHED, epc="2M")
    process = LiveProcess(world, 1)
    file = File("/dev/sgx_enclave", object(), 2)  # type: ignore[arg-type]
    mm = process.mm
    mm.vmas.append(Vma(BASE, BASE + 512 * PAGE_SIZE, 7, file=file))
    mm._starts.append(BASE)
    return Bench(world, mm, NativeMap(mm, world.machine.processor, world.memory))


class Areas:
    """What calls make of an address space: where a page of the EPC file is, with which rights.

    The number of the page, None for memory of its own, and the rights.
    """

    def __init__(self) -> None:
        self.pages: dict[int, tuple[int | None, int]] = {}

    def call(self, operation: Operation) -> None:
        """Carry out one call, as Linux does: nothing of another thread comes in between."""
        at, size, third, flags, to, _ = operation.arguments
        if operation.number == nr.MMAP:
            for page in range(at, at + size, PAGE_SIZE):
                self.pages[page] = None, third
        elif operation.number == nr.MPROTECT:
            self.pages[at] = self.pages[at][0], third
        else:
            assert (operation.number, third, flags) == (nr.MREMAP, PAGE_SIZE, 3)
            if size:
                self.pages[to] = self.pages.pop(at)
            else:
                self.pages[to] = (at - NATIVE_EPC) >> PAGE_SHIFT, 0


def merged(one: list[Operation], other: list[Operation]) -> Iterator[list[Operation]]:
    """All orders of two threads' steps."""
    total = len(one) + len(other)
    for places in combinations(range(total), len(one)):
        mine, others = iter(one), iter(other)
        yield [next(mine) if n in places else next(others) for n in range(total)]


def test_a_page_comes_to_its_place_with_its_rights(bench: Bench) -> None:
    word = (bench.world.memory.first + 3) << PAGE_SHIFT | READ | FETCH
    areas = Areas()
    seen = []
    for operation in bench.native.enter(1, [(BASE >> PAGE_SHIFT, word)], ONE):
        areas.call(operation)
        seen.append(areas.pages.get(BASE))
    assert set(seen) == {None, (3, READ | FETCH)}
    assert list(areas.pages) == [BASE]


@pytest.mark.parametrize("second", ["maps", "hides", "hides and maps"])
def test_no_order_of_calls_gives_rights_to_other_memory(bench: Bench, second: str) -> None:
    """tests/programs/unfair_lock_native.c: one run in ten lost what threads had written.

    A page got its place first and its rights then. In between, another thread put memory of its own
    there, to hide the page, and that got the rights.
    """
    page = bench.page(3)
    right = bench.native.mapped[page] & (READ | WRITE | FETCH)
    word = (bench.world.memory.first + 3) << PAGE_SHIFT | right
    one = bench.native.enter(1, [(page, word)], ONE)
    if "hides" in second:
        bench.native.hide([page])
    other = bench.native.enter(2, [(page, word)] if "maps" in second else [], OTHER)
    for order in merged(one, other):
        areas = Areas()
        for operation in order:
            areas.call(operation)
            assert areas.pages.get(BASE + 3 * PAGE_SIZE) in (None, (None, 0), (3, right))


@pytest.mark.parametrize(
    ("word", "hidden"),
    [
        (EPCM, False),
        (EPCM | PR, False),
        (EPCM & ~W, True),
        (EPCM & ~X, True),
        (EPCM | BLOCKED, True),
        (EPCM | PENDING, True),
        (EPCM | MODIFIED, True),
        (VALID | TCS, True),
    ],
)
def test_an_epcm_entry_that_allows_less_hides_the_page(
    bench: Bench, word: int, hidden: bool
) -> None:
    page = bench.page(3)
    bench.world.machine.processor.epcm.put(3, word)
    changed = bench.native.look()
    assert list(changed) == ([page] if hidden else [])


def test_rights_that_were_never_mapped_may_go(bench: Bench) -> None:
    bench.page(3, READ)
    bench.world.machine.processor.epcm.put(3, EPCM & ~W)
    assert not bench.native.look()


@pytest.mark.parametrize("lost", [PTE_P, PTE_A, PTE_D, PTE_W])
def test_a_walk_that_would_fault_or_set_a_bit_hides_the_page(bench: Bench, lost: int) -> None:
    page = bench.page(3)
    address = page << PAGE_SHIFT
    bench.mm.space.set(address, bench.mm.space.lookup(address) & ~lost)
    assert list(bench.native.look()) == [page]


def test_the_reclaimer_that_clears_a_hides_the_page(bench: Bench) -> None:
    page = bench.page(3)
    assert bench.mm.space.test_and_clear_accessed(page << PAGE_SHIFT)
    assert list(bench.native.look()) == [page]


def test_a_freed_frame_hides_the_page(bench: Bench) -> None:
    page = bench.page(3)
    bench.world.machine.processor.epcm.free(3)
    assert list(bench.native.look()) == [page]


def test_hiding_is_repeated_until_a_thread_has_certainly_done_it(bench: Bench) -> None:
    pages = [bench.page(n) for n in (3, 4, 6)]
    bench.native.hide(pages)
    first = bench.native.enter(1, [], ONE)
    assert [(op.number, op.arguments[:2]) for op in first] == [
        (nr.MMAP, (BASE + 3 * PAGE_SIZE, 2 * PAGE_SIZE)),
        (nr.MMAP, (BASE + 6 * PAGE_SIZE, PAGE_SIZE)),
    ]
    assert bench.native.enter(2, [], OTHER) == first
    bench.native.entered(2, certain=False)
    assert bench.native.pending() == first
    bench.native.entered(1, certain=True)
    assert bench.native.pending() == []


def test_hidden_again_on_the_way_is_not_done(bench: Bench) -> None:
    page = bench.page(3)
    bench.native.hide([page])
    bench.native.enter(1, [], ONE)
    bench.native.hide([page])
    bench.native.entered(1, certain=True)
    assert bench.native.pending()


def test_what_an_interrupted_thread_was_to_map_is_hidden(bench: Bench) -> None:
    bench.page(3)
    word = (bench.world.memory.first + 3) << PAGE_SHIFT | READ
    bench.native.enter(1, [((BASE >> PAGE_SHIFT) + 3, word)], ONE)
    bench.native.entered(1, certain=False)
    assert [op.arguments[0] for op in bench.native.pending()] == [BASE + 3 * PAGE_SIZE]


def test_memory_that_is_no_enclave_area_any_more_is_left_alone(bench: Bench) -> None:
    page = bench.page(3)
    bench.mm.vmas.clear()
    bench.mm._starts.clear()
    bench.native.hide([page])
    assert bench.native.pending() == []


def test_too_many_pieces_hide_the_area(bench: Bench) -> None:
    pages = [bench.page(n) for n in range(1, 2 * OPERATIONS_MAX, 2)]
    bench.native.hide(pages)
    (operation,) = bench.native.pending()
    assert operation.arguments[:2] == (BASE, 512 * PAGE_SIZE)
    assert not bench.native.mapped


def test_a_forked_child_hides_all_that_it_inherits(bench: Bench) -> None:
    page = bench.page(3)
    other = LiveProcess(bench.world, 2)
    other.mm.vmas, other.mm._starts = bench.mm.vmas, bench.mm._starts
    child = NativeMap(other.mm, bench.world.machine.processor, bench.world.memory)
    bench.native.copy_to(child)
    assert list(child.look()) == [page]
    assert not bench.native.look()
