"""Debugger access to enclave memory, row by row: ptrace, /proc/<pid>/mem, the access hook itself.

Linux 6.12, sgx/encl.c (sgx_vma_access), mm/memory.c (__access_remote_vm), fs/proc/base.c (mem_rw).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from softsgx.linux.errno import EFAULT, EIO, ENOMEM, ESRCH
from softsgx.linux.process import Process
from softsgx.linux.sgx.debug import sgx_vma_access
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.sim import Steps
from softsgx.spec.attributes import ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X
from softsgx.spec.leaves import EDBGRD, EDBGWR
from softsgx.spec.tcs import TCS_OFF_FLAGS
from softsgx.system import EnclaveThread, Machine, load
from softsgx.system.loader import default_image
from tests.linux.failing import nth
from tests.linux.held import at_lock, at_retry, to_the_end
from tests.linux.test_fork import unregistered
from tests.linux.test_races import alone, scheduled
from tests.linux.world import World, world

SECRET = b"a secret of 16 B"


class Debugged:
    """An enclave with a secret in its first data page, and a debugger on another processor."""

    def __init__(self, w: World | None = None) -> None:
        self.w = w or world(pages=2)
        self.data = self.w.enclave.data[0]
        self.debugger = self.w.machine.thread(cpu=3, name="debugger")

        def keep(t: EnclaveThread) -> Steps[None]:
            yield from t.store(self.data, SECRET)

        self.w.call(keep)

    @property
    def tracee(self) -> Process:
        return self.w.host.process

    def peek(self, address: int) -> int:
        return self.w.do(self.debugger.peek(self.tracee, address))

    def poke(self, address: int, word: int = 0) -> int:
        return self.w.do(self.debugger.poke(self.tracee, address, word))

    def read(self, address: int, size: int) -> bytes | int:
        return self.w.do(self.debugger.mem_read(self.tracee, address, size))

    def write(self, address: int, data: bytes) -> int:
        return self.w.do(self.debugger.mem_write(self.tracee, address, data))

    def hook(self, address: int, buf: bytearray, write: bool = False) -> int:
        """The access hook of the area at `address`."""
        vma = self.w.mm.vma_lookup(address)
        assert vma is not None
        thread = self.debugger.thread
        return self.w.do(sgx_vma_access(thread, vma, address, memoryview(buf), write))

    def inside(self, address: int, size: int) -> bytes:
        data: bytes = self.w.call(lambda t: t.load(address, size))
        return data


def test_peek_and_poke() -> None:
    d = Debugged()
    assert d.peek(d.data) == int.from_bytes(SECRET[:8], "little")
    assert d.poke(d.data + 8, 0x4242_4242_4242_4242) == 0
    assert d.inside(d.data, 16) == SECRET[:8] + b"B" * 8
    assert d.w.do(d.w.host.load(d.data, 4)) == b"\xff" * 4, "any other access sees the abort page"


@pytest.mark.parametrize(("offset", "size"), [(0, 16), (3, 2), (7, 2), (5, 11), (8, 8)])
def test_words_are_patched(offset: int, size: int) -> None:
    """Whatever the alignment: the words around are read, patched and written."""
    d = Debugged()
    assert d.read(d.data + offset, size) == SECRET[offset : offset + size]
    new = bytes(range(0x80, 0x80 + size))
    assert d.write(d.data + offset, new) == size
    assert d.inside(d.data, 16) == SECRET[:offset] + new + SECRET[offset + size :]


def test_unaligned_peek_spans_two_words() -> None:
    d = Debugged()
    assert d.peek(d.data + 5) == int.from_bytes(SECRET[5:13], "little")


def test_rights_of_the_enclave_do_not_matter() -> None:
    """EDBGRD and EDBGWR do not test R, W, X: a page restricted to nothing in an area without W."""
    d = Debugged()
    assert d.w.do(d.w.enclave.restrict(d.w.host, d.data, PAGE_SIZE, 0))[0] == 0
    assert d.w.protect(d.data, R) == 0
    assert d.poke(d.data, 7) == 0
    assert d.peek(d.data) == 7


def test_without_the_debug_attribute_it_is_efault() -> None:
    machine = Machine(cpus=4, epc="1M")
    host = machine.thread()
    image = replace(default_image(), attributes=ATTR_MODE64BIT)
    d = Debugged(World(machine, host, machine.run(load(host, image))))
    assert d.hook(d.data, bytearray(8)) == -EFAULT
    assert d.peek(d.data) == d.poke(d.data) == -EIO
    assert d.read(d.data, 1) == d.write(d.data, b"x") == -EIO


def test_area_without_an_enclave_is_efault() -> None:
    """A child whose registration failed."""
    w, child = unregistered("memory")
    vma = child.thread.mm.vma_lookup(w.enclave.data[0])
    assert vma is not None
    view = memoryview(bytearray(8))
    access = sgx_vma_access(w.host.thread, vma, w.enclave.data[0], view, False)
    assert w.do(access) == -EFAULT
    assert w.do(w.host.peek(child.process, w.enclave.data[0])) == -EIO


def test_hole_is_efault_and_stays_a_hole() -> None:
    d = Debugged()
    assert d.hook(d.w.enclave.heap, bytearray(8)) == -EFAULT
    assert d.peek(d.w.enclave.heap) == d.poke(d.w.enclave.heap) == -EIO
    assert d.w.encl.page(d.w.enclave.heap) is None


@pytest.mark.parametrize("rights", [RWX, R | X, X])
def test_area_wider_than_the_cap_is_efault(rights: int) -> None:
    """The cap is RW. An area from before ADD_PAGES may be wider; here the cap shrinks."""
    d = Debugged()
    page = d.w.encl.page(d.data)
    assert page is not None
    vma = d.w.mm.vma_lookup(d.data)
    assert vma is not None
    vma.flags = rights
    assert d.hook(d.data, bytearray(8)) == -EFAULT
    page.vm_max_prot_bits = rights
    assert d.hook(d.data, bytearray(8)) == 8


def test_no_area_is_eio() -> None:
    d = Debugged()
    assert d.w.do(d.w.host.munmap(d.data, PAGE_SIZE)) == 0
    assert d.peek(d.data) == d.read(d.data, 8) == -EIO


def test_evicted_page_is_brought_back_without_an_entry() -> None:
    d = Debugged()
    alone(d.w, d.data)
    d.w.do(sgx_reclaim_pages(d.debugger.thread))
    page = d.w.encl.page(d.data)
    assert page is not None
    assert page.epc_page is None
    assert d.read(d.data, 16) == SECRET
    assert page.epc_page is not None
    assert d.w.mm.space.lookup(d.data) == 0


def test_short_of_backing_memory_is_enomem_in_the_hook() -> None:
    d = Debugged()
    alone(d.w, d.data)
    d.w.do(sgx_reclaim_pages(d.debugger.thread))
    d.w.kernel.inject = nth("sgx_encl_get_backing")
    assert d.hook(d.data, bytearray(8)) == -ENOMEM
    assert d.hook(d.data, bytearray(8)) == 8


def test_it_waits_for_the_reclaimer() -> None:
    """The page is marked; the debugger drops the mutex and spins until it is out, then loads it."""
    d = Debugged()
    w = d.w
    alone(w, d.data)
    thread = w.machine.thread(w.host.process, 1).thread
    found: list[bytes | int] = []

    def debug() -> Steps[None]:
        found.append((yield from d.debugger.mem_read(d.tracee, d.data, 16)))

    ended = scheduled(
        w,
        [("reclaim", at_lock("encl->lock", 2)), ("debug", at_retry), ("reclaim", to_the_end)],
        reclaim=sgx_reclaim_pages(thread),
        debug=debug(),
    )
    assert [name for name, _ in ended] == ["reclaim", "debug"]
    assert found == [SECRET]


@pytest.mark.parametrize("leaf", [EDBGRD, EDBGWR])
def test_failing_leaf_is_eio(leaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    d = Debugged()
    name = "edbgrd" if leaf == EDBGRD else "edbgwr"

    def refuse(*_: object) -> Steps[object]:
        yield ("test", name, False)
        return (0x4000000D, 0) if leaf == EDBGRD else 0x4000000D

    monkeypatch.setattr(f"softsgx.linux.sgx.debug.{name}", refuse)
    assert d.hook(d.data, bytearray(8), write=True) == -EIO
    assert d.poke(d.data, 1) == -EIO
    monkeypatch.undo()
    assert d.read(d.data, 16) == SECRET
    assert d.w.kernel.warnings == []


def test_error_counts_more_than_words_before_it() -> None:
    """Two pages, then a hole: the hook moves words of both and still answers -EFAULT."""
    d = Debugged()
    end = d.w.enclave.data[-1] + PAGE_SIZE
    assert end == d.w.enclave.heap
    buf = bytearray(16)
    d.w.call(lambda t: t.store(end - 8, b"the last"))
    assert d.hook(end - 8, buf) == -EFAULT
    assert bytes(buf) == b"the last" + bytes(8)
    assert d.peek(end - 4) == -EIO
    assert d.read(end - 8, 16) == -EIO
    assert d.read(end - 8, 8) == b"the last"
    assert d.write(end - 8, bytes(16)) == -EIO
    assert d.inside(end - 8, 8) == bytes(8), "what was written before the error stays written"


def test_mem_moves_what_lies_in_whole_pages_before_the_error() -> None:
    """/proc/<pid>/mem goes in chunks of 4096 bytes: the chunk with the error does not count."""
    d = Debugged()
    start = d.w.enclave.data[1] - 8
    whole = d.read(start, 3 * PAGE_SIZE)
    assert isinstance(whole, bytes)
    assert len(whole) == PAGE_SIZE


def test_length_is_not_limited_by_the_area() -> None:
    """The hook gets the whole length: it reaches an unmapped page after the area."""
    d = Debugged()
    second = d.w.enclave.data[1]
    d.w.call(lambda t: t.store(second, b"unmapped"))
    assert d.w.do(d.w.host.munmap(second, PAGE_SIZE)) == 0
    assert d.read(second - 8, 16) == bytes(8) + b"unmapped"
    assert d.peek(second) == -EIO


def test_pending_page_reads_as_zero_and_swallows_writes() -> None:
    """SGX_PAGE_NOT_DEBUGGABLE: the kernel expects no status of these leaves and drops it."""
    d = Debugged()
    heap = d.w.enclave.heap
    d.w.do(d.w.host.load(heap, 1))
    assert d.peek(heap) == 0
    assert d.poke(heap, 5) == 0
    assert d.w.call(lambda t: t.accept_new(heap)) == 0
    assert d.peek(heap) == 0
    assert d.poke(heap, 5) == 0
    assert d.peek(heap) == 5


def test_trimmed_page_is_eio() -> None:
    """EDBGRD raises #PF: no debuggable type. While MODIFIED it would be a status; see above."""
    d = Debugged()
    assert d.w.do(d.w.enclave.trim(d.w.host, d.data, PAGE_SIZE))[0] == 0
    assert d.w.call(lambda t: t.accept_trim(d.data)) == 0
    assert d.peek(d.data) == -EIO


def test_of_a_tcs_only_the_flags_can_be_written() -> None:
    """DBGOPTIN is how a debugger turns breakpoints on inside."""
    d = Debugged()
    tcs = d.w.enclave.tcs[0]
    flags = d.peek(tcs + TCS_OFF_FLAGS)
    assert d.poke(tcs + TCS_OFF_FLAGS, flags | 1) == 0
    assert d.peek(tcs + TCS_OFF_FLAGS) == flags | 1
    assert d.peek(tcs + 16) != -EIO  # OSSA
    assert d.poke(tcs + 16, 0) == -EIO
    assert d.peek(tcs + 72) == -EIO, "behind the defined fields"
    assert d.inside(d.data, 16) == SECRET


def test_ordinary_memory() -> None:
    """Whatever the rights of the area: a debugger writes to what the program may only read."""
    d = Debugged()
    at = d.w.do(d.w.host.alloc(2 * PAGE_SIZE))
    d.w.do(d.w.host.store(at, b"12345678"))
    assert d.w.protect(at, 0, 2 * PAGE_SIZE) == 0
    assert d.read(at, 8) == b"12345678"
    assert d.write(at + PAGE_SIZE - 4, b"abcdefgh") == 8
    assert d.read(at + PAGE_SIZE - 4, 9) == b"abcdefgh\0"
    assert d.w.protect(at, R | W, 2 * PAGE_SIZE) == 0
    assert d.w.do(d.w.host.load(at + PAGE_SIZE, 4)) == b"efgh"
    assert d.read(at + PAGE_SIZE, 2 * PAGE_SIZE) == b"efgh" + bytes(PAGE_SIZE - 4)
    # From ordinary memory into the enclave is another area, and another call of its hook.
    assert d.read(0x1000, 8) == -EIO


def test_process_that_has_exited() -> None:
    d = Debugged()
    process = d.tracee
    d.w.do(d.w.host.exit())
    assert d.w.do(d.debugger.peek(process, d.data)) == -EIO
    assert d.w.do(d.debugger.mem_read(process, d.data, 8)) == b""
    assert d.w.do(d.debugger.process_vm_readv(process, d.data, 8)) == -ESRCH


# process_vm_readv pins pages, and enclave memory cannot be pinned


def test_process_vm_readv_does_not_reach_enclave_memory() -> None:
    d = Debugged()
    readv = d.debugger.process_vm_readv
    assert d.w.do(readv(d.tracee, d.data, 8)) == -EFAULT
    at = d.w.do(d.w.host.alloc(2 * PAGE_SIZE))
    d.w.do(d.w.host.store(at + PAGE_SIZE - 4, b"abcd"))
    d.w.do(d.w.host.store(at + PAGE_SIZE, b"efgh"))
    assert d.w.do(readv(d.tracee, at + PAGE_SIZE - 4, 8)) == b"abcdefgh"
    assert d.w.map(at + PAGE_SIZE, R) < 0  # outside the enclave: a hole now
    assert d.w.do(readv(d.tracee, at + PAGE_SIZE - 4, 8)) == b"abcd"
    assert d.w.protect(at, 0) == 0
    assert d.w.do(readv(d.tracee, at, 8)) == -EFAULT
    assert d.w.do(readv(d.tracee, at, 0)) == b""
