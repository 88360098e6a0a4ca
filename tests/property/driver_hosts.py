"""Moves of host processes: descriptors, mappings, processes, touches, signals, lack of memory.

A move is a generator that takes its slot and three numbers: two that choose, and `spoil`, mostly 0.
"""

from __future__ import annotations

from softsgx.linux import syscalls
from softsgx.linux.bug import KernelBug
from softsgx.linux.errno import (
    EACCES,
    EBADF,
    EINTR,
    EINVAL,
    ENOMEM,
)
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.uapi import (
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from softsgx.sim import Steps, Unmodelled
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.system import HostThread
from tests.property.driver_machine import DriverMachine
from tests.property.driver_world import ALIAS, DATA, ENCLAVES, HEAP, SIZE, Enclave, Slot
from tests.property.world import pick

RW = PROT_READ | PROT_WRITE
PROTS = (RW, RW, RW, RW | PROT_EXEC, PROT_READ, 0, PROT_READ | PROT_EXEC, PROT_WRITE)
SITES = (
    *("sgx_open", "create_buffer", "init_page", "sgx_encl_page_alloc", "split_vma"),
    *("xa_insert", "sgx_alloc_epc_page", "sgx_encl_get_backing", "vmf_insert_pfn") * 3,
    *("sgx_encl_mm_add",),
)
_FDS_MAX = 6


class HostMoves(DriverMachine):
    """System calls and accesses."""

    def host(self, slot: Slot) -> HostThread:
        assert slot.host is not None
        return slot.host

    # Descriptors

    def open(self, slot: Slot, number: int, _value: int, spoil: int) -> Steps[None]:
        host = self.host(slot)
        if len(host.process.files) >= _FDS_MAX:
            return
        if number % 8 == 0:
            yield from host.open(syscalls.SGX_PROVISION)
        elif len(self.enclaves) < ENCLAVES and self.claim_number():
            fd = yield from host.open()
            self.opening -= 1
            if fd >= 0:
                self.adopt(host, fd)

    opening = 0  # calls of open(2) in flight

    def claim_number(self) -> bool:
        """Reserve one of the few enclaves while open(2) is under way."""
        if len(self.enclaves) + self.opening >= ENCLAVES:
            return False
        self.opening += 1
        return True

    def dup(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        host = self.host(slot)
        fds = sorted(host.process.files)
        if fds and len(fds) < _FDS_MAX:
            fd = yield from syscalls.sys_dup(host.thread, pick(fds, number))
            assert fd >= 0 or fd == -EBADF

    def close(self, slot: Slot, number: int, _value: int, spoil: int) -> Steps[None]:
        """Close a descriptor; only now and then the last one of an enclave."""
        host = self.host(slot)
        files = host.process.files
        many = [fd for fd in files if len(self.fds(host, files[fd])) > 1]
        fds = sorted(files) if number % 4 == 0 else sorted(many)
        fd = pick(fds, number >> 2) if fds and spoil != 1 else 77
        ret = yield from host.close(fd)
        assert ret in (0, -EBADF)
        self.forget()

    def pass_fd(self, slot: Slot, number: int, value: int, _spoil: int) -> Steps[None]:
        """SCM_RIGHTS: the same open file in another process."""
        host = self.host(slot)
        others = [h for h in self.hosts() if h.process is not host.process]
        files = list(host.process.files.values())
        pairs = [
            (other, file)
            for other in others
            for file in files
            if len(other.process.files) < _FDS_MAX and not self.fds(other, file)
        ]
        if pairs:
            other, file = pick(pairs, number + value)
            file.get()
            assert other.process.install_fd(file) >= 0
            self.count("a descriptor was passed")
        return
        yield

    # Mappings

    def span(self, enclave: Enclave, number: int, spoil: int) -> tuple[int, int]:
        """Some pages of an enclave: (address, length), or nearly."""
        first = (enclave.data - enclave.base) // PAGE_SIZE + number % (DATA + HEAP)
        pages = (1, 1, 1, 2, 3, 8)[number // 32 % 6]
        if number // 256 % 16 == 0:
            first, pages = number % 16, SIZE // PAGE_SIZE
        pages = min(pages, SIZE // PAGE_SIZE - first)
        start, length = enclave.base + first * PAGE_SIZE, pages * PAGE_SIZE
        if spoil == 1:
            start += 8
        elif spoil == 2:
            length = number % 2 * ((1 << 64) - PAGE_SIZE)
        elif spoil == 3:
            length += SIZE
        return start, length

    def mmap(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        host, enclave = self.host(slot), self.known(self.host(slot), number, ready=number % 8 > 0)
        if enclave is None:
            return
        start, length = self.span(enclave, number, spoil)
        flags = MAP_SHARED | (MAP_FIXED_NOREPLACE if value & 64 else MAP_FIXED)
        if spoil == 4:
            flags = (MAP_PRIVATE | MAP_FIXED, MAP_SHARED, 0)[value % 3]
        fd = self.fds(host, enclave.file)[0]
        yield from self.map_to(host, enclave, start, length, pick(PROTS, value), flags, fd)

    def map_to(
        self,
        host: HostThread,
        enclave: Enclave,
        start: int,
        length: int,
        prot: int,
        flags: int,
        fd: int,
    ) -> Steps[int]:
        """mmap; -EINTR means that the registration leaked a reference."""
        ret = yield from host.mmap(start, length, prot, flags, fd)
        if ret == -EINTR:
            enclave.leaked += 1
            self.count("mmap was interrupted")
        elif ret >= 0:
            self.count("mmap of an enclave")
        self.forget()
        return ret

    def map_all(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        """Map as a loader does: image pages with their rights, the hole with all rights."""
        host = self.host(slot)
        enclave = self.known(host, number)
        if enclave is None:
            return
        flags, fd = MAP_SHARED | MAP_FIXED, self.fds(host, enclave.file)[0]
        last = enclave.data + 3 * PAGE_SIZE
        for start, end, prot in (
            (enclave.base, enclave.data, RW),
            (enclave.data, last, RW | (PROT_EXEC if number & 8 else 0)),
            (last, last + PAGE_SIZE, RW),
            (last + PAGE_SIZE, enclave.base + SIZE, RW | PROT_EXEC),
        ):
            if enclave.file not in host.process.files.values():
                return
            yield from self.map_to(host, enclave, start, end - start, prot, flags, fd)

    def munmap(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        host = self.host(slot)
        if self.enclaves:
            start, length = self.span(pick(self.enclaves, value), number, spoil)
            alias = ALIAS if value & 16 else 0
            ret = yield from host.munmap(start + alias, length)
            assert ret in (0, -ENOMEM, -EINVAL)
            self.forget()

    def mprotect(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        host = self.host(slot)
        if not self.enclaves:
            return
        start, length = self.span(pick(self.enclaves, value), number, spoil)
        try:
            ret = yield from host.mprotect(start, length, pick(PROTS, value))
        except KernelBug as bug:
            if host.thread.mm not in self.orphans or "vm_private_data" not in str(bug):
                raise
            self.count("mprotect of an orphan")
            return
        assert ret in (0, -ENOMEM, -EINVAL, -EACCES)
        self.count(f"mprotect {ret}")

    def mremap(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """Move an area to the alias range or back, shrink or grow it; PTEs may be misplaced."""
        host = self.host(slot)
        if not self.enclaves:
            return
        old, length = self.span(pick(self.enclaves, value), number, spoil % 3)
        new = old + ALIAS
        if value & 16:
            old, new = new, old
        new_length, flags = length, MREMAP_MAYMOVE | MREMAP_FIXED
        if value & 32:
            new_length, flags = (length // 2 or 1, MREMAP_MAYMOVE)[:2]
        if spoil == 4:
            new_length += PAGE_SIZE
        mm = host.thread.mm
        pages = range(new >> PAGE_SHIFT, (new + min(length, SIZE)) >> PAGE_SHIFT)
        self.aliased |= {(mm, page) for page in pages}
        try:
            ret = yield from host.mremap(old, length, new_length, flags, new)
        except Unmodelled:
            return
        self.count("mremap" if ret >= 0 else "mremap was refused")
        self.forget()

    # Processes

    def fork(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        """A child on a free processor."""
        free = [s for s in self.slots if s.host is None and s.task is None and not s.reserved]
        if not free:
            return
        target, host = pick(free, number), self.host(slot)
        target.reserved = True  # reserved
        child = yield from host.fork(f"child {self.names}", target.cpu)
        target.host, target.reserved = child, False
        assert slot.task is not None
        self.bequeath(host, child, self.blamed.get(slot.task, []).count("sgx_encl_mm_add"))
        self.count("fork")

    def bequeath(self, host: HostThread, child: HostThread, failed: int) -> None:
        """Note what the child inherits, as far as the invariants need it."""
        mine, its = host.thread.mm, child.thread.mm
        self.aliased |= {(its, page) for mm, page in self.aliased if mm is mine}
        lost = 0
        for parent, area in zip(mine.vmas, its.vmas, strict=True):
            if area.sgx and area.encl is None:
                self.orphans.add(its)
                if parent.encl is not None:
                    enclave = self.enclave_of(parent.encl)
                    assert enclave is not None
                    lost += 1
                    if lost > failed:
                        enclave.leaked += 1
        if its in self.orphans:
            self.count("an orphan")

    def thread(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        """Another thread of the process on a free processor."""
        free = [s for s in self.slots if s.host is None and s.task is None and not s.reserved]
        if free:
            target = pick(free, number)
            process = self.host(slot).process
            target.host = HostThread(self.kernel, process, f"thread {self.names}", target.cpu)
        return
        yield

    def alone(self, slot: Slot) -> bool:
        """Whether no other thread of the process is in a call; if none is, kill them all."""
        mates = [mate for mate in self.mates(self.host(slot)) if mate is not slot]
        if any(mate.task is not None for mate in mates):
            return False
        for mate in mates:
            self.vacate(mate)
        return True

    def exit(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        """exit_group, unless it is the last process."""
        others = [h for h in self.hosts() if h.process is not self.host(slot).process]
        if others and self.alone(slot):
            yield from self.exits(slot)
            self.count("exit")

    def execve(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        if number % 2 == 0 and self.alone(slot):
            yield from syscalls.sys_execve(self.host(slot).thread)
            self.count("exec")
            self.forget()

    # Accesses, signals, lack of memory, and the reclaimer in any thread

    def touch(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """The host reads or writes enclave memory: ones, nothing, or a signal."""
        host = self.host(slot)
        if not self.enclaves:
            return
        enclave = pick(self.enclaves, value)
        address = self.address(enclave, number, spoil) + (ALIAS if spoil == 4 else 0)
        if value & 16:
            yield from host.store(address, b"from the host")
        else:
            assert (yield from host.load(address, 8)) == b"\xff" * 8
            self.count("the host read an enclave")

    def address(self, enclave: Enclave, number: int, spoil: int) -> int:
        """Mostly a data page or a page of the hole, preferably one that exists or is changing."""
        if enclave.hot and number % 5 < 2 and spoil != 1:
            return enclave.hot
        there = [a << PAGE_SHIFT for a in enclave.encl.page_array]
        there = [a for a in there if a >= enclave.data]
        if number % 4 and there and spoil != 1:
            return pick(there, number >> 3)
        first = enclave.data
        count = (enclave.end - first) // PAGE_SIZE
        if number % 8 == 0 or spoil == 1:
            first, count = enclave.base, SIZE // PAGE_SIZE
        return first + (number >> 3) % count * PAGE_SIZE

    def signal(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        """Send a signal to a thread that is in a call."""
        others = [s for s in self.slots if s.task is not None and s is not slot and s.host]
        if others:
            target = pick(others, number).host
            assert target is not None
            target.thread.pending_signals = 1
            self.count("a signal during a call")
        return
        yield

    def lack(self, _slot: Slot, number: int, value: int, _spoil: int) -> Steps[None]:
        """Make the next use of a site fail, or one of the next few."""
        if len(self.armed) == 2:
            del self.armed[next(iter(self.armed))]
        self.armed[pick(SITES, number)] = value % 3
        return
        yield

    def reclaim(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        """A reclaim pass, as if the thread were short of EPC; all pages may be aged first."""
        if number % 2:
            for host in self.hosts():
                for page in list(host.thread.mm.space.ptes):
                    host.thread.mm.space.test_and_clear_accessed(page << PAGE_SHIFT)
        before = self.kernel.nr_free
        yield from sgx_reclaim_pages(self.host(slot).thread)
        if self.kernel.nr_free > before:
            self.count("a pass found something")
