"""madvise, the mlock family, msync, pkey_mprotect over SGX areas.

Linux 6.12, mm/madvise.c, mm/mlock.c, mm/msync.c, mm/mprotect.c; the flags of an SGX area are those
of sgx/driver.c, sgx_mmap. Anonymous memory is in test_procfs.py.
"""

from __future__ import annotations

import pytest

from softsgx.linux import mlock, syscalls
from softsgx.linux.errno import EACCES, EAGAIN, EFAULT, EINVAL, ENODEV, ENOMEM
from softsgx.linux.madvise import MADV_DONTFORK, MADV_REMOVE, sys_madvise
from softsgx.linux.mm import VM_DONTCOPY
from softsgx.linux.uapi import MAP_SHARED, PROT_READ, PROT_WRITE
from softsgx.linux.vfs import O_RDONLY
from softsgx.sim import Unmodelled
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import Machine
from tests.linux.world import world

FREE = 0x2000_0000  # nothing is mapped there

# Advice -> errno, and whether the page becomes an area of its own. Numbers are those of
# asm-generic/mman-common.h, written out here.
ADVICE = {
    0: (0, False),  # MADV_NORMAL
    1: (0, True),  # MADV_RANDOM
    2: (0, True),  # MADV_SEQUENTIAL
    3: (0, False),  # MADV_WILLNEED
    4: (EINVAL, False),  # MADV_DONTNEED
    5: (EINVAL, False),  # never assigned
    8: (EINVAL, False),  # MADV_FREE
    9: (ENODEV, False),  # MADV_REMOVE
    10: (0, True),  # MADV_DONTFORK
    11: (EINVAL, False),  # MADV_DOFORK
    12: (0, False),  # MADV_MERGEABLE
    13: (0, False),  # MADV_UNMERGEABLE
    14: (0, True),  # MADV_HUGEPAGE
    15: (0, True),  # MADV_NOHUGEPAGE
    16: (0, False),  # MADV_DONTDUMP
    17: (EINVAL, False),  # MADV_DODUMP
    18: (EINVAL, False),  # MADV_WIPEONFORK
    19: (0, False),  # MADV_KEEPONFORK
    20: (EINVAL, False),  # MADV_COLD
    21: (EINVAL, False),  # MADV_PAGEOUT
    22: (EINVAL, False),  # MADV_POPULATE_READ
    23: (EINVAL, False),  # MADV_POPULATE_WRITE
    24: (EINVAL, False),  # MADV_DONTNEED_LOCKED
    25: (EINVAL, False),  # MADV_COLLAPSE
    26: (EINVAL, False),
    100: (EFAULT, False),  # MADV_HWPOISON
    101: (EFAULT, False),  # MADV_SOFT_OFFLINE
    102: (EINVAL, False),  # MADV_GUARD_INSTALL of 6.13
    1 << 31: (EINVAL, False),
}


@pytest.mark.parametrize("advice", ADVICE)
def test_each_advice(advice: int) -> None:
    """Contents, PTEs and rights stay, whatever it returns."""
    w = world(pages=4)
    first, second = w.enclave.data[:2]
    w.call(lambda t: t.store(second, b"kept"))
    before = len(w.mm.vmas)
    error, splits = ADVICE[advice]
    assert w.do(sys_madvise(w.host.thread, second, PAGE_SIZE, advice)) == -error
    vma = w.mm.vma_lookup(second)
    assert vma is not None
    assert ((vma.start, vma.end) == (second, second + PAGE_SIZE)) == splits
    assert len(w.mm.vmas) - before == 2 * splits
    assert vma.flags == PROT_READ | PROT_WRITE
    assert w.mm.space.lookup(second) != 0
    assert w.call(lambda t: t.load(second, 4)) == b"kept"
    # The second time nothing changes.
    assert w.do(sys_madvise(w.host.thread, second, PAGE_SIZE, advice)) == -error
    assert len(w.mm.vmas) - before == 2 * splits
    assert first != second


@pytest.mark.parametrize("advice", [102, 103])  # MADV_GUARD_INSTALL, MADV_GUARD_REMOVE
@pytest.mark.parametrize(
    ("linux", "nothing", "hole"), [("6.12", -EINVAL, -EINVAL), ("6.18", 0, -ENOMEM)]
)
def test_guard_pages_are_known_from_6_13_on(
    linux: str, nothing: int, hole: int, advice: int
) -> None:
    """Never in an SGX area. Linux 6.18, mm/madvise.c, is_valid_guard_vma."""
    w = world(Machine(epc="1M", linux=linux), pages=4)
    data = w.enclave.data[1]
    assert w.do(sys_madvise(w.host.thread, data, PAGE_SIZE, advice)) == -EINVAL
    assert w.do(sys_madvise(w.host.thread, data, 0, advice)) == nothing
    assert w.do(sys_madvise(w.host.thread, FREE, PAGE_SIZE, advice)) == hole
    own = w.do(w.host.alloc(PAGE_SIZE))
    if linux == "6.18":
        with pytest.raises(Unmodelled, match=f"madvise with advice {advice} of anonymous memory"):
            w.do(sys_madvise(w.host.thread, own, PAGE_SIZE, advice))


def test_areas_of_equal_advice_are_not_merged() -> None:
    """VM_SPECIAL areas never are: MADV_NORMAL undoes MADV_RANDOM, and not the splits."""
    w = world(pages=4)
    page = w.enclave.data[1]
    before = len(w.mm.vmas)
    assert w.do(sys_madvise(w.host.thread, page, PAGE_SIZE, 1)) == 0
    assert w.do(sys_madvise(w.host.thread, page, PAGE_SIZE, 0)) == 0
    assert len(w.mm.vmas) == before + 2
    assert {vma.advised for vma in w.mm.vmas} == {0}


@pytest.mark.parametrize(
    ("offset", "length", "result"),
    [
        (1, PAGE_SIZE, -EINVAL),
        (0, 0, 0),
        (0, 1, 0),
        (0, (1 << 64) - PAGE_SIZE, -EINVAL),
        (0, (1 << 64) - 1, -EINVAL),
    ],
)
def test_range(offset: int, length: int, result: int) -> None:
    w = world(pages=2)
    assert w.do(sys_madvise(w.host.thread, w.enclave.data[0] + offset, length, 12)) == result


def test_the_number_is_looked_at_before_the_range() -> None:
    w = world(pages=2)
    assert w.do(sys_madvise(w.host.thread, w.enclave.data[0], 0, 26)) == -EINVAL


def test_a_split_that_fails_is_eagain() -> None:
    w = world(pages=4)
    w.mm.max_map_count = len(w.mm.vmas)
    assert w.do(sys_madvise(w.host.thread, w.enclave.data[1], PAGE_SIZE, 10)) == -EAGAIN


def test_remove_of_a_descriptor_that_cannot_write() -> None:
    """Without VM_MAYWRITE it is refused earlier."""
    w = world()
    fd = w.do(syscalls.sys_open(w.host.thread, "/dev/sgx_enclave", O_RDONLY))
    at = w.do(syscalls.sys_mmap(w.host.thread, 0, PAGE_SIZE, PROT_READ, MAP_SHARED, fd))
    assert w.do(sys_madvise(w.host.thread, at, PAGE_SIZE, MADV_REMOVE)) == -EACCES


@pytest.mark.parametrize(("advice", "result"), [(10, -ENOMEM), (9, -ENODEV), (22, -EINVAL)])
def test_a_hole_after_the_area(advice: int, result: int) -> None:
    w = world(pages=4)
    base, size = w.enclave.base, w.enclave.size
    assert w.do(sys_madvise(w.host.thread, base, size + PAGE_SIZE, advice)) == result
    if not result + ENOMEM:
        assert all(vma.advised & VM_DONTCOPY for vma in w.mm.vmas if vma.sgx)


@pytest.mark.parametrize(("advice", "result"), [(10, -ENOMEM), (22, -ENOMEM), (100, -EFAULT)])
def test_a_hole_before_the_area(advice: int, result: int) -> None:
    w = world(pages=4)
    at = min(vma.start for vma in w.mm.vmas if vma.sgx) - PAGE_SIZE
    assert w.mm.vma_lookup(at) is None
    assert w.do(sys_madvise(w.host.thread, at, 2 * PAGE_SIZE, advice)) == result
    vma = w.mm.vma_lookup(at + PAGE_SIZE)
    assert vma is not None
    assert bool(vma.advised) == (advice == 10), "what is behind the hole was advised all the same"


def test_a_child_has_no_area_that_is_not_to_be_copied() -> None:
    w = world(pages=4)
    page = w.enclave.data[1]
    w.call(lambda t: t.store(page, b"kept"))
    assert w.do(sys_madvise(w.host.thread, page, PAGE_SIZE, MADV_DONTFORK)) == 0
    child = w.do(w.host.fork("child", 1)).thread.mm
    assert child.vma_lookup(page) is None
    assert child.space.lookup(page) == 0
    assert [(v.start, v.end) for v in child.vmas] == [
        (v.start, v.end) for v in w.mm.vmas if v.start != page
    ]


# mlock


@pytest.mark.parametrize("offset", [0, 8])
def test_locking_does_nothing_and_is_no_error(offset: int) -> None:
    """Starts are rounded down."""
    w = world(pages=4)
    areas = [(vma.start, vma.end, vma.flags, vma.advised) for vma in w.mm.vmas]
    at, thread = w.enclave.data[0] + offset, w.host.thread
    assert w.do(mlock.sys_mlock(thread, at, PAGE_SIZE)) == 0
    assert w.do(mlock.sys_mlock2(thread, at, PAGE_SIZE, mlock.MLOCK_ONFAULT)) == 0
    assert w.do(mlock.sys_munlock(thread, at, PAGE_SIZE)) == 0
    assert w.do(mlock.sys_mlock2(thread, at, PAGE_SIZE, 2)) == -EINVAL
    assert w.do(mlock.sys_mlock(thread, at, 0)) == 0
    start, length = w.enclave.data[0], (1 << 64) - PAGE_SIZE
    assert w.do(mlock.sys_mlock(thread, start, length)) == -EINVAL
    assert w.do(mlock.sys_mlock(thread, start + 8, length)) == 0, "rounded up to nothing"
    assert w.do(mlock.sys_mlock(thread, w.enclave.base + w.enclave.size, PAGE_SIZE)) == -ENOMEM
    assert w.do(mlock.sys_mlock(thread, at, w.enclave.size)) == -ENOMEM, "a hole at its end"
    assert areas == [(vma.start, vma.end, vma.flags, vma.advised) for vma in w.mm.vmas]


@pytest.mark.parametrize(
    ("flags", "result"),
    [(0, -EINVAL), (1, 0), (2, 0), (3, 0), (4, -EINVAL), (5, 0), (6, 0), (7, 0), (8, -EINVAL)],
)
def test_mlockall(flags: int, result: int) -> None:
    w = world()
    assert w.do(mlock.sys_mlockall(w.host.thread, flags)) == result
    assert w.do(mlock.sys_munlockall(w.host.thread)) == 0


def test_locking_of_anonymous_memory_is_not_modelled() -> None:
    w = world()
    at = w.do(w.host.alloc(PAGE_SIZE))
    with pytest.raises(Unmodelled, match="anonymous"):
        w.do(mlock.sys_mlock(w.host.thread, at, PAGE_SIZE))


# msync


@pytest.mark.parametrize(
    ("flags", "result"),
    [(0, 0), (1, 0), (2, 0), (3, 0), (4, -EINVAL), (6, -EINVAL), (5, -EINVAL), (8, -EINVAL)],
)
def test_msync(flags: int, result: int) -> None:
    """MS_SYNC calls fsync of the file, which has none."""
    w = world(pages=2)
    at = w.enclave.data[0]
    assert w.do(mlock.sys_msync(w.host.thread, at, PAGE_SIZE, flags)) == result
    assert w.do(mlock.sys_msync(w.host.thread, at + 1, PAGE_SIZE, flags)) == -EINVAL
    hole = w.enclave.base + w.enclave.size
    wanted = -EINVAL if flags & 8 or flags == 5 else -ENOMEM
    assert w.do(mlock.sys_msync(w.host.thread, hole, PAGE_SIZE, flags)) == wanted


# pkey_mprotect


@pytest.mark.parametrize("key", [-2, 0, 1, 15, 16])
def test_a_key_that_was_not_allocated(key: int) -> None:
    """Tested after alignment, length and rights, and before the areas."""
    w = world(pages=2)
    at, thread = w.enclave.data[0], w.host.thread
    call = syscalls.sys_pkey_mprotect
    assert w.do(call(thread, at, PAGE_SIZE, PROT_READ, key)) == -EINVAL
    assert w.do(call(thread, at, 0, PROT_READ, key)) == 0
    assert w.do(call(thread, at, (1 << 64) - PAGE_SIZE, PROT_READ, key)) == -ENOMEM
    hole = w.enclave.base + w.enclave.size
    assert w.do(call(thread, hole, PAGE_SIZE, PROT_READ, key)) == -EINVAL
    assert w.do(call(thread, hole, PAGE_SIZE, PROT_READ, -1)) == -ENOMEM
    vma = w.mm.vma_lookup(at)
    assert vma is not None
    assert vma.flags == PROT_READ | PROT_WRITE
    assert w.do(call(thread, at, PAGE_SIZE, PROT_READ, -1)) == 0
