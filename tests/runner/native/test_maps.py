"""Which pages of a process have to change, and when: `softsgx.runner.native.maps`."""

from typing import NamedTuple

import pytest

from softsgx.linux.mm import Mm, Vma
from softsgx.linux.vfs import File
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_P, PTE_U, PTE_W
from softsgx.mem.tlb import FETCH, READ, WRITE
from softsgx.runner.host import nr
from softsgx.runner.native.lp import WATCHED
from softsgx.runner.native.maps import NativeMap
from softsgx.runner.native.slots import OPERATIONS_MAX
from softsgx.runner.process.world import LiveProcess, World
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PR, REG, TCS, VALID, R, W, X

BASE = 0x7000_0000_0000
USED = PTE_P | PTE_U | PTE_W | PTE_A | PTE_D
EPCM = VALID | REG | R | W | X


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
        self.native.enter(1, [(address >> PAGE_SHIFT, (first + number) << PAGE_SHIFT | rights)])
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


def test_a_page_is_duplicated_and_then_protected(bench: Bench) -> None:
    word = (bench.world.memory.first + 3) << PAGE_SHIFT | READ | FETCH
    duplicate, protect = bench.native.enter(1, [(BASE >> PAGE_SHIFT, word)])
    assert duplicate.number == nr.MREMAP
    assert duplicate.arguments[4] == BASE
    assert (protect.number, protect.arguments[:3]) == (nr.MPROTECT, (BASE, PAGE_SIZE, 5))


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
    first = bench.native.enter(1, [])
    assert [(op.number, op.arguments[:2]) for op in first] == [
        (nr.MMAP, (BASE + 3 * PAGE_SIZE, 2 * PAGE_SIZE)),
        (nr.MMAP, (BASE + 6 * PAGE_SIZE, PAGE_SIZE)),
    ]
    assert bench.native.enter(2, []) == first
    bench.native.entered(2, certain=False)
    assert bench.native.pending() == first
    bench.native.entered(1, certain=True)
    assert bench.native.pending() == []


def test_hidden_again_on_the_way_is_not_done(bench: Bench) -> None:
    page = bench.page(3)
    bench.native.hide([page])
    bench.native.enter(1, [])
    bench.native.hide([page])
    bench.native.entered(1, certain=True)
    assert bench.native.pending()


def test_what_an_interrupted_thread_was_to_map_is_hidden(bench: Bench) -> None:
    bench.page(3)
    word = (bench.world.memory.first + 3) << PAGE_SHIFT | READ
    bench.native.enter(1, [((BASE >> PAGE_SHIFT) + 3, word)])
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
