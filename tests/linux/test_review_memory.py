"""Memory management against Linux 6.12: what a review found to differ, one test each."""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.linux import syscalls
from softsgx.linux.errno import EACCES, EEXIST, EINVAL, ENODEV, EOPNOTSUPP, EPERM
from softsgx.linux.fault import do_user_addr_fault
from softsgx.linux.mm import DEFAULT_MMAP_MIN_ADDR, TASK_SIZE
from softsgx.linux.process import Process, Thread
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.uaccess import copy_from_user, copy_to_user
from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_DROPPABLE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_SEM,
)
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_P, PTE_W
from softsgx.sim import Steps, Unmodelled
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W, X
from softsgx.spec.faults import PFEC_P, PFEC_U, PFEC_W
from softsgx.system import EnclaveThread, Machine, SignalRaised
from tests.linux.held import Held, Until, at, to_the_end
from tests.linux.test_races import alone
from tests.linux.world import world

ANON = MAP_PRIVATE | MAP_ANONYMOUS
HINT = 0x5000_0000_0000
MOVE = MREMAP_MAYMOVE | MREMAP_FIXED


def store(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"x")


def play(machine: Machine, stages: list[tuple[str, Until]], **bodies: Steps[Any]) -> None:
    """Run bodies on processors 0 and up by the schedule."""
    machine.settle()
    execution = machine.execution(Held(*stages), max_steps=10_000)
    for cpu, (name, body) in enumerate(bodies.items()):
        execution.spawn(body, name, cpu)
    execution.run()
    execution.close()


def flushes(machine: Machine, cpu: int, body: Steps[Any]) -> int:
    """How often a processor's TLB is flushed meanwhile."""
    tlb = machine.processor.lps[cpu].tlb
    before: int = tlb.flushes
    machine.run(body)
    return tlb.flushes - before


# munmap


def test_a_frame_is_not_freed_while_a_tlb_holds_it() -> None:
    """munmap zaps, flushes, then frees: a stale translation reaches no frame of another process."""
    machine = Machine(cpus=3)
    a = machine.thread()
    b = machine.thread(a.process, 1, "b")
    victim = machine.thread(machine.process("victim"), 2, "victim")
    page = machine.run(a.alloc(PAGE_SIZE))
    for host in (a, b):
        machine.run(host.store(page, b"old!"))
    other = machine.run(victim.alloc(PAGE_SIZE))
    seen: list[bytes] = []

    def unmapping() -> Steps[None]:
        yield from a.munmap(page, PAGE_SIZE)

    def stale() -> Steps[None]:
        try:
            yield from b.store(page, b"EVIL")
        except SignalRaised:
            seen.append(b"SIGSEGV")

    def writing() -> Steps[None]:
        yield from victim.store(other, b"good")
        yield ("pause", "", False)
        seen.append((yield from victim.load(other, 4)))

    stages = [("a", at("ipi")), ("v", at("pause")), ("b", to_the_end), ("v", to_the_end)]
    play(machine, stages, a=unmapping(), b=stale(), v=writing())
    assert seen[-1] == b"good"


def test_faults_elsewhere_do_not_wait_for_the_zap_of_munmap() -> None:
    """mmap_lock is held for reading once the areas are removed."""
    machine = Machine(cpus=2)
    a = machine.thread()
    b = machine.thread(a.process, 1, "b")
    gone, kept = (machine.run(a.alloc(2 * PAGE_SIZE)) for _ in range(2))
    machine.run(a.store(gone, b"x"))
    ended: list[str] = []

    def unmapping() -> Steps[None]:
        assert (yield from a.munmap(gone, 2 * PAGE_SIZE)) == 0
        ended.append("munmap")

    def faulting() -> Steps[None]:
        yield from b.load(kept, 1)
        ended.append("fault")
        with pytest.raises(SignalRaised):
            yield from b.load(gone + PAGE_SIZE, 1)
        ended.append("no area")

    play(machine, [("a", at("pte")), ("b", to_the_end)], a=unmapping(), b=faulting())
    assert ended == ["fault", "no area", "munmap"]


@pytest.mark.parametrize("shrink", [False, True], ids=["munmap", "mremap"])
def test_reclaimer_may_pass_an_area_that_is_being_unmapped(shrink: bool) -> None:
    """The page is evicted while its entry still stands; the flush of munmap comes later."""
    w = world(pages=2)
    page = w.enclave.data[1]
    w.call(store, page)
    w.machine.settle()
    alone(w, page)
    reclaimer = Thread(w.kernel, None, "reclaimer", 1)
    seen: list[bool] = []

    def unmapping() -> Steps[None]:
        if shrink:
            yield from w.host.mremap(page - PAGE_SIZE, 2 * PAGE_SIZE, PAGE_SIZE, 0)
        else:
            yield from w.host.munmap(page, PAGE_SIZE)

    def reclaiming() -> Steps[None]:
        yield from sgx_reclaim_pages(reclaimer)
        seen.append(bool(w.mm.space.lookup(page) & PTE_P))

    play(w.machine, [("a", at("pte")), ("r", to_the_end)], a=unmapping(), r=reclaiming())
    assert seen == [True]
    assert w.mm.space.lookup(page) == 0
    assert w.kernel.warnings == []


def test_a_fixed_mapping_over_another_keeps_the_lock_for_writing() -> None:
    """mmap(MAP_FIXED) must not show the hole between the old area and the new one."""
    machine = Machine(cpus=2)
    a = machine.thread()
    b = machine.thread(a.process, 1, "b")
    page = machine.run(a.alloc(2 * PAGE_SIZE))
    machine.run(a.store(page, b"old"))
    seen: list[bytes] = []

    def mapping() -> Steps[None]:
        yield from a.mmap(page, 2 * PAGE_SIZE, R | W, ANON | MAP_FIXED)

    def loading() -> Steps[None]:
        seen.append((yield from b.load(page + PAGE_SIZE, 3)))

    play(machine, [("a", at("pte")), ("b", to_the_end)], a=mapping(), b=loading())
    assert seen == [bytes(3)]


# TLB flushes


def test_no_flush_where_nothing_was_mapped() -> None:
    w = world()
    machine = w.machine
    machine.thread(w.host.process, 1, "other")
    page = w.do(w.host.alloc(PAGE_SIZE))
    heap = w.enclave.heap
    assert flushes(machine, 1, w.host.mprotect(heap, PAGE_SIZE, R)) == 0
    assert flushes(machine, 1, w.host.mprotect(page, PAGE_SIZE, R)) == 0
    assert flushes(machine, 1, w.host.munmap(page, PAGE_SIZE)) == 0


def test_a_flush_where_rights_of_an_entry_change() -> None:
    w = world()
    machine, page = w.machine, w.enclave.data[0]
    machine.thread(w.host.process, 1, "other")
    w.call(store, page)
    assert flushes(machine, 1, w.host.mprotect(page, PAGE_SIZE, R)) == 1
    assert flushes(machine, 1, w.host.mprotect(page, PAGE_SIZE, 0)) == 1
    assert flushes(machine, 1, w.host.mprotect(page, PAGE_SIZE, R | W)) == 0, "was not present"
    assert flushes(machine, 1, w.host.munmap(page, PAGE_SIZE)) == 1


def test_each_enclave_area_is_flushed_by_itself() -> None:
    """VM_PFNMAP areas are flushed at their end; anonymous ones all together at the very end."""
    machine = Machine(cpus=2)
    host = machine.thread()
    machine.thread(host.process, 1, "other")
    start = machine.run(host.alloc(2 * PAGE_SIZE))
    assert machine.run(host.mprotect(start, PAGE_SIZE, R | W | X)) == 0
    for offset in (0, PAGE_SIZE):
        machine.run(host.store(start + offset, b"x"))
    assert flushes(machine, 1, host.munmap(start, 2 * PAGE_SIZE)) == 1
    w = world(pages=2)
    w.machine.thread(w.host.process, 1, "other")
    first, second = w.enclave.data
    assert w.protect(first, R) == 0
    w.call(store, second)
    w.call(load_, first)
    assert flushes(w.machine, 1, w.host.munmap(first, 2 * PAGE_SIZE)) == 2


def load_(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.load(t.args, 1))


# fork


def test_fork_flushes_the_parent() -> None:
    """dup_mmap ends with a flush on all processors of the parent, whatever was copied."""
    w = world()
    w.machine.thread(w.host.process, 1, "other")
    assert flushes(w.machine, 1, w.host.fork("child", 2)) == 1


def test_entries_of_a_child_are_old_and_clean() -> None:
    """So the reclaimer does not think that the child has used what it has not."""
    w = world(pages=1)
    page = w.enclave.data[0]
    w.call(store, page)
    child = w.do(w.host.fork("child", 1))
    used = PTE_A | PTE_D
    assert w.mm.space.lookup(page) & used == used
    assert child.thread.mm.space.lookup(page) & (used | PTE_P) == PTE_P


def test_one_pass_ages_a_forked_page_and_the_next_evicts_it() -> None:
    w = world(pages=1)
    page = w.enclave.data[0]
    w.call(store, page)
    w.do(w.host.fork("child", 1))
    w.machine.settle()
    descriptor = w.encl.page(page)
    assert descriptor is not None
    passes = 0
    while descriptor.epc_page is not None:
        w.kernel.active_page_list.clear()
        w.kernel.active_page_list[descriptor.epc_page] = None
        w.do(sgx_reclaim_pages(w.host.thread))
        passes += 1
    assert passes == 2


def test_the_childs_lock_is_held_while_it_is_filled() -> None:
    """A zap in all registered address spaces waits for the child's copy of the entry."""
    w = world()
    process = Process(w.kernel, "child")
    held: list[bool] = []

    def look(site: str) -> bool:
        if site == "sgx_encl_mm_add":
            held.append(process.mm.mmap_lock.writer is not None)
        return False

    w.kernel.inject = look
    w.do(syscalls.sys_fork(w.host.thread, "child", 1, process))
    assert held == [True]
    assert process.mm.mmap_lock.idle


def test_the_child_inherits_the_personality() -> None:
    w = world()
    w.mm.read_implies_exec = True
    child = w.do(w.host.fork("child", 1))
    assert child.thread.mm.read_implies_exec


def test_shared_anonymous_memory_stays_shared() -> None:
    """Touched before or after the fork, split, moved: it is one file, and is freed once."""
    machine = Machine(cpus=2)
    host = machine.thread()
    flags = MAP_SHARED | MAP_ANONYMOUS
    start = machine.run(host.mmap(0, 3 * PAGE_SIZE, R | W, flags))
    last = start + 2 * PAGE_SIZE
    machine.run(host.store(start, b"mine"))
    child = machine.run(host.fork("child", 1))
    machine.run(child.store(start, b"ours"))
    assert machine.run(host.mprotect(last, PAGE_SIZE, R)) == 0
    moved = machine.run(host.mremap(last, PAGE_SIZE, PAGE_SIZE, MOVE, HINT))
    machine.run(child.store(last, b"late"))
    assert machine.run(host.load(start, 4)) == b"ours"
    assert machine.run(host.load(moved, 4)) == b"late"
    shared = host.thread.mm.vmas[0].shared
    assert shared is not None
    assert len(shared.frames) == 2
    machine.run(host.exit())
    assert machine.run(child.load(last, 4)) == b"late"
    machine.run(child.exit())
    assert not shared.frames


def test_private_memory_of_a_child_is_its_own() -> None:
    machine = Machine(cpus=2)
    host = machine.thread()
    page = machine.run(host.alloc(PAGE_SIZE))
    machine.run(host.store(page, b"mine"))
    child = machine.run(host.fork("child", 1))
    machine.run(child.store(page, b"its"))
    assert machine.run(host.load(page, 4)) == b"mine"


# mmap


def test_a_hint_is_rounded_down_and_up_to_the_lowest_address() -> None:
    machine = Machine()
    host = machine.thread()
    assert machine.run(host.mmap(HINT + 0xFFF, PAGE_SIZE, R, ANON)) == HINT
    assert machine.run(host.mmap(0x2000, PAGE_SIZE, R, ANON)) == DEFAULT_MMAP_MIN_ADDR


def test_low_addresses_are_forbidden() -> None:
    machine = Machine()
    host = machine.thread()
    page = machine.run(host.alloc(PAGE_SIZE))
    assert machine.run(host.mmap(0, PAGE_SIZE, R, ANON | MAP_FIXED)) == -EPERM
    assert machine.run(host.mremap(page, PAGE_SIZE, PAGE_SIZE, MOVE, 0)) == -EPERM
    assert host.thread.mm.vma_lookup(page) is not None


def test_kinds_of_anonymous_mappings() -> None:
    """MAP_TYPE is tested last: an address that is in use is refused first."""
    machine = Machine()
    host = machine.thread()
    page = machine.run(host.alloc(PAGE_SIZE))
    for kind in (0, MAP_SHARED_VALIDATE, 4):
        assert machine.run(host.mmap(0, PAGE_SIZE, R, kind | MAP_ANONYMOUS)) == -EINVAL
        flags = kind | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        assert machine.run(host.mmap(page, PAGE_SIZE, R, flags)) == -EEXIST
    with pytest.raises(Unmodelled, match="MAP_DROPPABLE"):
        machine.run(host.mmap(0, PAGE_SIZE, R, MAP_DROPPABLE | MAP_ANONYMOUS))


def test_shared_validate_refuses_flags_that_are_newer_than_it() -> None:
    machine = Machine()
    host = machine.thread()
    fd = machine.run(host.open())
    flags = MAP_SHARED_VALIDATE | MAP_FIXED_NOREPLACE
    assert machine.run(host.mmap(HINT, PAGE_SIZE, R, flags, fd)) == -EOPNOTSUPP
    assert machine.run(host.mmap(HINT, PAGE_SIZE, R, MAP_SHARED_VALIDATE, fd)) == HINT


def test_a_missing_mmap_operation_is_tested_last() -> None:
    """The mode of the file decides before the missing operation does."""
    machine = Machine()
    host = machine.thread()
    fd = machine.run(syscalls.sys_open(host.thread, syscalls.SGX_PROVISION, 0))
    assert machine.run(host.mmap(0, PAGE_SIZE, R | W, MAP_SHARED, fd)) == -EACCES
    assert machine.run(host.mmap(0, PAGE_SIZE, R, MAP_SHARED, fd)) == -ENODEV
    assert machine.run(host.mmap(0, PAGE_SIZE, R | W, MAP_PRIVATE, fd)) == -ENODEV


# mprotect and mremap


def test_mremap_to_the_same_length_does_nothing() -> None:
    """Not even a split, so not even at the limit of areas."""
    w = world(pages=4)
    areas = len(w.mm.vmas)
    w.mm.max_map_count = areas
    page = w.enclave.data[0]
    assert w.do(w.host.mremap(page, PAGE_SIZE, PAGE_SIZE, 0)) == page
    assert len(w.mm.vmas) == areas


def test_mremap_refuses_ranges_that_leave_user_space() -> None:
    machine = Machine()
    host = machine.thread()
    page = machine.run(host.alloc(PAGE_SIZE))
    assert machine.run(host.mremap(page, TASK_SIZE, PAGE_SIZE, 0)) == -EINVAL
    assert host.thread.mm.vma_lookup(page) is not None


def test_mremap_does_not_duplicate_private_memory() -> None:
    machine = Machine()
    host = machine.thread()
    page = machine.run(host.alloc(PAGE_SIZE))
    assert machine.run(host.mremap(page, 0, PAGE_SIZE, MREMAP_MAYMOVE)) == -EINVAL


def test_mprotect_ignores_prot_sem() -> None:
    w = world()
    page = w.enclave.data[0]
    assert w.protect(page, R | PROT_SEM) == 0
    assert w.areas(page, PAGE_SIZE) == [(1, R)]


def test_read_implies_exec_holds_for_mprotect_too() -> None:
    machine = Machine()
    host = machine.thread()
    page = machine.run(host.alloc(PAGE_SIZE))
    host.thread.mm.read_implies_exec = True
    for prot, rights in ((R, R | X), (W, W)):
        assert machine.run(host.mprotect(page, PAGE_SIZE, prot)) == 0
        area = host.thread.mm.vma_lookup(page)
        assert area is not None
        assert area.flags == rights


# Faults


def test_a_write_to_a_clean_entry_makes_it_young_and_dirty() -> None:
    """wp_pfn_shared reuses the entry: writable, dirty, young, its other bits as they were."""
    w = world(pages=1)
    page = w.enclave.data[0]
    w.call(load_, page)
    w.machine.settle()
    pte = w.mm.space.lookup(page)
    w.mm.space.set(page, pte & ~(PTE_W | PTE_A | PTE_D))
    assert w.do(do_user_addr_fault(w.host.thread, PFEC_P | PFEC_W | PFEC_U, page)) is None
    assert w.mm.space.lookup(page) == pte | PTE_W | PTE_A | PTE_D


@pytest.mark.parametrize("write", [False, True])
def test_a_copy_of_the_kernel_leaves_its_mark_in_the_entry(write: bool) -> None:
    """So a page that system calls use is young to the reclaimer."""
    w = world(pages=1)
    page = w.enclave.data[0]
    w.call(load_, page)
    w.mm.space.set(page, w.mm.space.lookup(page) & ~(PTE_A | PTE_D))
    copy: Steps[Any] = copy_from_user(w.host.thread, page, 1)
    if write:
        copy = copy_to_user(w.host.thread, page, b"x")
    w.do(copy)
    used = w.mm.space.lookup(page) & (PTE_A | PTE_D)
    assert used == (PTE_A | PTE_D if write else PTE_A)


@pytest.mark.parametrize("address", [TASK_SIZE, 0xFFFF_9000_0000_0000])
def test_nothing_is_disclosed_about_kernel_addresses(address: int) -> None:
    """sanitize_error_code: P is always set, outside and through the vDSO."""
    w = world(nssa=4)

    def kernel_load(t: EnclaveThread) -> Steps[bytes]:
        return (yield from t.load(address, 1))

    assert w.fault(kernel_load) == (14, 5, address)
    with pytest.raises(SignalRaised) as raised:
        w.do(w.host.load(address, 1))
    assert raised.value.signal.error_code == 5


def test_a_copy_waits_for_the_reclaimer_as_long_as_it_takes() -> None:
    """The page is held for thousands of attempts, and the copy does not give -EFAULT."""
    w = world(pages=1)
    page = w.enclave.data[0]
    w.call(store, page)
    w.machine.settle()
    descriptor = w.encl.page(page)
    assert descriptor is not None
    w.mm.space.unmap(page)
    descriptor.being_reclaimed = True
    got: list[bytes | None] = []

    def copying() -> Steps[None]:
        got.append((yield from copy_from_user(w.host.thread, page, 1)))

    def reclaiming() -> Steps[None]:
        for _ in range(8_000):
            yield ("reclaim", "", True)
        descriptor.being_reclaimed = False

    execution = w.machine.execution(Alternate(), max_steps=100_000)
    execution.spawn(copying(), "copy", 0)
    execution.spawn(reclaiming(), "reclaim", 1)
    execution.run()
    execution.close()
    assert got == [b"\xff"]


class Alternate(Held):
    """Runs the task that did not run last."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0

    def choose(self, enabled: Any, current: Any) -> Any:
        """Take turns."""
        self._turn += 1
        return enabled[self._turn % len(enabled)]
