"""Enclaves: objects, page loading, page faults, address spaces. Linux 6.12, sgx/encl.c.

`encl.lock`, the mutex of an enclave, protects its page descriptors, types and caps, the child
count, VA pages and slots, and every ENCLS on its pages. It nests inside mmap_lock; so PTEs, whose
removal takes foreign mmap_locks, are never zapped with the mutex held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import EACCES, EBUSY, EFAULT, EINTR, ENOMEM
from softsgx.linux.mm import VM_RWX, Mm, Vma
from softsgx.linux.process import Thread
from softsgx.linux.sgx import main as m  # and main imports encl, as the kernel's files do
from softsgx.linux.sgx.backing import PCMDS_PER_PAGE, SgxBacking, Shmem
from softsgx.linux.sgx.encls import encls, encls_failed
from softsgx.linux.smp import flush_tlb_mm, on_each_cpu_mask
from softsgx.linux.trace import refused
from softsgx.mem.pagetable import direct
from softsgx.sim import Steps
from softsgx.sim.locks import Mutex
from softsgx.sim.srcu import Srcu
from softsgx.spec import leaves
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SHIFT
from softsgx.spec.epcm import PT_REG, PT_VA, W
from softsgx.spec.paging import PAGEINFO, VA_SLOTS

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.sgx.main import SgxEpcPage

# Bits of encl.flags; the kernel uses the constants as bit numbers.
SGX_ENCL_IOCTL: Final = 1 << 1
SGX_ENCL_DEBUG: Final = 1 << 2
SGX_ENCL_CREATED: Final = 1 << 4
SGX_ENCL_INITIALIZED: Final = 1 << 8

SGX_VA_SLOT_COUNT: Final = VA_SLOTS
XA_CHECK_SCHED: Final = 4096
_ALL_SLOTS: Final = (1 << SGX_VA_SLOT_COUNT) - 1

# Results of the fault handler.
VM_FAULT_NOPAGE: Final = "VM_FAULT_NOPAGE"
# As VM_FAULT_NOPAGE, but nothing was mapped: the access faults again, until what it needs (a page
# that the reclaimer or an ioctl holds, or free EPC) is there.
VM_FAULT_BUSY: Final = "VM_FAULT_NOPAGE, busy"
VM_FAULT_SIGBUS: Final = "VM_FAULT_SIGBUS"
VM_FAULT_OOM: Final = "VM_FAULT_OOM"


class SgxVaPage:
    """struct sgx_va_page: an EPC page of 512 version slots; `used` is a bit mask of them."""

    __slots__ = ("epc_page", "used")

    def __init__(self, epc_page: SgxEpcPage) -> None:
        self.epc_page = epc_page
        self.used = 0

    @property
    def full(self) -> bool:
        """No slot is free."""
        return self.used == _ALL_SLOTS

    def alloc_slot(self) -> int:
        """Take the first free slot and return its number."""
        free = ~self.used & _ALL_SLOTS
        assert free, "VA page has no free slot"
        slot = (free & -free).bit_length() - 1
        self.used |= 1 << slot
        return slot

    def free_slot(self, slot: int) -> None:
        """Give a slot back."""
        self.used &= ~(1 << slot)


class SgxEnclPage:
    """struct sgx_encl_page: the kernel's record of one enclave page. Protected by encl.lock.

    `type` is 0 until the page has been added. `epc_page` is None while the page is swapped out. Its
    version is then in slot `va_slot` of `va_page`. If EWB failed, both are stale: the VA page of
    the last reload, and slot 0. `vm_run_prot_bits` is used by the V2 series only, `busy` only by
    the fixes of K2 and K3.
    """

    __slots__ = (
        *("address", "being_reclaimed", "busy", "encl", "epc_page", "type", "va_page", "va_slot"),
        *("vm_max_prot_bits", "vm_run_prot_bits"),
    )

    def __init__(self, encl: SgxEncl, address: int, prot: int) -> None:
        self.encl = encl
        self.address = address
        self.vm_max_prot_bits = prot
        self.vm_run_prot_bits = prot
        self.type = 0
        self.epc_page: SgxEpcPage | None = None
        self.va_page: SgxVaPage | None = None
        self.va_slot = 0
        self.being_reclaimed = False
        self.busy = False

    @property
    def available(self) -> bool:
        """Resident, and neither being reclaimed nor busy."""
        return not (self.epc_page is None or self.being_reclaimed or self.busy)


class SgxEnclMm:
    """struct sgx_encl_mm: an address space that maps, or once mapped, the enclave."""

    __slots__ = ("encl", "mm")

    def __init__(self, encl: SgxEncl, mm: Mm) -> None:
        self.encl = encl
        self.mm = mm


class SgxEncl:
    """struct sgx_encl: one open /dev/sgx_enclave is one enclave."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.name = name
        self.number = kernel.enclaves_opened
        self.refcount = 1
        self.lock = Mutex(f"encl->lock({name})")
        # Set by CREATE under the ioctl busy bit.
        self.base = 0
        self.size = 0
        self.attributes = 0
        self.attributes_mask = 0
        self.flags = 0
        # Protected by encl.lock (and, while building, by the busy bit).
        self.page_cnt = 0
        self.secs_child_cnt = 0
        self.page_array: dict[int, SgxEnclPage] = {}
        self.secs = SgxEnclPage(self, 0, 0)
        self.va_pages: list[SgxVaPage] = []
        self.backing = Shmem(kernel)
        # Protected by mm_lock, a spinlock (no point divides its sections); walked under SRCU.
        self.mm_list: list[SgxEnclMm] = []
        self.mm_list_version = 0
        self.srcu = Srcu(f"encl->srcu({name})")

    def kref_get_unless_zero(self) -> bool:
        """Take a reference unless the enclave is being destroyed."""
        if not self.refcount:
            return False
        self.refcount += 1
        return True

    def kref_put(self, current: Thread) -> Steps[None]:
        """Drop a reference; the last one destroys the enclave."""
        self.refcount -= 1
        assert self.refcount >= 0, f"{self.name}: reference count below zero"
        if not self.refcount:
            yield from sgx_encl_release(current, self)

    def page(self, address: int) -> SgxEnclPage | None:
        """xa_load of the page array."""
        return self.page_array.get(address >> PAGE_SHIFT)


def sgx_encl_state(encl: SgxEncl) -> dict[str, int]:
    """The state of an enclave, for the event of a call that came too early or too late."""
    created = bool(encl.flags & SGX_ENCL_CREATED)
    return {"created": int(created), "initialised": int(bool(encl.flags & SGX_ENCL_INITIALIZED))}


# VA pages


def sgx_encl_grow(current: Thread, encl: SgxEncl, reclaim: bool) -> Steps[SgxVaPage | int | None]:
    """Count one more page. One page in 512 needs a new VA page: that, None, or an errno.

    The caller adds it to the list by `sgx_encl_add_va_page`: under encl.lock, except in CREATE.
    """
    va_page: SgxVaPage | None = None
    if encl.page_cnt % SGX_VA_SLOT_COUNT == 0:
        if current.kernel.fail("sgx_encl_grow"):
            return refused(current, ENOMEM, "kmalloc.memory")
        epc_page = yield from m.sgx_alloc_epc_page(current, None, reclaim)
        if isinstance(epc_page, int):
            return epc_page
        ret = yield from encls(current, leaves.EPA, PT_VA, epc_page.address)
        if ret:
            current.kernel.warn(f"EPA of {epc_page}: {ret:#x}")
            yield from sgx_encl_free_epc_page(current, epc_page)
            return refused(current, EFAULT, "sgx_alloc_va_page.EPA")
        va_page = SgxVaPage(epc_page)
    encl.page_cnt += 1
    return va_page


def sgx_encl_add_va_page(encl: SgxEncl, va_page: SgxVaPage | None) -> None:
    """Put the VA page that `sgx_encl_grow` returned, if any, at the head of the list."""
    if va_page is not None:
        encl.va_pages.insert(0, va_page)


def sgx_encl_shrink(current: Thread, encl: SgxEncl, va_page: SgxVaPage | None) -> Steps[None]:
    """Undo `sgx_encl_grow`."""
    encl.page_cnt -= 1
    if va_page is not None:
        yield from sgx_encl_free_epc_page(current, va_page.epc_page)
        encl.va_pages.remove(va_page)


def sgx_encl_free_epc_page(current: Thread, page: SgxEpcPage) -> Steps[None]:
    """EREMOVE, then the free list; a page that cannot be removed is leaked with a warning."""
    if page.flags & m.RECLAIMER_TRACKED:
        current.kernel.warn(f"{page} is freed while the reclaimer tracks it")
    ret = yield from encls(current, leaves.EREMOVE, 0, page.address)
    if ret:
        current.kernel.warn(f"EREMOVE of {page}: {ret:#x}: page leaked")
        return
    m.sgx_free_epc_page(current.kernel, page)


# Eviction and reload of one page; encl.lock held


def _encls_pageinfo(
    current: Thread, leaf: int, pageinfo: bytes, epc: int, rdx: int = 0
) -> Steps[int]:
    """An ENCLS leaf with a PAGEINFO at RBX and the EPC page at RCX."""
    kernel = current.kernel
    block = kernel.get_operands()
    kernel.processor.memory.write(block.physical, pageinfo)
    ret = yield from encls(current, leaf, block.address, epc, rdx)
    kernel.put_operands(block)
    return ret


def __sgx_encl_ewb(
    current: Thread, page: SgxEpcPage, va_page: SgxVaPage, slot: int, backing: SgxBacking
) -> Steps[int]:
    """One EWB."""
    pginfo = PAGEINFO.S.pack(0, backing.contents_address, direct(backing.pcmd_physical), 0)
    rdx = va_page.epc_page.address + 8 * slot
    return _encls_pageinfo(current, leaves.EWB, pginfo, page.address, rdx)


def __sgx_encl_eldu(
    current: Thread, encl_page: SgxEnclPage, epc_page: SgxEpcPage, secs: SgxEpcPage | None
) -> Steps[int]:
    """ELDU of a page; its backing is truncated whether or not ELDU succeeds."""
    kernel = current.kernel
    encl = encl_page.encl
    is_secs = secs is None
    index = encl.size >> PAGE_SHIFT if is_secs else (encl_page.address - encl.base) >> PAGE_SHIFT
    backing = encl.backing.get(index)
    if backing is None:
        return refused(current, ENOMEM, "sgx_encl_get_backing.memory")
    if encl_page.va_page is None:
        raise KernelBug("__sgx_encl_eldu: NULL dereference of encl_page->va_page: its EWB failed")
    linaddr, parent = (0, 0) if secs is None else (encl_page.address, secs.address)
    pcmd = direct(backing.pcmd_physical)
    pginfo = PAGEINFO.S.pack(linaddr, backing.contents_address, pcmd, parent)
    rdx = encl_page.va_page.epc_page.address + 8 * encl_page.va_slot
    ret = yield from _encls_pageinfo(current, leaves.ELDU, pginfo, epc_page.address, rdx)
    if ret:
        if encls_failed(ret):
            kernel.warn(f"ELDU of {encl_page.address:#x}: {ret:#x}")
        ret = refused(current, EFAULT, "__sgx_encl_eldu.ELDU")
    pcmd_page_empty = backing.clear_pcmd()
    backing.put()
    encl.backing.truncate_contents(index)
    if pcmd_page_empty:
        writing = not kernel.races.pcmd_truncated and reclaimer_writing_to_pcmd(encl, index)
        if not writing:
            encl.backing.truncate_pcmd(index)
    return ret


def reclaimer_writing_to_pcmd(encl: SgxEncl, index: int) -> bool:
    """Whether a page that shares the PCMD page of `index` is being evicted."""
    first = index & ~(PCMDS_PER_PAGE - 1)
    # The SECS need not be tested: it is evicted under the mutex, in one go.
    for number in range(first, first + PCMDS_PER_PAGE):
        entry = encl.page(encl.base + (number << PAGE_SHIFT))
        if entry is not None and entry.epc_page is not None and entry.being_reclaimed:
            return True
    return False


def sgx_encl_eldu(
    current: Thread, encl_page: SgxEnclPage, secs: SgxEpcPage | None
) -> Steps[SgxEpcPage | int]:
    """Bring a page back from its backing store."""
    encl = encl_page.encl
    epc_page = yield from m.sgx_alloc_epc_page(current, encl_page, False)
    if isinstance(epc_page, int):
        return epc_page
    ret = yield from __sgx_encl_eldu(current, encl_page, epc_page, secs)
    if ret:
        yield from sgx_encl_free_epc_page(current, epc_page)
        return ret
    va_page = encl_page.va_page
    assert va_page is not None
    va_page.free_slot(encl_page.va_slot)
    encl.va_pages.remove(va_page)
    encl.va_pages.insert(0, va_page)
    encl_page.va_slot = 0  # `va_page` stays, and is stale if the next EWB fails
    encl_page.epc_page = epc_page
    return epc_page


def sgx_encl_load_secs(current: Thread, encl: SgxEncl) -> Steps[SgxEpcPage | int]:
    """Make sure that the SECS is resident."""
    secs = encl.secs.epc_page
    if secs is not None:
        return secs
    return (yield from sgx_encl_eldu(current, encl.secs, None))


def __sgx_encl_load_page(
    current: Thread, encl: SgxEncl, entry: SgxEnclPage
) -> Steps[SgxEnclPage | int]:
    """Make sure that a page is resident; -EBUSY while it is being reclaimed, or busy."""
    if entry.available:
        return entry
    if entry.busy or entry.epc_page is not None:
        return refused(current, EBUSY, "__sgx_encl_load_page.reclaimed", address=entry.address)
    secs = yield from sgx_encl_load_secs(current, encl)
    if isinstance(secs, int):
        return secs
    epc_page = yield from sgx_encl_eldu(current, entry, secs)
    if isinstance(epc_page, int):
        return epc_page
    encl.secs_child_cnt += 1
    m.sgx_mark_page_reclaimable(current.kernel, epc_page)
    return entry


def sgx_encl_load_page_in_vma(
    current: Thread, encl: SgxEncl, address: int, vm_flags: int
) -> Steps[SgxEnclPage | int]:
    """For a fault: the area's rights must all be within the cap of the page."""
    entry = encl.page(address)
    if entry is None:
        return refused(current, EFAULT, "sgx_encl_load_page_in_vma.absent", address=address)
    if vm_flags & VM_RWX & ~entry.vm_max_prot_bits:
        cap, rights = entry.vm_max_prot_bits, vm_flags & VM_RWX
        rule = "sgx_encl_load_page_in_vma.cap"
        return refused(current, EFAULT, rule, address=address, prot=rights, cap=cap)
    return (yield from __sgx_encl_load_page(current, encl, entry))


def sgx_encl_load_page(current: Thread, encl: SgxEncl, address: int) -> Steps[SgxEnclPage | int]:
    """For the ioctls: as for a fault, without an area."""
    entry = encl.page(address)
    if entry is None:
        # K11: the sum of base and offset wraps as in C.
        return refused(current, EFAULT, "sgx_encl_load_page.absent", address=address & MASK64)
    return (yield from __sgx_encl_load_page(current, encl, entry))


# Page faults; mmap_lock held for reading


def sgx_vma_fault(current: Thread, vma: Vma, address: int) -> Steps[str]:
    """The fault handler of an SGX area: map the page, swap it in, or add it.

    The kind of access does not matter.
    """
    encl = vma.encl
    if encl is None:
        return VM_FAULT_SIGBUS  # registration failed at fork
    address &= ~PAGE_MASK
    kernel = current.kernel
    yield ("xa_load", (encl.name, address), False)
    if kernel.has_sgx2 and encl.page(address) is None:
        if kernel.races.direct_reclaim_in_fault:
            return (yield from eaug_page_direct_reclaim(current, vma, encl, address))
        return (yield from sgx_encl_eaug_page(current, vma, encl, address))
    with (yield from encl.lock.acquire()):
        if not kernel.races.lookup_before_removal and encl.page(address) is None:
            return VM_FAULT_BUSY  # L7 fixed: the page was removed after the look-up above
        rights = kernel.version.interface.fault_rights(vma)
        entry = yield from sgx_encl_load_page_in_vma(current, encl, address, rights)
        if isinstance(entry, int):
            return _busy_or_sigbus(entry)
        assert entry.epc_page is not None
        if (yield from kernel.design.before_pte(current, encl, entry)):
            return VM_FAULT_SIGBUS
        pfn = entry.epc_page.pfn
        mm = current.mm
        yield ("pte", (mm.name, address), True)
        if mm.insert_pfn(address, pfn, kernel.version.interface.pte_rights(vma, entry)):
            return VM_FAULT_SIGBUS
        mm.space.test_and_clear_accessed(address)
    return VM_FAULT_NOPAGE


def _busy_or_sigbus(error: int) -> str:
    """-EBUSY (a busy page, or EPC short at the moment): the access is tried again. Else SIGBUS."""
    return VM_FAULT_BUSY if error == -EBUSY else VM_FAULT_SIGBUS


def sgx_vma_pfn_mkwrite(current: Thread, vma: Vma, address: int) -> Steps[str]:
    """V2 only: a write to a page whose PTE lacks W. Only the mirror decides."""
    encl = vma.encl
    if encl is None:
        return VM_FAULT_SIGBUS
    address &= ~PAGE_MASK
    with (yield from encl.lock.acquire()):
        entry = encl.page(address)
        if entry is None or not entry.vm_run_prot_bits & W:
            return VM_FAULT_SIGBUS
    return VM_FAULT_NOPAGE


def sgx_encl_eaug_page(current: Thread, vma: Vma, encl: SgxEncl, address: int) -> Steps[str]:
    """Add a page on first touch. The enclave must accept it."""
    kernel = current.kernel
    if not encl.flags & SGX_ENCL_INITIALIZED:
        return VM_FAULT_SIGBUS
    if kernel.fail("sgx_encl_page_alloc"):
        return VM_FAULT_OOM
    encl_page = SgxEnclPage(encl, address, kernel.version.eaug_cap)
    with (yield from encl.lock.acquire()):
        if not kernel.races.eaug_double_fault and encl.page(address) is not None:
            return VM_FAULT_NOPAGE  # K1 fixed: another thread was faster
        secs = encl.secs.epc_page
        # K5: not loaded if the reclaimer has just evicted it.
        if secs is None and not kernel.races.eaug_without_secs:
            loaded = yield from sgx_encl_load_secs(current, encl)
            if isinstance(loaded, int):
                return _busy_or_sigbus(loaded)
            secs = loaded
        epc_page = yield from m.sgx_alloc_epc_page(current, encl_page, False)
        if isinstance(epc_page, int):
            return _busy_or_sigbus(epc_page)
        va_page = yield from sgx_encl_grow(current, encl, False)
        if isinstance(va_page, int):
            yield from sgx_encl_free_epc_page(current, epc_page)
            if kernel.races.va_shortage_is_sigbus:
                return VM_FAULT_SIGBUS  # K6
            return _busy_or_sigbus(va_page)
        sgx_encl_add_va_page(encl, va_page)
        failed = yield from _eaug_insert(current, encl_page, epc_page, secs)
        if failed:
            yield from sgx_encl_shrink(current, encl, va_page)
            yield from sgx_encl_free_epc_page(current, epc_page)
            return VM_FAULT_SIGBUS
        return (yield from _eaug_done(current, vma, encl_page, epc_page))


def eaug_page_direct_reclaim(current: Thread, vma: Vma, encl: SgxEncl, address: int) -> Steps[str]:
    """K8: as above, but allocates with direct reclaim, mmap_lock held, before it takes the mutex.

    Any failure is SIGBUS, and pages are counted without the mutex.
    """
    kernel = current.kernel
    if not encl.flags & SGX_ENCL_INITIALIZED:
        return VM_FAULT_SIGBUS
    if kernel.fail("sgx_encl_page_alloc"):
        return VM_FAULT_OOM
    encl_page = SgxEnclPage(encl, address, kernel.version.eaug_cap)
    epc_page = yield from m.sgx_alloc_epc_page(current, encl_page, True)
    if isinstance(epc_page, int):
        return VM_FAULT_SIGBUS
    va_page = yield from sgx_encl_grow(current, encl, True)
    if isinstance(va_page, int):
        yield from sgx_encl_free_epc_page(current, epc_page)
        return VM_FAULT_SIGBUS
    with (yield from encl.lock.acquire()):
        sgx_encl_add_va_page(encl, va_page)
        if not kernel.races.eaug_double_fault and encl.page(address) is not None:
            yield from sgx_encl_shrink(current, encl, va_page)
            yield from sgx_encl_free_epc_page(current, epc_page)
            return VM_FAULT_NOPAGE  # K1 fixed: another thread was faster
        secs: SgxEpcPage | int | None = encl.secs.epc_page
        if not kernel.races.eaug_without_secs:
            secs = yield from sgx_encl_load_secs(current, encl)
        if isinstance(secs, int) or (yield from _eaug_insert(current, encl_page, epc_page, secs)):
            yield from sgx_encl_shrink(current, encl, va_page)
            yield from sgx_encl_free_epc_page(current, epc_page)
            return VM_FAULT_SIGBUS
        return (yield from _eaug_done(current, vma, encl_page, epc_page))


def _eaug_done(
    current: Thread, vma: Vma, encl_page: SgxEnclPage, epc_page: SgxEpcPage
) -> Steps[str]:
    """The page exists: record it, track it, map it."""
    kernel, encl = current.kernel, encl_page.encl
    encl_page.epc_page = epc_page
    encl_page.type = PT_REG
    encl.secs_child_cnt += 1
    m.sgx_mark_page_reclaimable(kernel, epc_page)
    yield ("pte", (current.mm.name, encl_page.address), True)
    rights = kernel.version.interface.eaug_pte_rights(vma)
    if current.mm.insert_pfn(encl_page.address, epc_page.pfn, rights):
        return VM_FAULT_SIGBUS
    return VM_FAULT_NOPAGE


def _eaug_insert(
    current: Thread, encl_page: SgxEnclPage, epc_page: SgxEpcPage, secs: SgxEpcPage | None
) -> Steps[bool]:
    """Insert into the page array, then EAUG. True if either failed; then nothing is inserted."""
    kernel = current.kernel
    encl = encl_page.encl
    index = encl_page.address >> PAGE_SHIFT
    if index in encl.page_array or kernel.fail("xa_insert"):
        return True  # K1: also when another thread has inserted the same page
    encl.page_array[index] = encl_page
    if secs is None:
        raise KernelBug("sgx_encl_eaug_page: NULL dereference of encl->secs.epc_page")
    pginfo = PAGEINFO.S.pack(encl_page.address, 0, 0, secs.address)
    ret = yield from _encls_pageinfo(current, leaves.EAUG, pginfo, epc_page.address)
    if ret:
        del encl.page_array[index]
        return True
    return False


# Rights of mappings


def sgx_encl_may_map(
    current: Thread, encl: SgxEncl, start: int, end: int, flags: int
) -> Steps[int]:
    """0 if [start, end) may be mapped with the given R, W, X, else -EACCES."""
    if encl.flags & SGX_ENCL_INITIALIZED and (start < encl.base or end > encl.base + encl.size):
        rule = "sgx_encl_may_map.range"
        return refused(current, EACCES, rule, base=encl.base, size=encl.size)
    if current.mm.read_implies_exec:
        return refused(current, EACCES, "sgx_encl_may_map.personality")
    mapping_cap = encl.kernel.version.interface.mapping_cap
    prot = flags & VM_RWX
    first, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
    indices = [first]
    while indices:
        # The mutex is dropped every XA_CHECK_SCHED pages, to let others run.
        with (yield from encl.lock.acquire()):
            indices = _indices_in(encl, first, last)[:XA_CHECK_SCHED]
            for index in indices:
                cap = mapping_cap(encl.page_array[index])
                if prot & ~cap:
                    rule, at = "sgx_encl_may_map.cap", index << PAGE_SHIFT
                    return refused(current, EACCES, rule, address=at, prot=prot, cap=cap)
        if len(indices) < XA_CHECK_SCHED:
            break
        first = indices[-1] + 1
    return 0


def _indices_in(encl: SgxEncl, first: int, last: int) -> list[int]:
    array = encl.page_array
    if last - first > len(array):
        return sorted(index for index in array if first <= index < last)
    return [index for index in range(first, last) if index in array]


# Address spaces


def sgx_encl_mm_add(current: Thread, encl: SgxEncl, mm: Mm) -> Steps[int]:
    """Register an address space with the enclave; mmap_lock of `mm` held for writing."""
    if any(entry.mm is mm for entry in encl.mm_list):
        return 0
    if current.kernel.fail("sgx_encl_mm_add"):
        return refused(current, ENOMEM, "kmalloc.memory")
    entry = SgxEnclMm(encl, mm)
    encl.refcount += 1
    # The errors below do not drop the reference taken above: the enclave is never freed.
    if current.kernel.fail("mmu_notifier_register"):
        return refused(current, ENOMEM, "kmalloc.memory")
    if current.signal_pending():
        return refused(current, EINTR, "sgx_encl_mm_add.signal")
    mm.notifiers.append(lambda exiting: _mmu_notifier_release(exiting, entry))
    yield ("mm_list", encl.name, True)
    encl.mm_list.insert(0, entry)  # list_add_rcu: at the head
    encl.mm_list_version += 1
    return 0


def _mmu_notifier_release(current: Thread, entry: SgxEnclMm) -> Steps[None]:
    """The address space exits before the file is released: unlink it, wait for readers, put."""
    encl = entry.encl
    yield ("mm_list", encl.name, True)
    if entry in encl.mm_list:
        encl.mm_list.remove(entry)
        yield from encl.srcu.synchronize()
        yield from encl.kref_put(current)


def sgx_zap_enclave_ptes(current: Thread, encl: SgxEncl, address: int) -> Steps[None]:
    """Remove the PTEs of one page in every address space. The mutex must not be held."""
    while True:
        version = encl.mm_list_version
        with (yield from encl.srcu.read_lock()):
            for encl_mm in tuple(encl.mm_list):
                if not encl_mm.mm.exited:
                    yield from _zap_pte(current, encl, encl_mm.mm, address)
        if encl.mm_list_version == version:
            return


def _zap_pte(current: Thread, encl: SgxEncl, mm: Mm, address: int) -> Steps[None]:
    """zap_vma_ptes of one page in one address space."""
    with (yield from mm.mmap_lock.acquire_read()):
        vma = mm.vma_lookup(address)
        if vma is not None and vma.encl is encl:
            yield ("pte", (mm.name, address), True)
            if mm.space.unmap(address):
                yield from flush_tlb_mm(current, mm)


def sgx_encl_cpumask(encl: SgxEncl) -> dict[int, None]:
    """Processors on which an address space of the enclave is loaded.

    The caller holds the SRCU read side; the kernel's function takes it by itself.
    """
    mask: dict[int, None] = {}
    for encl_mm in encl.mm_list:
        if not encl_mm.mm.exited:
            mask.update(dict.fromkeys(encl_mm.mm.cpumask))
    return mask


def sgx_ipi_enclave_cpus(current: Thread, encl: SgxEncl) -> Steps[None]:
    """Interrupt every processor that may run the enclave: a thread that is inside takes an AEX."""
    with (yield from encl.srcu.read_lock()):
        cpus = sgx_encl_cpumask(encl)
    yield from on_each_cpu_mask(current, cpus)


# The end


def sgx_encl_release(current: Thread, encl: SgxEncl) -> Steps[None]:
    """The last reference is gone: free every EPC page, the backing store and the rest."""
    kernel = current.kernel
    for _, entry in sorted(encl.page_array.items()):
        if entry.epc_page is not None:
            if m.sgx_unmark_page_reclaimable(kernel, entry.epc_page):
                continue  # the reclaimer holds it, and frees it
            yield from sgx_encl_free_epc_page(current, entry.epc_page)
            encl.secs_child_cnt -= 1
            entry.epc_page = None
    encl.page_array.clear()
    if not encl.secs_child_cnt and encl.secs.epc_page is not None:
        yield from sgx_encl_free_epc_page(current, encl.secs.epc_page)
        encl.secs.epc_page = None
    while encl.va_pages:
        va_page = encl.va_pages.pop(0)
        yield from sgx_encl_free_epc_page(current, va_page.epc_page)
    encl.backing.close()
    if encl.mm_list:
        kernel.warn(f"{encl.name}: an address space is left at release")
    if encl.secs_child_cnt:
        kernel.warn(f"{encl.name}: {encl.secs_child_cnt} children left at release")
    if encl.secs.epc_page is not None:
        kernel.warn(f"{encl.name}: the SECS is left at release")
