"""Memory of the host program, as enclave code reaches it from the emulator.

Pages that the enclave only reads are copied when first touched and copied again at each slice;
pages that it writes are reached access by access, so a store is seen at once and a lock word is
read fresh. Both go to the real process.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from typing import Final

from softsgx.cpu.fault import PF
from softsgx.runner import ptrace
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.faults import PFEC_P, PFEC_U, PFEC_W

SHADOWS: Final = 64
_REFRESHED_MAX: Final = 8
HOST_PHYSICAL: Final = 1 << 48
SHADOW_PHYSICAL: Final = 1 << 44

_PROCMAP_QUERY: Final = 0xC0686611
_QUERY: Final = struct.Struct("<8QQIIIIQQ")
VM_READ, VM_WRITE, VM_EXEC = 1, 2, 4


class HostMemory:
    """The address space of process `pid` (any live thread of it).

    `is_enclave(address)` says whether an address is a mapping of /dev/sgx_enclave.
    """

    def __init__(self, pid: int, is_enclave: Callable[[int], bool]) -> None:
        self.pid = pid
        self.is_enclave = is_enclave
        self.shadow_size = SHADOWS * PAGE_SIZE
        self.shadow = mmap.mmap(-1, self.shadow_size)
        self.shadow_address = ctypes.addressof(ctypes.c_char.from_buffer(self.shadow))
        self._shadows: dict[int, int] = {}  # page number -> slot
        self._free = list(range(SHADOWS))
        self._mem = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._maps = os.open(f"/proc/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
        self._query_works = True

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._mem)
        os.close(self._maps)

    # For the emulator

    def translate(self, address: int, write: bool) -> tuple[int, bool]:
        """(physical address for the emulator, writable) of a host page; PF if it has no access."""
        page = address >> PAGE_SHIFT
        if write:
            if not self.area(address) & VM_WRITE:
                present = PFEC_P if self._readable(address) else 0
                raise PF(address, "HOST.02", PFEC_U | PFEC_W | present)
            slot = self._shadows.pop(page, None)
            if slot is not None:
                self._free.append(slot)
            return HOST_PHYSICAL + address, True
        slot = self._shadows.get(page)
        if slot is not None:
            return SHADOW_PHYSICAL + slot * PAGE_SIZE, False
        if not self._free:
            if not self._readable(address):
                raise PF(address, "HOST.01", PFEC_U)
            return HOST_PHYSICAL + address, False
        slot = self._free[-1]
        target = self.shadow_address + slot * PAGE_SIZE
        if ptrace.read_into(self.pid, address, target, PAGE_SIZE) != PAGE_SIZE:
            raise PF(address, "HOST.01", PFEC_U)
        self._shadows[page] = self._free.pop()
        return SHADOW_PHYSICAL + slot * PAGE_SIZE, False

    def begin_slice(self) -> bool:
        """Make the copies fresh; True if they must be dropped, with the emulator's TLB."""
        if not self._shadows:
            return False
        if len(self._shadows) > _REFRESHED_MAX:
            return True
        for page, slot in self._shadows.items():
            target = self.shadow_address + slot * PAGE_SIZE
            if ptrace.read_into(self.pid, page << PAGE_SHIFT, target, PAGE_SIZE) != PAGE_SIZE:
                return True
        return False

    def end_slice(self) -> None:
        """Nothing is held back: stores went through at once."""

    def drop_shadows(self) -> None:
        """Forget the copies."""
        self._shadows.clear()
        self._free = list(range(SHADOWS))

    def mmio_read(self, address: int, size: int) -> int:
        """One access of the emulator."""
        if self.is_enclave(address):
            return (1 << 8 * size) - 1
        try:
            return int.from_bytes(os.pread(self._mem, size, address), "little")
        except OSError:
            return 0

    def mmio_write(self, address: int, size: int, value: int) -> None:
        """One access of the emulator."""
        if self.is_enclave(address):
            return
        try:
            os.pwrite(self._mem, value.to_bytes(size, "little"), address)
        except OSError:
            return

    # Facts about the process

    def area(self, address: int) -> int:
        """VM_READ, VM_WRITE, VM_EXEC of the area at `address`; 0 if there is none."""
        if self._query_works:
            block = bytearray(_QUERY.pack(_QUERY.size, 0, address, *(0,) * 12))
            try:
                fcntl.ioctl(self._maps, _PROCMAP_QUERY, block)
            except FileNotFoundError:
                return 0
            except OSError:
                self._query_works = False
            else:
                return int(_QUERY.unpack(block)[5]) & 7
        return self._area_from_text(address)

    def _area_from_text(self, address: int) -> int:
        """As `area`, for kernels before 6.11."""
        with open(f"/proc/{self.pid}/maps", encoding="ascii", errors="replace") as maps:
            for line in maps:
                start, end = (int(x, 16) for x in line.split(" ", 1)[0].split("-"))
                if start <= address < end:
                    rights = line.split(" ", 2)[1]
                    return sum(bit for bit, c in ((1, "r"), (2, "w"), (4, "x")) if c in rights)
        return 0

    def noexec(self, address: int) -> bool:
        """Whether the page is of a file on a file system mounted noexec: never executable."""
        with open(f"/proc/{self.pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                fields = line.rstrip("\n").split(None, 5)
                start, end = (int(x, 16) for x in fields[0].split("-"))
                if start <= address < end:
                    return len(fields) > 5 and fields[5].startswith("/") and _noexec(fields[5])
        return False

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
