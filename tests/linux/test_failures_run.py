"""Each place where a running enclave can meet a failure of the kernel: faults, ioctls, reclaim.

The errno, the state that is left, whether the next attempt works, and what is lost where the kernel
itself loses it. Linux 6.12, sgx/encl.c, sgx/ioctl.c, sgx/main.c.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import EAGAIN, EFAULT, EINTR, ENOMEM
from softsgx.linux.process import SIGBUS
from softsgx.linux.sgx.encl import SgxEnclPage
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.uapi import MAP_FIXED, MAP_SHARED
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W
from softsgx.spec.leaves import EAUG, EBLOCK, ELDU, EPA, EREMOVE, ETRACK, EWB
from softsgx.spec.status import SGX_PAGE_NOT_BLOCKED
from softsgx.system import EnclaveThread, HostThread, Machine, SignalRaised
from tests.linux.failing import GP, PF, failing, nth
from tests.linux.test_races import alone
from tests.linux.world import World, unmapped, world

Patch = pytest.MonkeyPatch
GOOD = b"\xff"  # what the host reads from a resident enclave page


def touch(w: World, address: int, host: HostThread | None = None) -> bytes | int:
    """What the host reads there, or the number of the signal."""
    try:
        return w.do((host or w.host).load(address, 1))
    except SignalRaised as raised:
        return raised.signal.number


def page(w: World, address: int) -> SgxEnclPage:
    found = w.encl.page(address)
    assert found is not None
    return found


def evict(w: World, address: int) -> None:
    """One reclaim pass that takes this page only."""
    active = dict(w.kernel.active_page_list)
    alone(w, address)
    w.do(sgx_reclaim_pages(w.host.thread))
    for other in active:
        if other.owner is not None and other not in w.kernel.active_page_list:
            w.kernel.active_page_list[other] = None


def evict_all(w: World) -> None:
    """Reclaim until the SECS itself is gone."""
    while w.encl.secs.epc_page is not None:
        w.do(sgx_reclaim_pages(w.host.thread))


def end(w: World) -> int:
    """The process ends; how many EPC pages are lost."""
    w.do(w.host.exit())
    w.machine.settle()
    return w.machine.processor.epc.pages - w.kernel.nr_free


# A hole is touched, and EAUG needs a second VA page


@pytest.mark.parametrize(
    ("leaf", "code", "warnings"),
    [(EPA, GP, 1), (EPA, PF, 1), (EAUG, GP, 0), (EAUG, PF, 0), (None, 0, 0)],
)
def test_eaug(leaf: int | None, code: int, warnings: int, monkeypatch: Patch) -> None:
    """SIGBUS, all undone; the next touch succeeds."""
    w = world(Machine(cpus=4, epc="4M"), pages=507)
    hole, free, children = w.enclave.heap, w.kernel.nr_free, w.encl.secs_child_cnt
    assert w.encl.page_cnt == 512
    if leaf is None:
        w.kernel.inject = nth("sgx_encl_grow")
    else:
        failing(monkeypatch, leaf, {1: code})
    assert touch(w, hole) == SIGBUS
    assert (w.encl.page(hole), w.kernel.nr_free, w.encl.page_cnt) == (None, free, 512)
    assert (len(w.encl.va_pages), w.encl.secs_child_cnt) == (1, children)
    assert len(w.kernel.warnings) == warnings
    monkeypatch.undo()
    assert touch(w, hole) == GOOD
    assert (w.kernel.nr_free, w.encl.page_cnt, len(w.encl.va_pages)) == (free - 2, 513, 2)
    assert end(w) == 0


def test_eaug_while_the_secs_cannot_come_back() -> None:
    w = world()
    evict_all(w)
    hole, free = w.enclave.heap, w.kernel.nr_free
    w.kernel.inject = nth("sgx_encl_get_backing")
    assert touch(w, hole) == SIGBUS
    assert (w.encl.page(hole), w.kernel.nr_free) == (None, free)
    assert touch(w, hole) == GOOD
    assert w.encl.secs.epc_page is not None
    assert end(w) == 0


def test_failed_eaug_from_inside_is_a_missing_page() -> None:
    """Through the vDSO: vector 14, the code of the access, not present."""
    w = world()
    w.kernel.inject = "xa_insert".__eq__
    hole = w.enclave.heap
    assert w.fault(lambda t: t.store(hole, b"x")) == (14, 6, hole)


# A page comes back


def fault_in(w: World, address: int) -> bytes | int:
    return touch(w, address)


def restrict(w: World, address: int) -> tuple[int, int, int]:
    ret, block = w.do(w.enclave.restrict(w.host, address, PAGE_SIZE, R))
    return ret, block.result, block.count


def trim(w: World, address: int) -> tuple[int, int, int]:
    ret, block = w.do(w.enclave.trim(w.host, address, PAGE_SIZE))
    return ret, block.result, block.count


USERS: list[tuple[Callable[[World, int], object], object, object]] = [
    (fault_in, SIGBUS, GOOD),
    (restrict, (-EFAULT, 0, 0), (0, 0, PAGE_SIZE)),
    (trim, (-EFAULT, 0, 0), (0, 0, PAGE_SIZE)),
]


@pytest.mark.parametrize(("use", "bad", "good"), USERS)
@pytest.mark.parametrize("whole", [False, True])
def test_reload_without_backing_memory_works_later(
    use: Callable[[World, int], object], bad: object, good: object, whole: bool
) -> None:
    w = world(pages=2)
    victim = w.enclave.data[0]
    if whole:
        evict_all(w)  # it is the backing of the SECS that cannot be allocated
    else:
        evict(w, victim)
    free = w.kernel.nr_free
    w.kernel.inject = nth("sgx_encl_get_backing")
    assert use(w, victim) == bad
    assert (page(w, victim).epc_page, w.kernel.nr_free) == (None, free)
    assert use(w, victim) == good
    assert w.kernel.warnings == []
    assert end(w) == 0


@pytest.mark.parametrize(("use", "bad", "good"), USERS)
@pytest.mark.parametrize(("code", "warned"), [(GP, 1), (PF, 0), (9, 1)])
def test_failed_eldu_loses_the_page(
    use: Callable[[World, int], object],
    bad: object,
    good: object,
    code: int,
    warned: int,
    monkeypatch: Patch,
) -> None:
    """Its PCMD is zeroed and its contents are punched out, whatever the reason was."""
    w = world(pages=2)
    victim, other = w.enclave.data
    evict(w, victim)
    free = w.kernel.nr_free
    failing(monkeypatch, ELDU, {1: code})
    assert use(w, victim) == bad
    assert len(w.kernel.warnings) == warned
    assert w.encl.backing.contents == {}
    monkeypatch.undo()
    assert use(w, victim) == bad, "the second try meets an empty backing page"
    assert (page(w, victim).epc_page, w.kernel.nr_free) == (None, free)
    assert use(w, other) == good
    assert end(w) == 0, "only contents are lost"


def test_exhausted_epc_at_reload_is_tried_again_or_is_an_error() -> None:
    """-EAGAIN and an invisible retry while something can be reclaimed; else -EFAULT and SIGBUS."""
    w = world(pages=2)
    victim = w.enclave.data[0]
    evict(w, victim)
    w.kernel.inject = nth("sgx_alloc_epc_page")
    assert restrict(w, victim) == (-EAGAIN, 0, 0)
    w.kernel.inject = nth("sgx_alloc_epc_page")
    assert touch(w, victim) == GOOD
    evict(w, victim)
    kept = dict(w.kernel.active_page_list)
    w.kernel.active_page_list.clear()
    w.kernel.inject = "sgx_alloc_epc_page".__eq__
    assert restrict(w, victim) == (-EFAULT, 0, 0)
    assert touch(w, victim) == SIGBUS
    w.kernel.inject = None
    w.kernel.active_page_list.update(kept)
    assert restrict(w, victim) == (0, 0, PAGE_SIZE)
    assert end(w) == 0


# A page is removed


def test_failed_eremove_leaks_the_page_and_the_secs(monkeypatch: Patch) -> None:
    """REMOVE_PAGES ignores it: it counts the page; its address is a hole again."""
    w = world(pages=2)

    def accept(t: EnclaveThread) -> Steps[None]:
        for address in w.enclave.data:
            assert (yield from t.accept_trim(address)) == 0

    assert w.do(w.enclave.trim(w.host, w.enclave.data[0], 2 * PAGE_SIZE))[0] == 0
    w.call(accept)
    free, count = w.kernel.nr_free, w.encl.page_cnt
    failing(monkeypatch, EREMOVE, {2: GP})
    ret, block = w.do(w.enclave.remove(w.host, w.enclave.data[0], 2 * PAGE_SIZE))
    assert (ret, block.count) == (0, 2 * PAGE_SIZE)
    monkeypatch.undo()
    assert (w.kernel.nr_free, w.encl.page_cnt) == (free + 1, count - 2)
    assert len(w.kernel.warnings) == 1
    assert "page leaked" in w.kernel.warnings[0]
    assert touch(w, w.enclave.data[1]) == GOOD, "EAUG adds another page there"
    # The processor still counts the leaked page as a child, so the SECS cannot be removed.
    assert end(w) == 2


# A page is evicted


def test_reclaimer_without_backing_memory_keeps_the_page() -> None:
    """It goes to the tail of the list, and the next pass takes it."""
    w = world(pages=2)
    first, second = w.enclave.data
    alone(w, first)
    resident = page(w, second).epc_page
    assert resident is not None
    w.kernel.active_page_list[resident] = None
    w.mm.space.test_and_clear_accessed(second)
    w.kernel.inject = nth("sgx_encl_get_backing")
    w.do(sgx_reclaim_pages(w.host.thread))
    assert (page(w, first).epc_page is None, page(w, second).epc_page is None) == (False, True)
    assert [p.owner for p in w.kernel.active_page_list] == [page(w, first)]
    assert not page(w, first).being_reclaimed
    w.do(sgx_reclaim_pages(w.host.thread))
    assert page(w, first).epc_page is None
    assert touch(w, first) == touch(w, second) == GOOD


def test_secs_without_backing_memory_stays() -> None:
    w = world(pages=1)
    children = w.encl.secs_child_cnt
    w.kernel.inject = nth("sgx_encl_get_backing", children + 1)
    for index in w.encl.page_array:
        w.mm.space.test_and_clear_accessed(index * PAGE_SIZE)
    w.do(sgx_reclaim_pages(w.host.thread))
    assert (w.encl.secs_child_cnt, w.encl.secs.epc_page is not None) == (0, True)
    assert touch(w, w.enclave.data[0]) == GOOD
    assert end(w) == 0


EVICT = [
    # What fails, how; warnings; whether the contents are lost.
    ("EBLOCK, #GP", EBLOCK, {1: GP}, 2, True),  # then EWB: SGX_PAGE_NOT_BLOCKED
    ("EBLOCK, #PF", EBLOCK, {1: PF}, 1, True),
    ("EWB, #GP", EWB, {1: GP}, 1, True),
    ("EWB, #PF", EWB, {1: PF}, 0, True),
    ("EWB, status", EWB, {1: int(SGX_PAGE_NOT_BLOCKED)}, 1, True),
    ("ETRACK, #GP", ETRACK, {1: GP}, 2, True),  # EWB: SGX_NOT_TRACKED, twice more
    ("ETRACK, #PF", ETRACK, {1: PF}, 1, True),
    ("EWB not tracked once", EWB, {1: 11}, 0, False),
    ("EWB not tracked twice", EWB, {1: 11, 2: 11}, 0, False),
    ("EWB not tracked three times", EWB, {1: 11, 2: 11, 3: 11}, 1, True),
]


@pytest.mark.parametrize(
    ("leaf", "answers", "warnings", "lost"), [row[1:] for row in EVICT], ids=[r[0] for r in EVICT]
)
@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_eviction(
    leaf: int,
    answers: dict[int, int],
    warnings: int,
    lost: bool,
    again: bool,
    monkeypatch: Patch,
) -> None:
    """A lost page: SIGBUS if it had been evicted before, else the kernel's own NULL pointer.

    The EPC page goes to the free list with a valid EPCM entry, without EREMOVE. The next
    user of the page fails, and its EREMOVE makes the page good again.
    """
    w = world(pages=2)
    victim, other = w.enclave.data
    w.call(lambda t: t.store(victim, b"precious"))
    if again:
        evict(w, victim)
        assert touch(w, victim) == GOOD
    was = page(w, victim).epc_page
    failing(monkeypatch, leaf, answers)
    evict(w, victim)
    monkeypatch.undo()
    assert len(w.kernel.warnings) == warnings
    assert page(w, victim).epc_page is None
    if not lost:
        assert w.call(lambda t: t.load(victim, 8)) == b"precious"
        assert end(w) == 0
        return
    assert w.kernel.free_pages[-1] is was
    if again:
        assert touch(w, victim) == SIGBUS
        assert touch(w, victim) == SIGBUS
    else:
        with pytest.raises(KernelBug, match="NULL dereference of encl_page->va_page"):
            touch(w, victim)
    # The rest is intact; the page that was leaked into the free list comes up last.
    assert touch(w, other) == GOOD


@pytest.mark.parametrize(
    ("leaf", "answers", "lost"),
    [(row[1], row[2], row[4]) for row in EVICT],
    ids=[row[0] for row in EVICT],
)
def test_an_evicted_page_has_one_slot_and_a_lost_one_none(
    leaf: int, answers: dict[int, int], lost: bool, monkeypatch: Patch
) -> None:
    """A VA page has 512 slots; one that a failed EWB kept would be lost until the enclave ends."""
    w = world(pages=2)

    def slots() -> int:
        return sum(va_page.used.bit_count() for va_page in w.encl.va_pages)

    assert slots() == 0
    failing(monkeypatch, leaf, answers)
    evict(w, w.enclave.data[0])
    monkeypatch.undo()
    assert slots() == (0 if lost else 1)
    evict(w, w.enclave.data[1])
    assert slots() == (1 if lost else 2)
    assert touch(w, w.enclave.data[1]) == GOOD
    assert slots() == (0 if lost else 1), "a page that is in has no slot either"


def test_valid_page_on_the_free_list_costs_one_fault(monkeypatch: Patch) -> None:
    w = world(pages=2)
    victim, hole = w.enclave.data[0], w.enclave.heap
    evict(w, victim)
    assert touch(w, victim) == GOOD
    failing(monkeypatch, EWB, {1: GP})
    evict(w, victim)
    monkeypatch.undo()
    bad = w.kernel.free_pages[-1]
    w.kernel.free_pages.remove(bad)
    w.kernel.free_pages.appendleft(bad)
    w.kernel.next_unused = w.machine.processor.epc.pages
    assert touch(w, hole) == SIGBUS  # EAUG of a valid page: #PF; undone with EREMOVE
    assert touch(w, hole) == GOOD


# Areas


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("call", ["mprotect", "munmap", "mmap", "mremap"])
def test_split(call: str, number: int) -> None:
    """The middle of three pages needs two splits. -ENOMEM; a split made before it stays."""
    w = world(pages=3)
    first, middle, _last = w.enclave.data
    elsewhere = w.do(w.host.alloc(PAGE_SIZE))
    assert w.do(w.host.munmap(elsewhere, PAGE_SIZE)) == 0

    def act() -> int:
        if call == "mprotect":
            return w.protect(middle, R)
        if call == "munmap":
            return w.do(w.host.munmap(middle, PAGE_SIZE))
        if call == "mmap":
            return w.map(middle, R)
        return w.do(w.host.mremap(middle, PAGE_SIZE, PAGE_SIZE, 3, elsewhere))

    w.kernel.inject = nth("split_vma", number)
    assert act() == -ENOMEM
    areas = w.areas(first, 3 * PAGE_SIZE)
    assert areas == ([(3, R | W)] if number == 1 else [(1, R | W), (2, R | W)])
    good = {"mmap": middle, "mremap": elsewhere}.get(call, 0)
    assert act() == good
    assert len(w.areas(first, 3 * PAGE_SIZE)) == (3 if call in ("mprotect", "mmap") else 2)
    assert end(w) == 0


# Registration of an address space


@pytest.mark.parametrize(
    ("how", "errno", "leaks"),
    [
        ("sgx_encl_mm_add", -ENOMEM, False),
        ("mmu_notifier_register", -ENOMEM, True),
        ("signal", -EINTR, True),
    ],
)
@pytest.mark.parametrize("act", ["mmap", "fork"])
def test_registration(act: str, how: str, errno: int, leaks: bool) -> None:
    """Where the reference to the enclave was already taken it is never dropped, retry or not."""
    w = unmapped() if act == "mmap" else world()
    encl, data = w.encl, w.enclave.data[0]

    def inject(site: str) -> bool:
        # A signal that was there before fork would be handled first; this one arrives meanwhile.
        w.host.thread.pending_signals = how == "signal"
        return site == how

    w.kernel.inject = inject
    before = encl.refcount
    if act == "mmap":
        assert w.map(data, R) == errno
        assert encl.refcount == before + leaks
        assert w.areas(data, PAGE_SIZE) == []
        user = w.host
    else:
        user = w.do(w.host.fork("child", 1))
        areas = [vma for vma in user.thread.mm.vmas if vma.sgx]
        assert encl.refcount == before + leaks * len(areas)
        assert {vma.encl for vma in areas} == {None}
        assert touch(w, w.enclave.heap, user) == SIGBUS
    w.kernel.inject = None
    w.host.thread.pending_signals = 0
    leaked = encl.refcount - before
    flags = MAP_SHARED | MAP_FIXED
    assert w.do(user.mmap(data, PAGE_SIZE, R, flags, w.enclave.fd)) == data
    assert touch(w, data, user) == GOOD
    if user is not w.host:
        w.do(user.exit())
    used = w.machine.processor.epc.pages - w.kernel.nr_free
    assert end(w) == (used if leaks else 0)
    assert encl.refcount == leaked


def test_open_without_memory_leaves_no_descriptor() -> None:
    w = world()
    files = dict(w.host.process.files)
    w.kernel.inject = nth("sgx_open")
    assert w.do(w.host.open()) == -ENOMEM
    assert w.host.process.files == files
    assert w.do(w.host.open()) == w.enclave.fd + 1


@pytest.mark.parametrize("rights", [R, RWX])
def test_entry_that_cannot_be_inserted_leaves_the_page_resident(rights: int) -> None:
    """ELDU succeeded; the next touch only has to insert the entry."""
    w = world(pages=2, rights=rights)
    victim = w.enclave.data[0]
    evict(w, victim)
    w.kernel.inject = nth("vmf_insert_pfn")
    assert touch(w, victim) == SIGBUS
    assert page(w, victim).epc_page is not None
    assert w.mm.space.lookup(victim) == 0
    assert touch(w, victim) == GOOD
    assert end(w) == 0
