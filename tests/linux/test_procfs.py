"""What can be seen of SGX from outside: /proc/<pid>/maps, sysfs, the kernel log; madvise, read.

Linux 6.12, fs/proc/task_mmu.c (show_map_vma), sgx/main.c, mm/madvise.c.
"""

from __future__ import annotations

import pytest

from softsgx.cpu import Processor
from softsgx.linux.errno import EBADF, EINVAL, ENOENT, ENOMEM
from softsgx.linux.kernel import Kernel
from softsgx.linux.madvise import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
)
from softsgx.linux.syscalls import sys_open
from softsgx.linux.uapi import MAP_FIXED, MAP_SHARED
from softsgx.linux.vfs import O_RDONLY, O_WRONLY
from softsgx.sim import Unmodelled
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X
from softsgx.system import Machine
from tests.linux.world import unmapped, world

FIXED = MAP_SHARED | MAP_FIXED


def test_line_of_an_enclave_area() -> None:
    """Name in column 74; shared; the offset as mapped, though it is never used."""
    w = world()
    data = w.enclave.data[0]
    line = next(text for text in w.mm.maps().splitlines() if text.startswith(f"{data:08x}-"))
    start, rest = f"{data:x}-{data + PAGE_SIZE:x} ", "rw-s 00000000 00:05 126"
    assert line == f"{start + rest:73}/dev/sgx_enclave"


@pytest.mark.parametrize(
    ("rights", "text"),
    [(0, "---s"), (R, "r--s"), (R | W, "rw-s"), (R | X, "r-xs"), (RWX, "rwxs"), (W, "-w-s")],
)
def test_rights(rights: int, text: str) -> None:
    """As requested, even where page tables can only grant more."""
    w = unmapped()
    hole = w.enclave.heap
    assert w.map(hole, rights) == hole
    line = next(line for line in w.mm.maps().splitlines() if line.startswith(f"{hole:08x}-"))
    assert line.split()[1] == text


def test_offset_follows_splits_and_moves() -> None:
    w = unmapped()
    hole, pages = w.enclave.heap, 4
    length, offset = pages * PAGE_SIZE, 0x10_0000
    assert w.do(w.host.mmap(hole, length, R, FIXED, w.enclave.fd, offset)) == hole
    assert w.protect(hole + PAGE_SIZE, R | W) == 0
    elsewhere = w.do(w.host.alloc(PAGE_SIZE))
    assert w.do(w.host.munmap(elsewhere, PAGE_SIZE)) == 0
    last = hole + 3 * PAGE_SIZE
    assert w.do(w.host.mremap(last, PAGE_SIZE, PAGE_SIZE, 3, elsewhere)) == elsewhere
    rows = [line.split() for line in w.mm.maps().splitlines() if "sgx" in line]
    seen = {int(row[0].split("-")[0], 16): (row[1], row[2]) for row in rows}
    assert seen == {
        hole: ("r--s", "00100000"),
        hole + PAGE_SIZE: ("rw-s", "00101000"),
        hole + 2 * PAGE_SIZE: ("r--s", "00102000"),
        elsewhere: ("r--s", "00103000"),
    }
    assert w.do(w.host.mmap(0, PAGE_SIZE, R, MAP_SHARED, w.enclave.fd, 8)) == -EINVAL


def test_child_shows_the_same() -> None:
    w = world()
    child = w.do(w.host.fork("child", 1))
    assert child.thread.mm.maps() == w.mm.maps()


def test_line_of_anonymous_memory() -> None:
    machine = Machine()
    host = machine.thread()
    at = machine.run(host.alloc(PAGE_SIZE))
    assert host.thread.mm.maps() == f"{at:x}-{at + PAGE_SIZE:x} rw-p 00000000 00:00 0 \n"


@pytest.mark.parametrize(("epc", "text"), [("1M", "1048576\n"), ("64K", "65536\n")])
def test_total_bytes_of_epc(epc: str, text: str) -> None:
    assert Machine(epc=epc).kernel.sgx_total_bytes() == text


def test_log_names_each_section() -> None:
    """Inclusive end, lower-case hexadecimal."""
    kernel = Kernel(Processor(sections=[(0x8000_0000, 16), (0x9000_0000, 32)]))
    assert list(kernel.printed.values()) == [
        "sgx: EPC section 0x80000000-0x8000ffff",
        "sgx: EPC section 0x90000000-0x9001ffff",
    ]
    assert kernel.sgx_total_bytes() == f"{48 * PAGE_SIZE}\n"


# read, write, madvise


@pytest.mark.parametrize("path", ["/dev/sgx_enclave", "/dev/sgx_provision"])
def test_nodes_have_neither_read_nor_write(path: str) -> None:
    """The mode of the descriptor is tested before."""
    machine = Machine()
    host = machine.thread()
    both = machine.run(host.open(path))
    assert machine.run(host.read(both)) == machine.run(host.write(both)) == -EINVAL
    reading = machine.run(sys_open(host.thread, path, O_RDONLY))
    writing = machine.run(sys_open(host.thread, path, O_WRONLY))
    assert machine.run(host.read(reading)) == machine.run(host.write(writing)) == -EINVAL
    assert machine.run(host.write(reading)) == machine.run(host.read(writing)) == -EBADF


def test_virtual_epc_is_not_there() -> None:
    """As on a machine without VMX."""
    machine = Machine()
    assert machine.run(machine.thread().open("/dev/sgx_vepc")) == -ENOENT


@pytest.mark.parametrize(
    "advice", [MADV_DONTNEED, MADV_FREE, MADV_POPULATE_READ, MADV_POPULATE_WRITE]
)
def test_enclave_area_takes_no_advice(advice: int) -> None:
    """-EINVAL, and its entries and pages stay."""
    w = world(pages=2)
    data = w.enclave.data[0]
    w.call(lambda t: t.store(data, b"kept"))
    assert w.do(w.host.madvise(data, PAGE_SIZE, advice)) == -EINVAL
    assert w.mm.space.lookup(data) != 0
    assert w.call(lambda t: t.load(data, 4)) == b"kept"


def test_arguments_of_madvise() -> None:
    w = world()
    data = w.enclave.data[0]
    assert w.do(w.host.madvise(data + 1, PAGE_SIZE, MADV_DONTNEED)) == -EINVAL
    assert w.do(w.host.madvise(data, (1 << 64) - PAGE_SIZE, MADV_DONTNEED)) == -EINVAL
    assert w.do(w.host.madvise(data, 0, MADV_DONTNEED)) == 0


def test_ordinary_memory_is_discarded_up_to_the_enclave_area() -> None:
    w = world()
    at = w.do(w.host.alloc(3 * PAGE_SIZE))
    for number in range(3):
        w.do(w.host.store(at + number * PAGE_SIZE, b"old"))
    assert w.do(w.host.madvise(at, 2 * PAGE_SIZE, MADV_FREE)) == 0
    assert w.do(w.host.madvise(at, 2 * PAGE_SIZE, MADV_DONTNEED)) == 0
    assert [w.do(w.host.load(at + n * PAGE_SIZE, 3)) for n in range(3)] == [b"\0\0\0"] * 2 + [
        b"old"
    ]
    assert w.do(w.host.munmap(at + PAGE_SIZE, PAGE_SIZE)) == 0
    # The hole is reported last: the areas after it are discarded as well.
    assert w.do(w.host.madvise(at, 3 * PAGE_SIZE, MADV_DONTNEED)) == -ENOMEM
    assert w.do(w.host.load(at + 2 * PAGE_SIZE, 3)) == bytes(3)
    assert w.do(w.host.madvise(at + PAGE_SIZE, PAGE_SIZE, MADV_POPULATE_READ)) == -ENOMEM
    with pytest.raises(Unmodelled, match="anonymous"):
        w.do(w.host.madvise(at, PAGE_SIZE, MADV_POPULATE_READ))
