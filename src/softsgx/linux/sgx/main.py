"""EPC pages: allocation, freeing, and the reclaimer. Linux 6.12, sgx/main.c."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import EBUSY, ENOMEM, ENXIO, ERESTARTSYS
from softsgx.linux.process import Thread
from softsgx.linux.sgx import encl as e  # and encl imports main, as the kernel's files do
from softsgx.linux.sgx.backing import SgxBacking
from softsgx.linux.sgx.encls import encls, encls_failed
from softsgx.linux.trace import refused
from softsgx.mem.pagetable import DIRECT_MAP, direct
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.status import SGX_NOT_TRACKED

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.sgx.encl import SgxEnclPage

# Flags of an EPC page.
RECLAIMER_TRACKED: Final = 1 << 0
IS_FREE: Final = 1 << 1


class SgxEpcPage:
    """struct sgx_epc_page: the kernel's record of one EPC page.

    `owner` is the enclave page, or the SECS, that the EPC page holds; None for a VA page and for a
    free page.
    """

    __slots__ = ("address", "epc", "flags", "owner", "poison")

    def __init__(self, kernel: Kernel, number: int) -> None:
        self.epc = kernel.processor.epc
        # The kernel's own address of the page; its numbers follow from it.
        self.address = direct(self.epc.physical(number))
        self.flags = IS_FREE
        self.owner: SgxEnclPage | None = None
        self.poison = False

    @property
    def pfn(self) -> int:
        """Its page frame number."""
        return (self.address - DIRECT_MAP) >> PAGE_SHIFT

    @property
    def number(self) -> int:
        """Its number in the EPC."""
        return self.epc.index(self.pfn)

    def __repr__(self) -> str:
        return f"<EPC page {self.number}>"


def __sgx_alloc_epc_page(kernel: Kernel) -> SgxEpcPage | None:
    """Take a free page: one never used before, in order; then the one that was freed first."""
    if kernel.fail("sgx_alloc_epc_page"):
        return None
    while kernel.next_unused in kernel.poisoned_unused:
        _first_use(kernel).poison = True
    if kernel.next_unused < kernel.processor.epc.pages:
        page = _first_use(kernel)
    elif kernel.free_pages:
        page = kernel.free_pages.popleft()
    else:
        return None
    page.flags = 0
    kernel.nr_free -= 1
    return page


def _first_use(kernel: Kernel) -> SgxEpcPage:
    """The record of the next page that was never handed out."""
    page = SgxEpcPage(kernel, kernel.next_unused)
    kernel.next_unused += 1
    kernel.epc_pages.append(page)
    return page


def arch_memory_failure(kernel: Kernel, pfn: int, consumer: Thread | None = None) -> int:
    """A hardware error in an EPC page: it is never handed out again once it is free.

    In use, it leaves the reclaimer's list, except with the race K15. `consumer` is the thread that
    consumed the error (MF_ACTION_REQUIRED); it gets SIGBUS. The count of free pages is not
    corrected, so the watermarks count EPC that cannot be allocated. -ENXIO if the pfn is not in
    EPC.
    """
    number = kernel.processor.epc.index(pfn)
    if number < 0:
        return -ENXIO
    if consumer is not None:
        consumer.pending_signals += 1
    if number >= kernel.next_unused:
        kernel.poisoned_unused[number] = None
        return 0
    page = kernel.epc_pages[number]
    if page.poison:
        return 0
    page.poison = True
    if page.flags & IS_FREE:
        kernel.free_pages.remove(page)
    elif not kernel.races.poisoned_reclaimed:
        sgx_unmark_page_reclaimable(kernel, page)
    return 0


def sgx_should_reclaim(kernel: Kernel, watermark: int) -> bool:
    """Whether fewer pages than the watermark are free, and some page can be reclaimed."""
    return kernel.nr_free < watermark and bool(kernel.active_page_list)


def sgx_alloc_epc_page(
    current: Thread, owner: SgxEnclPage | None, reclaim: bool
) -> Steps[SgxEpcPage | int]:
    """Take a free EPC page. If there is none: reclaim and try again, or without `reclaim` -EBUSY.

    -ENOMEM if nothing can be reclaimed, -ERESTARTSYS if a signal is pending.
    """
    kernel = current.kernel
    while True:
        yield ("epc", "free list", True)
        page = __sgx_alloc_epc_page(kernel)
        result: SgxEpcPage | int
        if page is not None:
            page.owner = owner
            result = page
            break
        if not kernel.active_page_list:
            pages, free = kernel.processor.epc.pages, kernel.nr_free
            return refused(current, ENOMEM, "sgx_alloc_epc_page.full", free=free, pages=pages)
        if not reclaim:
            result = refused(current, EBUSY, "sgx_alloc_epc_page.short")
            break
        if current.signal_pending(again=True):
            result = refused(current, ERESTARTSYS, "sgx_alloc_epc_page.signal")
            break
        yield from sgx_reclaim_pages(current)
    if sgx_should_reclaim(kernel, kernel.low_watermark):
        kernel.ksgxd_waitq.wake_up()
    return result


def sgx_free_epc_page(kernel: Kernel, page: SgxEpcPage) -> None:
    """Put a page at the tail of the free list. Its EPCM entry must be invalid."""
    page.owner = None
    page.flags = IS_FREE
    kernel.nr_free += 1
    if page.poison:
        return
    kernel.free_pages.append(page)


def sgx_mark_page_reclaimable(kernel: Kernel, page: SgxEpcPage) -> None:
    """Put a page at the tail of the reclaimer's list."""
    page.flags |= RECLAIMER_TRACKED
    kernel.active_page_list[page] = None


def sgx_unmark_page_reclaimable(kernel: Kernel, page: SgxEpcPage) -> int:
    """Take a page off the reclaimer's list: 0, or -EBUSY if it is being reclaimed."""
    if page.flags & RECLAIMER_TRACKED:
        if page not in kernel.active_page_list:
            return -EBUSY
        del kernel.active_page_list[page]
        page.flags &= ~RECLAIMER_TRACKED
    return 0


def sgx_reclaim_direct(current: Thread) -> Steps[None]:
    """One reclaim pass if EPC is short. encl.lock must not be held."""
    if sgx_should_reclaim(current.kernel, current.kernel.low_watermark):
        yield from sgx_reclaim_pages(current)


def ksgxd(current: Thread) -> Steps[None]:
    """The reclaim daemon: reclaims up to the high watermark, then sleeps until it is woken.

    `sgx_alloc_epc_page` wakes it when the free pages fall below the low watermark.
    """
    kernel = current.kernel
    while True:
        yield from kernel.ksgxd_waitq.wait_event(
            lambda: sgx_should_reclaim(kernel, kernel.high_watermark)
        )
        kernel.ksgxd_running = True
        yield from sgx_reclaim_pages(current)
        kernel.ksgxd_running = False


# One reclaim pass


def sgx_reclaim_pages(current: Thread) -> Steps[None]:
    """Evict up to `nr_to_scan` pages from the head of the list. No lock is held."""
    kernel = current.kernel
    chunk: list[SgxEpcPage] = []
    yield ("epc", "active_page_list", True)
    # One islice, since a dict finds its first entry by walking over the deleted ones.
    for page in list(islice(kernel.active_page_list, kernel.nr_to_scan)):
        del kernel.active_page_list[page]
        assert page.owner is not None
        if page.owner.encl.kref_get_unless_zero():
            chunk.append(page)
        else:
            # The owner is being destroyed and will free the page itself.
            page.flags &= ~RECLAIMER_TRACKED
    victims: list[tuple[SgxEpcPage, SgxBacking]] = []
    for page in chunk:
        backing = yield from _isolate(current, page)
        if backing is not None:
            victims.append((page, backing))
    for page, _backing in victims:
        yield from sgx_reclaimer_block(current, page)
    for page, backing in victims:
        yield from sgx_reclaimer_write(current, page, backing)
        owner = page.owner
        assert owner is not None
        yield from owner.encl.kref_put(current)
        page.flags &= ~RECLAIMER_TRACKED
        sgx_free_epc_page(kernel, page)


def _isolate(current: Thread, page: SgxEpcPage) -> Steps[SgxBacking | None]:
    """Age a page; if it is old, get its backing and mark it; else put it back."""
    kernel = current.kernel
    owner = page.owner
    assert owner is not None
    encl = owner.encl
    backing = None
    if (yield from sgx_reclaimer_age(current, page)):
        index = (owner.address - encl.base) >> 12
        if kernel.races.backing_without_lock:
            # K10: the backing pages are looked up before the mutex is taken.
            backing = encl.backing.get(index)
        guard = yield from encl.lock.acquire()
        with guard:
            if not kernel.races.backing_without_lock:
                backing = encl.backing.get(index)
            if backing is not None:
                owner.being_reclaimed = True
    if backing is None:
        yield ("epc", "active_page_list", True)
        kernel.active_page_list[page] = None
        yield from encl.kref_put(current)
    return backing


def sgx_reclaimer_age(current: Thread, page: SgxEpcPage) -> Steps[bool]:
    """Age a page: whether no address space accessed it since the last pass; clears the A bit.

    As the kernel's: true for an old page, which may be reclaimed.
    """
    owner = page.owner
    assert owner is not None
    encl = owner.encl
    with (yield from encl.srcu.read_lock()):
        for encl_mm in tuple(encl.mm_list):
            mm = encl_mm.mm
            if mm.exited:
                continue
            with (yield from mm.mmap_lock.acquire_read()):
                vma = mm.vma_lookup(owner.address)
                if vma is not None and vma.encl is encl:
                    if mm.space.test_and_clear_accessed(owner.address):
                        return False
    return True


def sgx_reclaimer_block(current: Thread, page: SgxEpcPage) -> Steps[None]:
    """Zap the PTEs of a page in every address space, then EBLOCK it."""
    owner = page.owner
    assert owner is not None
    encl = owner.encl
    yield from e.sgx_zap_enclave_ptes(current, encl, owner.address)
    with (yield from encl.lock.acquire()):
        ret = yield from encls(current, leaves.EBLOCK, 0, page.address)
        if encls_failed(ret):
            current.kernel.warn(f"EBLOCK of {page}: {ret:#x}")


def sgx_reclaimer_write(current: Thread, page: SgxEpcPage, backing: SgxBacking) -> Steps[None]:
    """EWB a page; evict the SECS too when its last child is gone."""
    owner = page.owner
    assert owner is not None
    encl = owner.encl
    with (yield from encl.lock.acquire()):
        yield from sgx_encl_ewb(current, page, backing)
        backing.put()
        owner.epc_page = None
        encl.secs_child_cnt -= 1
        if not encl.secs_child_cnt and encl.flags & e.SGX_ENCL_INITIALIZED:
            secs_backing = encl.backing.get(encl.size >> 12)
            if secs_backing is None:
                return
            secs = encl.secs.epc_page
            assert secs is not None
            yield from sgx_encl_ewb(current, secs, secs_backing)
            secs_backing.put()
            yield from e.sgx_encl_free_epc_page(current, secs)
            encl.secs.epc_page = None


def sgx_encl_ewb(current: Thread, page: SgxEpcPage, backing: SgxBacking) -> Steps[None]:
    """EWB in up to three attempts: as it is, after ETRACK, after ETRACK and IPIs. Mutex held.

    EWB cannot take a machine check: if the page has a hardware error, the processor shuts down, and
    the kernel panics. K15, or a page that a pass had already taken: commit ed16618c380c.
    """
    kernel = current.kernel
    if page.poison:
        raise KernelBug(f"sgx_encl_ewb: EWB of the poisoned {page!r}: machine check, panic")
    owner = page.owner
    assert owner is not None
    encl = owner.encl
    owner.being_reclaimed = False
    va_page = encl.va_pages[0]
    slot = va_page.alloc_slot()
    if va_page.full:
        encl.va_pages.append(encl.va_pages.pop(0))
    ret = yield from e.__sgx_encl_ewb(current, page, va_page, slot, backing)
    if ret == SGX_NOT_TRACKED:
        secs = encl.secs.epc_page
        assert secs is not None
        tracked = yield from encls(current, leaves.ETRACK, 0, secs.address)
        if encls_failed(tracked):
            kernel.warn(f"ETRACK of {secs}: {tracked:#x}")
        ret = yield from e.__sgx_encl_ewb(current, page, va_page, slot, backing)
        if ret == SGX_NOT_TRACKED:
            # The mask is computed after ETRACK: only threads inside at that moment matter.
            yield from e.sgx_ipi_enclave_cpus(current, encl)
            ret = yield from e.__sgx_encl_ewb(current, page, va_page, slot, backing)
    if ret:
        if encls_failed(ret):
            kernel.warn(f"EWB of {page}: {ret:#x}")
        # The contents are lost, and the EPC page goes to the free list with a valid EPCM entry.
        va_page.free_slot(slot)
    else:
        owner.va_page = va_page
        owner.va_slot = slot
