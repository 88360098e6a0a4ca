"""Hardware errors in EPC pages. Linux 6.12, sgx/main.c, arch_memory_failure."""

from __future__ import annotations

import pytest

from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import ENOMEM, ENXIO
from softsgx.linux.sgx.main import SgxEpcPage, arch_memory_failure, sgx_reclaim_pages
from softsgx.linux.version import VERSIONS
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import Machine
from tests.linux.building import created
from tests.linux.world import World, world


def failure(w: World, page: SgxEpcPage, **options: object) -> int:
    pfn = w.machine.processor.epc.pfn(page.number)
    return arch_memory_failure(w.kernel, pfn, **options)  # type: ignore[arg-type]


def resident(w: World, address: int) -> SgxEpcPage:
    page = w.encl.page(address)
    assert page is not None
    assert page.epc_page is not None
    return page.epc_page


def test_memory_outside_epc_is_enxio() -> None:
    w = world()
    assert arch_memory_failure(w.kernel, 1) == -ENXIO


def test_page_in_use_stays_usable_until_it_is_freed() -> None:
    """It is off the reclaimer's list, so it is never evicted; freed, it is quarantined."""
    w = world(pages=2)
    first = w.enclave.data[0]
    page = resident(w, first)
    assert failure(w, page) == 0
    assert page not in w.kernel.active_page_list
    w.call(lambda t: t.store(first, b"still"))
    for index in w.encl.page_array:
        w.mm.space.test_and_clear_accessed(index * PAGE_SIZE)
    w.do(sgx_reclaim_pages(w.host.thread))
    assert resident(w, first) is page
    w.do(w.host.exit())
    assert page not in w.kernel.free_pages
    # The count says that all is free.
    assert w.kernel.nr_free == w.machine.processor.epc.pages


def poisoned_and_old(machine: Machine) -> tuple[World, SgxEpcPage]:
    """A world with a page that has an error and was not accessed lately."""
    w = world(machine, pages=2)
    page = resident(w, w.enclave.data[0])
    assert failure(w, page) == 0
    for index in w.encl.page_array:
        w.mm.space.test_and_clear_accessed(index * PAGE_SIZE)
    return w, page


@pytest.mark.parametrize("linux", ["6.18", "6.12", "6.1"])
def test_poisoned_page_is_not_reclaimed(linux: str) -> None:
    """Linux 6.18, sgx/main.c, arch_memory_failure, and the stable kernels of Debian."""
    w, page = poisoned_and_old(Machine(epc="1M", linux=linux))
    w.do(sgx_reclaim_pages(w.host.thread))
    assert resident(w, w.enclave.data[0]) is page
    assert page not in w.kernel.active_page_list


@pytest.mark.parametrize("linux", ["v2", "6.12"])
def test_k15_poisoned_page_is_evicted_which_ends_the_machine(linux: str) -> None:
    w, page = poisoned_and_old(Machine(epc="1M", linux=linux, races={"poisoned_reclaimed": True}))
    assert page in w.kernel.active_page_list
    with pytest.raises(KernelBug, match=r"EWB of the poisoned <EPC page \d+>: machine check"):
        w.do(sgx_reclaim_pages(w.host.thread))


def test_only_v2_has_k15() -> None:
    assert [name for name, each in VERSIONS.items() if each.races.poisoned_reclaimed] == ["v2"]


def test_free_page_is_taken_off_the_list() -> None:
    w = world()
    page = resident(w, w.enclave.data[0])
    w.do(w.host.exit())
    assert page in w.kernel.free_pages
    free = w.kernel.nr_free
    assert failure(w, page) == failure(w, page) == 0
    assert page not in w.kernel.free_pages
    assert w.kernel.nr_free == free


def test_page_that_was_never_used_is_skipped() -> None:
    """The next two pages of EPC are bad: the third is handed out."""
    w = world()
    number = w.kernel.next_unused
    for bad in (number, number + 1):
        assert arch_memory_failure(w.kernel, w.machine.processor.epc.pfn(bad)) == 0
    w.do(w.host.load(w.enclave.heap, 1))
    assert resident(w, w.enclave.heap).number == number + 2
    assert [page.poison for page in w.kernel.epc_pages[-3:]] == [True, True, False]


def test_consumer_gets_a_signal() -> None:
    w = world()
    page = resident(w, w.enclave.data[0])
    assert failure(w, page) == 0
    assert not w.host.thread.signal_pending()
    assert failure(w, page, consumer=w.host.thread) == 0
    assert w.host.thread.signal_pending()


def test_all_bad_is_out_of_memory() -> None:
    b = created(Machine(epc="64K"))
    kernel, epc = b.machine.kernel, b.machine.processor.epc
    for number in range(kernel.next_unused, epc.pages):
        assert arch_memory_failure(kernel, epc.pfn(number)) == 0
    assert kernel.nr_free == epc.pages - 2
    assert b.add(0) == (-ENOMEM, 0)
