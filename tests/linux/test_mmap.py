"""mmap of /dev/sgx_enclave: its checks in order, its address, the caps. Linux 6.12, sgx/encl.c."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from softsgx.linux.errno import EACCES, EEXIST, EINTR, EINVAL, ENOMEM, EOPNOTSUPP, EPERM
from softsgx.linux.mm import MMAP_BASE, TASK_SIZE, VM_RWX
from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from softsgx.linux.vfs import O_RDONLY, O_WRONLY
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X
from softsgx.system import Machine
from tests.linux.world import World, unmapped, world

MAP_LOCKED, MAP_POPULATE, MAP_SYNC = 0x2000, 0x8000, 0x8_0000


@dataclass
class Call:
    """An mmap call that succeeds until something about it is spoiled."""

    w: World
    address: int
    length: int = PAGE_SIZE
    prot: int = PROT_READ
    flags: int = MAP_SHARED | MAP_FIXED

    @staticmethod
    def good() -> Call:
        """The first mapping of an initialised enclave, over the reservation of its range."""
        w = unmapped()
        return Call(w, w.enclave.data[0])

    def result(self) -> int:
        """What mmap returns."""
        w = self.w
        body = w.host.mmap(self.address, self.length, self.prot, self.flags, w.enclave.fd)
        return w.do(body)

    def mode(self, mode: int) -> None:
        """The descriptor was opened with this mode."""
        self.w.host.process.files[self.w.enclave.fd].flags = mode


def no_length(c: Call) -> None:
    c.length = 0


def too_many_areas(c: Call) -> None:
    c.w.mm.max_map_count = len(c.w.mm.vmas) - 1


def private(c: Call) -> None:
    c.flags = c.flags & ~MAP_SHARED | MAP_PRIVATE


def beyond_user_space(c: Call) -> None:
    c.address = TASK_SIZE | c.address % PAGE_SIZE


def unaligned(c: Call) -> None:
    c.address += 1


def over_something(c: Call) -> None:
    c.flags = c.flags & ~MAP_FIXED | MAP_FIXED_NOREPLACE


def write_read_only(c: Call) -> None:
    c.mode(O_RDONLY)
    c.prot |= PROT_WRITE


def write_only(c: Call) -> None:
    c.mode(O_WRONLY)


def noexec_mount(c: Call) -> None:
    c.w.kernel.dev_noexec = True
    c.prot |= PROT_EXEC


def outside_the_enclave(c: Call) -> None:
    """Its upper half is past the last page, where the test has mapped something."""
    c.address = c.w.enclave.base + c.w.enclave.size - PAGE_SIZE
    c.length = 2 * PAGE_SIZE
    c.w.do(c.w.host.mmap(c.address, c.length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED))


def read_implies_exec(c: Call) -> None:
    c.w.mm.read_implies_exec = True


def beyond_the_cap(c: Call) -> None:
    c.prot |= PROT_EXEC


def no_memory(c: Call) -> None:
    c.w.kernel.inject = "sgx_encl_mm_add".__eq__


def signal(c: Call) -> None:
    c.w.host.thread.pending_signals = 1


Spoil = Callable[[Call], None]

# In the order of the checks: the first that applies decides.
CHECKS: list[tuple[Spoil, int]] = [
    (no_length, EINVAL),
    (too_many_areas, ENOMEM),
    (private, EINVAL),
    (beyond_user_space, ENOMEM),
    (unaligned, EINVAL),
    (over_something, EEXIST),
    (write_read_only, EACCES),
    (write_only, EACCES),
    (noexec_mount, EPERM),
    (outside_the_enclave, EACCES),
    (read_implies_exec, EACCES),
    (beyond_the_cap, EACCES),
    (no_memory, ENOMEM),
    (signal, EINTR),
]
DRIVER = [spoil for spoil, _errno in CHECKS].index(outside_the_enclave)
# Both decide where the mapping goes; only one can.
EXCLUSIVE = {
    (beyond_user_space, outside_the_enclave),
    (beyond_user_space, over_something),
    (unaligned, outside_the_enclave),
    (write_read_only, write_only),
}
PAIRS = [
    pytest.param(first, second, errno, id=f"{first.__name__}, {second.__name__}")
    for at, (first, errno) in enumerate(CHECKS)
    for second, _ in CHECKS[at + 1 :]
    if (first, second) not in EXCLUSIVE
]


def test_good_call_succeeds() -> None:
    call = Call.good()
    assert call.result() == call.address


@pytest.mark.parametrize(("spoil", "errno"), CHECKS, ids=lambda v: getattr(v, "__name__", v))
def test_check(spoil: Spoil, errno: int) -> None:
    call = Call.good()
    spoil(call)
    assert call.result() == -errno


@pytest.mark.parametrize(("first", "second", "errno"), PAIRS)
def test_of_two_checks_the_first_wins(first: Spoil, second: Spoil, errno: int) -> None:
    """The second is spoiled first, so that the first may still change the arguments."""
    call = Call.good()
    second(call)
    first(call)
    assert call.result() == -errno


@pytest.mark.parametrize("at", range(len(CHECKS)), ids=lambda at: CHECKS[at][0].__name__)
def test_refusal_of_the_driver_leaves_a_hole(at: int) -> None:
    """What was mapped in the range is unmapped; a refusal of the generic part leaves it alone."""
    call = Call.good()
    spoil, errno = CHECKS[at]
    spoil(call)
    before = call.w.mm.vma_lookup(call.address)
    assert call.result() == -errno
    after = call.w.mm.vma_lookup(call.address)
    assert after is (before if at < DRIVER else None)


@pytest.mark.parametrize(
    ("flags", "where"),
    [(MAP_PRIVATE, 0), (MAP_PRIVATE | MAP_FIXED, 0x1000_0000), (0, 0), (0x04, 0)],
    ids=["private", "private, fixed", "no type", "unknown type"],
)
def test_only_shared_types(flags: int, where: int) -> None:
    w = unmapped()
    assert w.do(w.host.mmap(where, PAGE_SIZE, R, flags, w.enclave.fd)) == -EINVAL


def test_shared_validate_is_shared() -> None:
    w = unmapped()
    address = w.enclave.data[0]
    flags = MAP_SHARED_VALIDATE | MAP_FIXED
    assert w.do(w.host.mmap(address, PAGE_SIZE, R, flags, w.enclave.fd)) == address


@pytest.mark.parametrize(
    ("flags", "file", "result"),
    [
        (MAP_SHARED_VALIDATE | MAP_POPULATE | MAP_LOCKED, True, None),
        (MAP_SHARED_VALIDATE | MAP_SYNC, True, -EOPNOTSUPP),
        (MAP_SHARED_VALIDATE | MAP_FIXED_NOREPLACE, True, -EOPNOTSUPP),
        (MAP_SHARED_VALIDATE | MAP_FIXED_NOREPLACE | MAP_FIXED, True, -EEXIST),
        (MAP_SHARED | MAP_SYNC | 1 << 30, True, None),
        (MAP_SHARED_VALIDATE | MAP_ANONYMOUS, False, -EINVAL),
    ],
)
def test_shared_validate_refuses_flags_it_does_not_know(
    flags: int, file: bool, result: int | None
) -> None:
    """MAP_SHARED ignores them. MAP_FIXED_NOREPLACE is unknown to it; but first, is the range free?

    Linux 6.12, mm/mmap.c, do_mmap; include/linux/mman.h, LEGACY_MAP_MASK.
    """
    w = unmapped()
    free = w.enclave.base - PAGE_SIZE
    assert w.mm.vma_lookup(free) is None
    if flags & MAP_FIXED:
        free = w.enclave.base
    answer = w.do(w.host.mmap(free, PAGE_SIZE, 0, flags, w.enclave.fd if file else -1))
    if result is None:
        # The driver is called, and refuses a range outside the enclave.
        assert answer == -EACCES
    else:
        assert answer == result


@pytest.mark.parametrize("bit", range(4, 32))
def test_shared_validate_knows_the_flags_that_were_there_before_it(bit: int) -> None:
    """Bits 4 to 6, 8 and 11 to 18; of the sizes of huge pages, 26 to 31, those of 2 MB and 1 GB.

    include/linux/mman.h, LEGACY_MAP_MASK, by the numbers of the ABI. An anonymous mapping cannot be
    MAP_SHARED_VALIDATE at all, an SGX node has neither huge pages nor areas that grow, and the
    driver refuses this range: -EACCES.
    """
    w = unmapped()
    free = w.enclave.base - PAGE_SIZE
    flags = MAP_SHARED_VALIDATE | 1 << bit
    known = bit in (4, 6, 8, *range(11, 19), 26, 27, 28, 29, 30)
    answer = w.do(w.host.mmap(free, PAGE_SIZE, 0, flags, w.enclave.fd))
    if bit in (5, 8, 18):  # MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_HUGETLB
        assert answer == -EINVAL
    else:
        assert answer == (-EACCES if known else -EOPNOTSUPP)


# Where the mapping goes


def test_address_is_page_aligned_and_no_more() -> None:
    """No natural alignment: the ordinary search from the top downwards."""
    machine = Machine()
    host = machine.thread()
    fd = machine.run(host.open())
    length = 3 * PAGE_SIZE
    first = machine.run(host.mmap(0, length, R, MAP_SHARED, fd))
    second = machine.run(host.mmap(0, length, R, MAP_SHARED, fd))
    assert (first, second) == (MMAP_BASE - length, MMAP_BASE - 2 * length)


def test_address_hint_is_taken_if_free() -> None:
    machine = Machine()
    host = machine.thread()
    fd = machine.run(host.open())
    hint = 0x5000_0000_0000
    assert machine.run(host.mmap(hint + 1, PAGE_SIZE, R, MAP_SHARED, fd)) == hint
    taken = machine.run(host.mmap(hint + 1, PAGE_SIZE, R, MAP_SHARED, fd))
    assert taken == MMAP_BASE - PAGE_SIZE


@pytest.mark.parametrize("flag", [MAP_FIXED, MAP_FIXED_NOREPLACE])
def test_fixed_address_is_unchanged(flag: int) -> None:
    machine = Machine()
    host = machine.thread()
    fd = machine.run(host.open())
    address = TASK_SIZE - PAGE_SIZE
    assert machine.run(host.mmap(address, PAGE_SIZE, R, MAP_SHARED | flag, fd)) == address


def test_longer_than_user_space() -> None:
    """That is tested before the driver tests the type of the mapping."""
    w = unmapped()
    for flags in (MAP_SHARED, MAP_PRIVATE):
        assert w.do(w.host.mmap(0, TASK_SIZE + 1, R, flags, w.enclave.fd)) == -ENOMEM


def test_before_init_there_is_no_range() -> None:
    """Anywhere, with any rights, also before CREATE."""
    machine = Machine()
    host = machine.thread()
    fd = machine.run(host.open())
    for number, prot in enumerate(range(VM_RWX + 1)):
        address = 0x1000_0000 + number * PAGE_SIZE
        mapped = host.mmap(address, PAGE_SIZE, prot, MAP_SHARED | MAP_FIXED, fd)
        assert machine.run(mapped) == address


@pytest.mark.parametrize(("start", "pages"), [(-1, 1), (-1, 2), ("last", 2), ("end", 1)], ids=str)
def test_after_init_the_range_is_the_enclave(start: int | str, pages: int) -> None:
    w = world()
    offset = {"last": w.enclave.size - PAGE_SIZE, "end": w.enclave.size}.get(str(start), -PAGE_SIZE)
    address = w.enclave.base + offset
    assert w.map(address, PROT_NONE, pages * PAGE_SIZE) == -EACCES
    assert w.map(w.enclave.base, PROT_NONE, w.enclave.size) == w.enclave.base


# READ_IMPLIES_EXEC and noexec


def test_read_implies_exec_on_a_noexec_mount_adds_nothing() -> None:
    """PROT_EXEC is not added, so it is the driver that refuses, and not the mount."""
    call = Call.good()
    read_implies_exec(call)
    call.w.kernel.dev_noexec = True
    assert call.result() == -EACCES


def test_noexec_mount_never_gives_exec_later() -> None:
    w = unmapped()
    w.kernel.dev_noexec = True
    assert w.map(w.enclave.heap, R | W) == w.enclave.heap
    assert w.protect(w.enclave.heap, R | X) == -EACCES
    assert w.protect(w.enclave.heap, R) == 0


def test_read_only_descriptor_never_gives_write_later() -> None:
    w = unmapped()
    w.host.process.files[w.enclave.fd].flags = O_RDONLY
    assert w.map(w.enclave.heap, R) == w.enclave.heap
    assert w.protect(w.enclave.heap, R | W) == -EACCES
    assert w.protect(w.enclave.heap, R | X) == 0


# Mapping only checks


def test_mapping_installs_no_entry_and_touches_no_epc() -> None:
    w = world()
    free = w.kernel.nr_free
    assert w.map(w.enclave.heap, RWX) == w.enclave.heap
    assert w.map(w.enclave.data[0], R) == w.enclave.data[0]
    assert [w.mm.space.lookup(a) for a in (w.enclave.heap, w.enclave.data[0])] == [0, 0]
    assert w.kernel.nr_free == free


# Looking up


def test_an_area_is_found_by_its_addresses_and_the_next_one_by_those_of_a_hole() -> None:
    """Below all areas, at both ends of each, in a hole, and above the last."""
    mm = world().mm
    edges = {edge for vma in mm.vmas for edge in (vma.start, vma.end)}
    places = sorted({0, *edges, *(edge - 1 for edge in edges), *(edge + 1 for edge in edges)})
    holes = 0
    for address in places:
        above = [vma for vma in mm.vmas if vma.end > address]
        assert mm.find_vma(address) is (above[0] if above else None)
        inside = [vma for vma in above if vma.start <= address]
        assert mm.vma_lookup(address) is (inside[0] if inside else None)
        holes += bool(above) and not inside
    assert holes >= 2
