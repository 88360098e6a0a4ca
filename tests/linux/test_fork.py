"""fork: the child shares the enclave, entries included. Linux 6.12, kernel/fork.c, sgx/encl.c."""

import pytest

from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import EACCES
from softsgx.linux.process import SIGBUS
from softsgx.linux.sgx.encl import sgx_zap_enclave_ptes
from softsgx.linux.uapi import MAP_FIXED, MAP_SHARED
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_P
from softsgx.sim import Steps, WaitFlag
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W
from softsgx.system import EnclaveThread, HostThread, SignalRaised
from tests.linux.held import at, to_the_end
from tests.linux.test_races import scheduled, second
from tests.linux.world import World, together, world


def store(t: EnclaveThread) -> Steps[None]:
    yield from t.store(t.args, b"shared")


def load_(t: EnclaveThread) -> Steps[bytes]:
    return (yield from t.load(t.args, 6))


def with_child(*, pages: int = 1, threads: int = 1) -> tuple[World, HostThread]:
    """An enclave whose first data page the parent has used, and a child on processor 1."""
    w = world(pages=pages, threads=threads)
    w.call(store, w.enclave.data[0])
    return w, w.do(w.host.fork("child", 1))


def test_child_has_the_same_areas_and_entries() -> None:
    w, child = with_child(pages=2)
    mine, its = w.mm, child.thread.mm
    assert [(v.start, v.end, v.flags, v.may, v.encl) for v in its.vmas] == [
        (v.start, v.end, v.flags, v.may, v.encl) for v in mine.vmas
    ]
    entries = [mm.space.lookup(w.enclave.data[0]) for mm in (mine, its)]
    assert entries[0] & ~(PTE_A | PTE_D) == entries[1]
    assert entries[1] & PTE_P
    assert its.space.lookup(w.enclave.data[1]) == 0


def test_child_shares_the_contents() -> None:
    w, child = with_child()
    data = w.enclave.data[0]
    assert w.do(w.enclave.call(child, load_, args=data)) == b"shared"
    w.do(w.enclave.call(child, store, args=data + 100))
    assert w.call(load_, data + 100) == b"shared"


def test_page_added_for_one_is_there_for_the_other() -> None:
    w, child = with_child()
    heap = w.enclave.heap

    def accept(t: EnclaveThread) -> Steps[None]:
        assert (yield from t.accept_new(heap)) == 0

    w.do(w.enclave.call(child, accept))
    w.call(store, heap)
    assert w.do(w.enclave.call(child, load_, args=heap)) == b"shared"


def test_ordinary_memory_is_copied() -> None:
    w = world()
    memory = w.do(w.host.alloc(PAGE_SIZE))
    w.do(w.host.store(memory, b"before"))
    child = w.do(w.host.fork("child", 1))
    w.do(w.host.store(memory, b"parent"))
    assert w.do(child.load(memory, 6)) == b"before"


def test_areas_are_changed_independently() -> None:
    w, child = with_child()
    data = w.enclave.data[0]
    assert w.protect(data, R) == 0
    w.do(w.enclave.call(child, store, args=data))
    assert w.fault(store, data) == (14, 0x7, data)


def test_tracking_covers_the_child() -> None:
    """A thread of the child is inside with a translation cached when its page is restricted."""
    w, child = with_child(threads=2)
    data, run = w.enclave.data[0], w.enclave.run(1)
    warm, done = WaitFlag("translation cached"), WaitFlag("restricted")

    def inside(t: EnclaveThread) -> Steps[None]:
        yield from t.store(data, b"first")
        warm.set()
        yield from done.wait()
        yield from t.store(data, b"second")

    def accept(t: EnclaveThread) -> Steps[None]:
        assert (yield from t.accept_restricted(data, R)) == 0

    def parent() -> Steps[None]:
        yield from warm.wait()
        assert (yield from w.enclave.restrict(w.host, data, PAGE_SIZE, R))[0] == 0
        yield from w.enclave.call(w.host, accept)
        done.set()

    entry = w.enclave.entry(inside)
    together(w, (1, child.enter(entry, run)), (0, parent()))
    assert (run.function, run.exception_vector) == (3, 14)
    assert (run.exception_error_code, run.exception_addr) == (0x8007, data)


def test_zapping_covers_the_child() -> None:
    w, child = with_child()
    data = w.enclave.data[0]
    assert w.do(w.enclave.trim(w.host, data, PAGE_SIZE))[0] == 0

    def accept(t: EnclaveThread) -> Steps[None]:
        assert (yield from t.accept_trim(data)) == 0

    w.call(accept)
    assert child.thread.mm.space.lookup(data)
    assert w.do(w.enclave.remove(w.host, data, PAGE_SIZE))[0] == 0
    assert child.thread.mm.space.lookup(data) == 0


# A child that could not be registered


def signal_arrives(w: World) -> bool:
    """Whatever the kernel is about to do succeeds, but from here on a signal is pending."""
    w.host.thread.pending_signals = 1
    return False


def unregistered(how: str) -> tuple[World, HostThread]:
    """The open hook fails: the child's areas have no enclave, but entries are copied."""
    w = world(pages=2)
    w.call(store, w.enclave.data[0])
    if how == "memory":
        w.kernel.inject = "sgx_encl_mm_add".__eq__
    else:
        w.kernel.inject = lambda site: signal_arrives(w)
    child = w.do(w.host.fork("child", 1))
    w.kernel.inject = None
    return w, child


@pytest.mark.parametrize("how", ["memory", "signal"])
def test_unregistered_child_gets_sigbus_where_an_entry_is_missing(how: str) -> None:
    w, child = unregistered(how)
    assert [entry.mm for entry in w.encl.mm_list] == [w.mm]
    assert w.do(child.load(w.enclave.data[0], 4)) == b"\xff" * 4
    with pytest.raises(SignalRaised) as raised:
        w.do(child.load(w.enclave.data[1], 4))
    assert raised.value.signal[:4] == (SIGBUS, 2, w.enclave.data[1], 14)
    assert w.do(child.load(w.do(child.alloc(8)), 8)) == bytes(8)


@pytest.mark.parametrize(("how", "left"), [("memory", 0), ("signal", None)])
def test_reference_of_an_unregistered_child(how: str, left: int | None) -> None:
    """A failed allocation comes before the reference is taken, a signal after: that one leaks."""
    w, child = unregistered(how)
    encl = w.encl
    areas = len([v for v in child.thread.mm.vmas if v.sgx])
    assert encl.refcount == 2 + (areas if how == "signal" else 0)
    w.do(child.exit())
    w.do(w.host.exit())
    assert encl.refcount == (left if left is not None else areas)
    assert w.all_epc_free() is (how == "memory")


def test_grandchild_of_an_unregistered_child_gets_the_entries() -> None:
    """Not a copy of what they point to: that would be the plaintext of the enclave."""
    w, child = unregistered("memory")
    grandchild = w.do(child.fork("grandchild", 2))
    entries = [host.thread.mm.space.lookup(w.enclave.data[0]) for host in (child, grandchild)]
    assert entries[0] & ~(PTE_A | PTE_D) == entries[1]
    assert entries[1] & PTE_P
    assert w.do(grandchild.load(w.enclave.data[0], 6)) == b"\xff" * 6


def test_mprotect_in_an_unregistered_child_is_a_bug_of_the_kernel() -> None:
    w, child = unregistered("memory")
    with pytest.raises(KernelBug, match="NULL dereference"):
        w.do(child.mprotect(w.enclave.data[0], PAGE_SIZE, R))
    assert w.protect(w.enclave.data[0], RWX) == -EACCES


def test_unregistered_child_may_map_again() -> None:
    """mmap registers its address space; what fork copied stays without an enclave."""
    w, child = unregistered("memory")
    data = w.enclave.data[1]
    flags = MAP_SHARED | MAP_FIXED
    assert w.do(child.mmap(data, PAGE_SIZE, R | W, flags, w.enclave.fd)) == data
    assert w.do(child.load(data, 4)) == b"\xff" * 4
    assert [entry.mm for entry in w.encl.mm_list] == [child.thread.mm, w.mm]


def test_zapping_waits_for_a_child_that_is_being_made() -> None:
    """fork also holds the lock of the new address space until all entries are copied.

    The child is registered with the enclave by its first area and stands at the head of the list of
    address spaces, while fork goes on to an area of another enclave. Without that lock, a zap of a
    page looks into the child too early, finds no area there, and the entry that is copied later
    stays for ever.
    """
    w = world(pages=1)
    first, hole = w.enclave.data[0], w.enclave.heap
    w.call(store, first)
    # Another enclave's area lies between two areas of this one.
    other = w.do(w.host.open())
    assert w.map(hole, RWX) == hole
    flags = MAP_SHARED | MAP_FIXED
    between, behind = hole + 2 * PAGE_SIZE, hole + 3 * PAGE_SIZE
    assert w.do(w.host.mmap(between, PAGE_SIZE, R | W, flags, other)) == between
    assert w.do(w.host.load(behind, 1)) == b"\xff"

    def fork() -> Steps[HostThread]:
        return (yield from w.host.fork("child", 1))

    def zap() -> Steps[None]:
        yield ("begin", "zap", False)  # so that it begins when the child is registered
        yield from sgx_zap_enclave_ptes(second(w, 2).thread, w.encl, behind)

    ended = scheduled(
        w,
        [("fork", at("mm_list", 2)), ("zap", to_the_end)],
        fork=fork(),
        zap=zap(),
    )
    child: HostThread = dict(ended)["fork"]
    assert [entry.mm for entry in w.encl.mm_list] == [child.thread.mm, w.mm]
    assert child.thread.mm.space.lookup(between - PAGE_SIZE) == w.mm.space.lookup(behind) == 0
    assert child.thread.mm.space.lookup(behind) == 0
