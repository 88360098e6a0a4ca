"""Memory of the host program, as enclave code reaches it from the emulator.

A page is copied when it is first touched, and again at the start of each slice, so that a loop that
polls sees a change at most one slice later. Stores go to the real page. A locked instruction stores
only if page and copy are still equal; if not, the page is copied again and the instruction is
executed again. An ordinary store is written at once, except that a store which continues the
previous one may wait until the slice ends or another place is written, as in the store buffer of a
processor.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Final

from softsgx.cpu.fault import PF, Fault
from softsgx.linux.mm import VM_EXEC, VM_WRITE
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_NX, PTE_P, PTE_U, PTE_W, USER_TOP
from softsgx.runner.host import ptrace
from softsgx.runner.host.abi import PATH_MAX, PROCMAP_QUERY
from softsgx.runner.host.process_memory import PageReads, page_reads, read_pages_into
from softsgx.runner.ways import WAYS
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.faults import PFEC_P, PFEC_U, PFEC_W

SHADOWS: Final = 1024
_REFRESHED_MAX: Final = 16

_QUERY: Final = struct.Struct("<8QQIIIIQQ")
_QUERY_FLAGS, _QUERY_NAME_SIZE, _QUERY_NAME = 5, 11, 13


class Stored(Enum):
    """The result of a store."""

    DONE = "the real page has been written"
    STALE = "the copy was out of date: execute again"
    FAULT = "the real page cannot be accessed any more"


class OutOfCopies(Exception):
    """All places for copies are in use: the copies and the emulator's TLB must be dropped."""


class HostMemory:
    """The address space of a process. `pid` is the number of any live thread of it.

    `is_enclave(address)` says whether an address is a mapping of /dev/sgx_enclave.
    """

    def __init__(self, pid: int, is_enclave: Callable[[int], bool]) -> None:
        self.pid = pid
        self.is_enclave = is_enclave
        self.shadow_size = SHADOWS * PAGE_SIZE
        self.shadow = mmap.mmap(-1, self.shadow_size)
        self.shadow_address = ctypes.addressof(ctypes.c_char.from_buffer(self.shadow))
        self._fresh = mmap.mmap(-1, _REFRESHED_MAX * PAGE_SIZE)
        self._fresh_address = ctypes.addressof(ctypes.c_char.from_buffer(self._fresh))
        self._slots: dict[int, int] = {}  # page number -> slot
        self._pages: list[int] = []  # slot -> page number
        # How to refresh the copies; None if that must be found anew, for another pid or pages.
        self._reads: PageReads | None = None
        self._reads_pid = pid
        self._writable: set[int] = set()  # pages that were found writable in this slice
        # The stores that wait, which are contiguous, and where the next one would have to go.
        self._waiting = bytearray()
        self._waiting_end = -1
        self._mem = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._maps = os.open(f"/proc/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
        self._query_works = True

    def close(self) -> None:
        """Close the files of the process."""
        os.close(self._mem)
        os.close(self._maps)

    # For the emulator

    def translate(self, address: int, write: bool) -> int:
        """Offset of a host address in the copies.

        PF if the program may not access the address. OutOfCopies if there is no place for a copy.
        """
        page = address >> PAGE_SHIFT
        if write and not self._may_write(page):
            raise self.refusal(address)
        slot = self._slots.get(page)
        if slot is None:
            self.drain()
            slot = len(self._pages)
            if slot == SHADOWS:
                raise OutOfCopies
            if not self._copy(page, slot):
                raise PF(page << PAGE_SHIFT, "HOST.01", PFEC_U | (PFEC_W if write else 0))
            self._slots[page] = slot
            self._pages.append(page)
            self._reads = None
        return slot * PAGE_SIZE | address & PAGE_MASK

    def store_locked(self, offset: int, data: bytes) -> Stored:
        """Carry out the store of a locked instruction, at `offset` in the copies, in one page."""
        self.drain()
        slot, size = offset >> PAGE_SHIFT, len(data)
        page = self._pages[slot]
        address = page << PAGE_SHIFT | offset & PAGE_MASK
        if not self._may_write(page):
            return Stored.FAULT
        try:
            if os.pread(self._mem, size, address) != self.shadow[offset : offset + size]:
                return Stored.STALE if self._copy(page, slot) else Stored.FAULT
            os.pwrite(self._mem, data, address)
        except OSError:
            return Stored.FAULT
        self.shadow[offset : offset + size] = data
        return Stored.DONE

    def store(self, offset: int, data: bytes) -> Stored:
        """Carry out an ordinary store, in one page. It waits if it continues the last one."""
        end = offset + len(data)
        if offset == self._waiting_end and offset & PAGE_MASK:
            self._waiting += data
            self._waiting_end = end
            self.shadow[offset:end] = data
            return Stored.DONE
        self.drain()
        if not self.store_bytes(offset, data):
            return Stored.FAULT
        self._waiting_end = end
        return Stored.DONE

    def store_bytes(self, offset: int, data: bytes) -> bool:
        """Write to the real page and to its copy, in one page. False if that is not possible."""
        address = self.address_of(offset)
        if not self._may_write(address >> PAGE_SHIFT):
            return False
        try:
            os.pwrite(self._mem, data, address)
        except OSError:
            return False
        self.shadow[offset : offset + len(data)] = data
        return True

    def drain(self) -> None:
        """Write the waiting stores; if the program has unmapped the page, they are lost."""
        if self._waiting_end < 0:
            return
        if self._waiting:
            data, self._waiting = bytes(self._waiting), bytearray()
            self.store_bytes(self._waiting_end - len(data), data)
        self._waiting_end = -1

    def address_of(self, offset: int) -> int:
        """The host address of a place in the copies."""
        return self._pages[offset >> PAGE_SHIFT] << PAGE_SHIFT | offset & PAGE_MASK

    def _may_write(self, page: int) -> bool:
        """Whether the area of a page is writable: /proc/pid/mem, where stores go, does not ask."""
        if page in self._writable:
            return True
        if not self.area(page << PAGE_SHIFT) & VM_WRITE:
            return False
        self._writable.add(page)
        return True

    def refusal(self, address: int) -> Fault:
        """The #PF for a store that the program may not make."""
        code = PFEC_U | PFEC_W | self.protection(address)
        return PF(address & ~PAGE_MASK, "HOST.02", code)

    def begin_slice(self) -> bool:
        """True if the copies must be dropped, with the emulator's TLB.

        If not, refresh them by `reads` before anything is executed.
        """
        if self._writable:
            self._writable.clear()
        if len(self._pages) > _REFRESHED_MAX:
            return True
        return WAYS.memory_by_file and not self.refresh()

    @property
    def reads(self) -> PageReads | None:
        """The call that refreshes the copies; None if there are none, or if it is refused."""
        pages = self._pages
        if not pages or WAYS.memory_by_file:
            return None
        if self._reads is None or self._reads_pid != self.pid:
            self._reads_pid = self.pid
            self._reads = page_reads(self.pid, tuple(pages), self.shadow_address)
        return self._reads

    def refresh(self) -> bool:
        """Refresh the copies; False if they must be dropped, with the emulator's TLB."""
        return not self._pages or read_pages_into(self.pid, self._pages, self.shadow_address)

    def renew(self) -> bool | None:
        """Refresh the copies within a slice. Whether a page had changed; None if that failed."""
        self.drain()
        size = len(self._pages) * PAGE_SIZE
        if not 0 < size <= len(self._fresh):
            return None
        if not read_pages_into(self.pid, self._pages, self._fresh_address):
            return None
        fresh = self._fresh[:size]
        if fresh == self.shadow[:size]:
            return False
        self.shadow[:size] = fresh
        return True

    def drop_copies(self) -> None:
        """Forget the copies."""
        self._slots.clear()
        self._pages.clear()
        self._reads = None

    def _copy(self, page: int, slot: int) -> bool:
        target = self.shadow_address + slot * PAGE_SIZE
        return ptrace.read_into(self.pid, page << PAGE_SHIFT, target, PAGE_SIZE) == PAGE_SIZE

    # For a debugger, without regard to the rights of the areas

    def peek(self, address: int, buf: memoryview) -> int:
        """Read. Returns the number of bytes, 0 if none can be read."""
        try:
            return os.preadv(self._mem, [buf], address)
        except (OSError, OverflowError):
            return 0

    def poke(self, address: int, data: bytes) -> int:
        """Write. Returns the number of bytes, 0 if none can be written."""
        try:
            return os.pwrite(self._mem, data, address)
        except (OSError, OverflowError):
            return 0

    # Facts about the process

    def area(self, address: int) -> int:
        """VM_READ, VM_WRITE, VM_EXEC of the area at `address`; 0 also if there is none."""
        return self.rights(address) or 0

    def rights(self, address: int) -> int | None:
        """VM_READ, VM_WRITE, VM_EXEC of the area at `address`; None if there is none."""
        if self._query_works:
            try:
                return self._query(address)[_QUERY_FLAGS] & 7
            except FileNotFoundError:
                return None
            except OSError:
                self._query_works = False
        return self._rights_from_text(address)

    def _query(self, address: int, name: ctypes.Array[ctypes.c_char] | None = None) -> list[int]:
        """Ask the kernel, 6.11 and newer, of an area. OSError; FileNotFoundError: there is none."""
        fields = [_QUERY.size, 0, address, *(0,) * 12]
        if name is not None:
            fields[_QUERY_NAME_SIZE], fields[_QUERY_NAME] = len(name), ctypes.addressof(name)
        block = bytearray(_QUERY.pack(*fields))
        fcntl.ioctl(self._maps, PROCMAP_QUERY, block)
        return list(_QUERY.unpack(block))

    def _rights_from_text(self, address: int) -> int | None:
        """As `rights`, for kernels before 6.11."""
        fields = self._text(address)
        if not fields:
            return None
        return sum(bit for bit, c in ((1, "r"), (2, "w"), (4, "x")) if c in fields[1])

    def _text(self, address: int) -> list[str]:
        """The fields of the line of /proc/PID/maps for the area at `address`; none without one."""
        with open(f"/proc/{self.pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                fields = line.rstrip("\n").split(None, 5)
                start, end = (int(x, 16) for x in fields[0].split("-"))
                if start <= address < end:
                    return fields
        return []

    def page_table_entry(self, address: int) -> int:
        """What the page tables of the process hold for ordinary memory, with A and D set.

        A page that may be written counts as present: if it is not, the kernel faults it in, and the
        instruction comes again.
        """
        if not 0 <= address < USER_TOP or self.is_enclave(address):
            return 0
        rights = self.area(address)
        if not rights or not (rights & VM_WRITE or self._present(address)):
            return 0
        allowed = (PTE_W if rights & VM_WRITE else 0) | (0 if rights & VM_EXEC else PTE_NX)
        return PTE_P | PTE_U | PTE_A | PTE_D | allowed

    def protection(self, address: int) -> int:
        """PFEC_P if the page is present, so that only rights forbid the access; 0 for PROT_NONE."""
        return PFEC_P if self.area(address) and self._present(address) else 0

    def _present(self, address: int) -> bool:
        """Bit 63 of /proc/pid/pagemap."""
        try:
            with open(f"/proc/{self.pid}/pagemap", "rb", buffering=0) as pagemap:
                word = os.pread(pagemap.fileno(), 8, (address >> PAGE_SHIFT) * 8)
        except OSError:
            return self._readable(address)
        return bool(int.from_bytes(word, "little") >> 63)

    def noexec(self, address: int) -> bool:
        """Whether the page is of a file on a file system mounted noexec, so never executable."""
        path = self._path(address)
        return path.startswith("/") and _noexec(path)

    def _path(self, address: int) -> str:
        """What the kernel calls the area at `address`; empty if it has no name or there is none."""
        if self._query_works:
            name = ctypes.create_string_buffer(PATH_MAX)
            with suppress(OSError):
                size = self._query(address, name)[_QUERY_NAME_SIZE]
                return os.fsdecode(name.value) if size else ""
        fields = self._text(address)
        return fields[5] if len(fields) > 5 else ""

    def _readable(self, address: int) -> bool:
        return ptrace.read_memory(self.pid, address & ~PAGE_MASK, 1) is not None

    def read(self, address: int, size: int) -> bytes | None:
        """For the kernel: copy_from_user."""
        return ptrace.read_memory(self.pid, address, size)

    def write(self, address: int, data: bytes) -> bool:
        """For the kernel: copy_to_user."""
        return ptrace.write_memory(self.pid, address, data)


def _noexec(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except OSError:
        return False  # deleted, or a memfd
