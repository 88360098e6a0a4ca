"""The invariants of the driver; docs/invariants.md says what and why.

Verified: that the records of the kernel agree with each other and with the EPCM. CHECKS hold
between any two steps, QUIET_CHECKS only while no call is in flight; each only reads and yields a
sentence per violation. Not verified: what a call returns (the moves check that); the V2 interface;
areas whose registration failed at fork, which the kernel itself no longer tracks; two host threads
that take turns on one TCS, which Python programs cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from softsgx.linux.kernel import _OPERAND_BYTES
from softsgx.linux.mm import VM_RWX, Mm, Vma, vm_pte_bits
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx import main as m
from softsgx.mem.pagetable import PTE_NX, PTE_P, PTE_PFN_MASK, PTE_W
from softsgx.mem.tlb import CLEAN, FETCH, WRITE
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import PT_MASK, PT_SHIFT, VALID, child_type
from tests.property.invariants import contents

if TYPE_CHECKING:
    from tests.property.driver_machine import DriverMachine

Findings = Iterator[str]
Check = Callable[["DriverMachine"], Findings]


def pages_of(encl: e.SgxEncl) -> list[e.SgxEnclPage]:
    """The page records of an enclave, including its SECS."""
    return [*encl.page_array.values(), encl.secs]


def spaces(world: DriverMachine) -> list[Mm]:
    """Address spaces of live processes."""
    found: dict[Mm, None] = {}
    for host in world.hosts():
        found[host.thread.mm] = None
    return [mm for mm in found if not mm.exited]


def users(world: DriverMachine) -> dict[int, str]:
    """EPC page number -> its users, according to the records of the enclaves."""
    found: dict[int, str] = {}
    for enclave in world.enclaves:
        encl = enclave.encl
        held = [(entry.epc_page, f"{entry.address:#x}") for entry in pages_of(encl)]
        held += [(va.epc_page, "VA") for va in encl.va_pages]
        for page, what in held:
            if page is not None:
                found[page.number] = f"{found.get(page.number, '')} {encl.name} {what}".strip()
    return found


# Between any two steps


def records_agree_with_the_epcm(world: DriverMachine) -> Findings:
    """D1."""
    epcm = world.processor.epcm
    for enclave in world.enclaves:
        encl = enclave.encl
        for entry in encl.page_array.values():
            if entry.epc_page is None:
                continue
            number, secs = entry.epc_page.number, encl.secs.epc_page
            word = epcm.state[number]
            if secs is None:
                yield f"{encl.name}: {entry.address:#x} is resident, the SECS is not"
            elif not word & VALID or (epcm.secs[number], epcm.address[number]) != (
                secs.number,
                entry.address,
            ):
                yield f"{encl.name}: EPC page {number} is not its page {entry.address:#x}"
            elif word & PT_MASK != entry.type << PT_SHIFT:
                if not enclave.torn and not encl.flags & e.SGX_ENCL_IOCTL:
                    yield f"{encl.name}: {entry.address:#x} is of another type than recorded"


def children_have_records(world: DriverMachine) -> Findings:
    """D2."""
    processor = world.processor
    owners = {x.encl.secs.epc_page.number: x.encl for x in world.enclaves if x.encl.secs.epc_page}
    for number, word in enumerate(processor.epcm.state):
        if word & VALID and child_type(word):
            encl = owners.get(processor.epcm.secs[number])
            entry = None if encl is None else encl.page(processor.epcm.address[number])
            if entry is None or entry.epc_page is None or entry.epc_page.number != number:
                yield f"EPC page {number} is a child, and no record says so"


def children_are_counted(world: DriverMachine) -> Findings:
    """D3."""
    for enclave in world.enclaves:
        encl = enclave.encl
        resident = sum(entry.epc_page is not None for entry in encl.page_array.values())
        if encl.refcount and encl.secs_child_cnt != resident:
            yield f"{encl.name}: secs_child_cnt {encl.secs_child_cnt}, {resident} resident"


def free_pages_are_free(world: DriverMachine) -> Findings:
    """D4."""
    kernel, epcm = world.kernel, world.processor.epcm
    free = [page.number for page in kernel.free_pages]
    if len(free) != len(set(free)):
        yield "a page is on the free list twice"
    if kernel.nr_free != len(free) + epcm.pages - kernel.next_unused:
        yield f"nr_free is {kernel.nr_free}, {len(free)} listed, {kernel.next_unused} ever used"
    used = users(world)
    for number in [*free, *range(kernel.next_unused, epcm.pages)]:
        if epcm.state[number] & VALID:
            yield f"EPC page {number} is on the free list and VALID"
        if number in used:
            yield f"EPC page {number} is on the free list and in use by {used[number]}"
    for number, who in used.items():
        if " " in who.removeprefix("enclave ").partition(" ")[2]:
            yield f"EPC page {number} has two users: {who}"


def reclaimable_pages_are_resident(world: DriverMachine) -> Findings:
    """D5."""
    for page in world.kernel.active_page_list:
        owner = page.owner
        if owner is None or owner.epc_page is not page or not page.flags & m.RECLAIMER_TRACKED:
            yield f"{page} is on the reclaimer's list, and no page of an enclave"
        elif owner.encl.refcount and owner.encl.page(owner.address) is not owner:
            yield f"{page} is on the reclaimer's list, its owner is not in the array"


def versions_are_counted(world: DriverMachine) -> Findings:
    """D6, while the enclave's mutex is free."""
    for enclave in world.enclaves:
        encl = enclave.encl
        if not encl.lock.idle or not encl.refcount:
            continue
        places = {}
        for entry in pages_of(encl):
            if entry.epc_page is not None:
                # A page that came back keeps the pointer to its VA page, at slot 0.
                if entry.va_slot:
                    yield f"{encl.name}: {entry.address:#x} is resident and has a version"
            elif entry.va_page is not None:
                places[entry.va_page.epc_page.number, entry.va_slot] = entry
            elif entry.epc_page is None and (entry is not encl.secs or encl.size):
                if entry is not encl.secs or encl.flags & e.SGX_ENCL_CREATED:
                    yield f"{encl.name}: {entry.address:#x} is neither resident nor evicted"
        used = 0
        for va in encl.va_pages:
            used += bin(va.used).count("1")
            raw = contents(world.processor, va.epc_page.number) if va.used else b""
            for slot in range(0 if not va.used else va.used.bit_length()):
                taken = (va.epc_page.number, slot) in places
                if bool(va.used >> slot & 1) != taken or any(raw[8 * slot : 8 * slot + 8]) != taken:
                    yield f"{encl.name}: slot {slot} of VA page {va.epc_page} is not as recorded"
        if used != len(places):
            yield f"{encl.name}: {used} slots taken, {len(places)} pages evicted"


def entries_lead_home(world: DriverMachine) -> Findings:
    """D7."""
    epc = world.processor.epc
    for mm in spaces(world):
        for page, pte in mm.space.ptes.items():
            number = epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
            if not pte & PTE_P or number < 0 or (mm, page) in world.aliased:
                continue
            address = page << PAGE_SHIFT
            vma = mm.vma_lookup(address)
            if vma is None or not vma.sgx:
                if mm.mmap_lock.idle:
                    yield f"{mm.name}: {address:#x} leads to EPC page {number}, in no area of SGX"
            elif vma.encl is not None:
                yield from _entry_leads_home(world, mm, vma, address, number)


def _entry_leads_home(
    world: DriverMachine, mm: Mm, vma: Vma, address: int, number: int
) -> Findings:
    assert isinstance(vma.encl, e.SgxEncl)
    entry = vma.encl.page(address)
    held = None if entry is None else entry.epc_page
    if held is None or held.number != number:
        enclave = world.enclave_of(vma.encl)
        k2 = world.kernel.races.remove_vs_fault and enclave and address in enclave.removed
        if not k2 and mm not in world.orphans:
            yield f"{mm.name}: {address:#x} leads to EPC page {number}, the page is {entry}, {held}"
    pte = mm.space.lookup(address)
    if mm.mmap_lock.idle and (pte ^ vm_pte_bits(vma.flags)) & (PTE_P | PTE_W | PTE_NX):
        yield f"{mm.name}: {address:#x}: rights of the entry are not those of {vma}"


def mappings_are_registered(world: DriverMachine) -> Findings:
    """D8."""
    for mm in spaces(world):
        for vma in mm.vmas:
            encl = vma.encl
            if encl is None or not mm.mmap_lock.idle:
                continue
            if not any(x.mm is mm for x in encl.mm_list):
                yield f"{mm.name}: {vma} of {encl.name}, which does not know of it"


def ipis_reach_everybody(world: DriverMachine) -> Findings:
    """D9."""
    for slot in world.slots:
        lp = world.processor.lps[slot.cpu]
        if lp.secs is None:
            continue
        owner = next(
            (
                x.encl
                for x in world.enclaves
                if x.encl.secs.epc_page is not None and x.encl.secs.epc_page.number == lp.secs_page
            ),
            None,
        )
        if owner is None:
            yield f"LP {lp.id} is inside an enclave that the kernel has not"
        elif slot.cpu not in e.sgx_encl_cpumask(owner):
            yield f"LP {lp.id} is inside {owner.name}, whose mask lacks it"


def references_are_held(world: DriverMachine) -> Findings:
    """D10."""
    for enclave in world.enclaves:
        encl = enclave.encl
        if encl.refcount < (enclave.file.count > 0) + len(encl.mm_list):
            yield f"{encl.name}: {encl.refcount} references, {len(encl.mm_list)} address spaces"
        if len({id(x.mm) for x in encl.mm_list}) != len(encl.mm_list):
            yield f"{encl.name}: an address space is registered twice"
    for slot in world.slots:
        if slot.host is not None and slot.cpu not in slot.host.thread.mm.cpumask:
            if slot.task is None:
                yield f"cpu {slot.cpu} runs {slot.host.thread.mm.name}, whose mask lacks it"


# When no call is in flight


def locks_are_free(world: DriverMachine) -> Findings:
    """D11."""
    for enclave in world.enclaves:
        encl = enclave.encl
        if not encl.lock.idle or not encl.srcu.idle or encl.flags & e.SGX_ENCL_IOCTL:
            yield f"{encl.name}: a lock, a reader or the busy bit is left"
        for entry in pages_of(encl):
            if entry.busy or entry.being_reclaimed:
                yield f"{encl.name}: {entry.address:#x} is still marked busy"
        for page in [*encl.backing.contents.values(), *encl.backing.pcmds.values()]:
            if page.refs:
                yield f"{encl.name}: a backing page has {page.refs} references"
    for mm in spaces(world):
        if not mm.mmap_lock.idle:
            yield f"{mm.name}: mmap_lock is held"
    if world.processor.claims:
        yield f"claims are left: {world.processor.claims}"


def every_page_is_somewhere(world: DriverMachine) -> Findings:
    """D12."""
    used, kernel = len(users(world)), world.kernel
    leaked = sum("page leaked" in text for text in kernel.warnings)
    total = world.processor.epc.pages
    if kernel.nr_free + used + leaked != total:
        yield f"{kernel.nr_free} free, {used} used, {leaked} leaked of {total} EPC pages"


def resident_pages_are_reclaimable(world: DriverMachine) -> Findings:
    """D13."""
    for enclave in world.enclaves:
        for entry in enclave.encl.page_array.values():
            if entry.epc_page is not None and entry.epc_page not in world.kernel.active_page_list:
                yield f"{enclave.encl.name}: {entry.address:#x} is resident, and never reclaimed"


def references_are_exact(world: DriverMachine) -> Findings:
    """D14."""
    counts: dict[object, int] = {}
    for host in {id(h.process): h for h in world.hosts()}.values():
        for file in host.process.files.values():
            counts[file] = counts.get(file, 0) + 1
    for mm in spaces(world):
        for vma in mm.vmas:
            if vma.file is not None:
                counts[vma.file] = counts.get(vma.file, 0) + 1
    for enclave in world.enclaves:
        encl, file = enclave.encl, enclave.file
        if file.count != counts.get(file, 0):
            yield f"{encl.name}: {file.count} references to its file, {counts.get(file, 0)} holders"
        refs = (file.count > 0) + len(encl.mm_list) + enclave.leaked
        if encl.refcount != refs:
            yield f"{encl.name}: {encl.refcount} references, {refs} holders"
        if encl.page_cnt != len(encl.page_array) + bool(encl.flags & e.SGX_ENCL_CREATED):
            yield f"{encl.name}: page_cnt {encl.page_cnt}, {len(encl.page_array)} records"


def translations_are_current(world: DriverMachine) -> Findings:
    """D15."""
    for slot in world.slots:
        if slot.host is None:
            continue
        lp, space = world.processor.lps[slot.cpu], slot.host.thread.mm.space
        if lp.space is not space:
            yield f"LP {slot.cpu} has another address space loaded than its thread's"
        for page, entry in lp.tlb.entries.items():
            pte = space.ptes.get(page, 0)
            wider = (
                not pte & PTE_P
                or (pte ^ entry) & PTE_PFN_MASK & ~PAGE_MASK
                or (entry & (WRITE | CLEAN) and not pte & PTE_W)
                or (entry & FETCH and pte & PTE_NX)
            )
            if wider:
                yield f"LP {slot.cpu}: translation of {page << PAGE_SHIFT:#x} is stale"


def no_warnings(world: DriverMachine) -> Findings:
    """D16."""
    yield from world.kernel.warnings


CHECKS: dict[str, Check] = {
    f"D{number}": check
    for number, check in enumerate(
        (
            *(records_agree_with_the_epcm, children_have_records, children_are_counted),
            *(free_pages_are_free, reclaimable_pages_are_resident, versions_are_counted),
            *(entries_lead_home, mappings_are_registered, ipis_reach_everybody),
            references_are_held,
        ),
        1,
    )
}
QUIET_CHECKS: dict[str, Check] = {
    f"D{number}": check
    for number, check in enumerate(
        (
            *(locks_are_free, every_page_is_somewhere, resident_pages_are_reclaimable),
            *(references_are_exact, translations_are_current, no_warnings),
        ),
        11,
    )
}


# Checks of a single call


def sigbus_has_a_reason(world: DriverMachine, vma: Vma, address: int) -> Findings:
    """D18: checked in the step in which the fault handler of an SGX area returns SIGBUS."""
    encl, kernel = vma.encl, world.kernel
    page = address & ~PAGE_MASK
    task = world.execution.current
    if encl is None or task in world.blamed or not encl.flags & e.SGX_ENCL_INITIALIZED:
        return
    if not encl.base <= page < encl.base + encl.size:
        return  # an area mapped early or moved by mremap reaches beyond the enclave
    entry = encl.page(page)
    if entry is not None and vma.flags & VM_RWX & ~entry.vm_max_prot_bits:
        return
    if not kernel.nr_free and not kernel.active_page_list:
        return  # nothing can be reclaimed: the EPC is exhausted
    enclave = world.enclave_of(encl)
    if entry is None and enclave is not None and page in enclave.removed:
        return  # REMOVE_PAGES took it between the lookup and the mutex
    if kernel.races.eaug_double_fault and entry is not None:
        return  # K1
    yield f"D18: SIGBUS at {address:#x} in {vma}: the page is {entry}, {kernel.nr_free} pages free"


def nothing_is_left(world: DriverMachine) -> Findings:
    """D19: checked after the last process has ended."""
    kernel = world.kernel
    kept = [x for x in world.enclaves if not x.leaked]
    if kept:
        yield f"enclaves are left: {[x.encl.name for x in kept]}"
    if not world.enclaves and kernel.nr_free != world.processor.epc.pages:
        yield f"{kernel.nr_free} of {world.processor.epc.pages} EPC pages are free"
    if not world.enclaves:
        yield from _memory_is_free(world)


def _memory_is_free(world: DriverMachine) -> Findings:
    kernel, memory = world.kernel, world.processor.memory
    frames, rest = divmod(len(kernel._operands), PAGE_SIZE // _OPERAND_BYTES)
    if rest:
        yield f"{rest} operand blocks more or less than frames hold"
    taken = memory._next - 2 - frames - len(kernel._frames)  # frame 0, the page of zeroes
    if taken:
        yield f"{taken} frames of ordinary memory are left"
