"""The accesses of a logical processor to memory: through the TLB at CPL 3, and at CPL 0."""

from __future__ import annotations

from typing import Final

from softsgx.cpu.access import check_shadow_access, fill, split_fetch, supervisor_physical
from softsgx.cpu.state import LpState
from softsgx.events.cpu import AccessFaulted
from softsgx.mem.pagetable import DIRECT_MAP, DIRECT_MAP_SIZE, PTE_P, PTE_PFN_MASK
from softsgx.mem.tlb import ABORT, FETCH, READ, WRITE
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

_BYTES: Final = (bytes, bytearray, memoryview)


class LpMemory(LpState):
    """The memory accesses of a logical processor.

    `load`, `store`, `fetch` are the accesses of programs and enclaves. `system_...` are those of
    the kernel, and of ENCLS to its operands.
    """

    __slots__ = ()

    # At CPL 3

    def translate(self, address: int, access: int) -> int:
        """The TLB entry for an access of `mem.tlb`; faults as hardware does."""
        entry = self.tlb.entries.get(address >> PAGE_SHIFT)
        if entry is not None and entry & access:
            return entry
        return self._miss(address, access)

    def _miss(self, address: int, access: int) -> int:
        if access not in (READ, WRITE, FETCH):
            check_shadow_access(self, access)
        self.refuse_in_flight("an access")
        if not self.log.on:
            return fill(self, address, access)
        entry = self.tlb.entries.get(address >> PAGE_SHIFT, 0)
        try:
            return fill(self, address, access)
        except Exception as fault:
            vector = getattr(fault, "vector", -1)
            code, rule = getattr(fault, "code", 0), getattr(fault, "rule", "")
            self.log.emit(AccessFaulted(self.id, address, access, vector, code, rule, entry))
            raise

    def load(self, address: int, size: int) -> bytes:
        """Read `size` bytes at a linear address."""
        return self._read(address, size, READ)

    def fetch(self, address: int, size: int = 1) -> bytes:
        """Fetch `size` instruction bytes at a linear address."""
        if self.processor.readings.fetch_split_gp_first and self.secs is not None:
            split_fetch(self, address, size)
        return self._read(address, size, FETCH)

    def store(self, address: int, data: bytes) -> None:
        """Write `data` at a linear address. Nothing is written if any of its pages faults."""
        size = len(data)
        if not isinstance(data, _BYTES):
            raise TypeError(f"data: bytes are needed, not {data!r}")
        offset = address & PAGE_MASK
        if offset + size <= PAGE_SIZE:
            entry = self.translate(address, WRITE)
            if not entry & ABORT:
                self.processor.memory.write(entry & ~PAGE_MASK | offset, data)
            return
        pieces, done = [], 0
        while done < size:
            at = address + done
            length = min(PAGE_SIZE - (at & PAGE_MASK), size - done)
            pieces.append((self.translate(at, WRITE), at & PAGE_MASK, data[done : done + length]))
            done += length
        for entry, offset, piece in pieces:
            if not entry & ABORT:
                self.processor.memory.write(entry & ~PAGE_MASK | offset, piece)

    def _read(self, address: int, size: int, access: int) -> bytes:
        offset = address & PAGE_MASK
        if offset + size <= PAGE_SIZE:
            entry = self.translate(address, access)
            if entry & ABORT:
                return b"\xff" * size
            if size < 0:
                raise ValueError(f"size {size}: negative")
            return self.processor.memory.read(entry & ~PAGE_MASK | offset, size)
        out, done = [], 0
        while done < size:
            length = min(PAGE_SIZE - (address + done & PAGE_MASK), size - done)
            out.append(self._read(address + done, length, access))
            done += length
        return b"".join(out)

    # At CPL 0

    def system_read(self, address: int, size: int) -> bytes:
        """Read at CPL 0; EPC reads as ones (abort page)."""
        offset = address - DIRECT_MAP
        if 0 <= offset <= self.processor.epc_base - size:
            return self.processor.memory.read(offset, size)  # RAM, all of it
        out = b""
        while size:
            physical = supervisor_physical(self, address, False)
            length = min(size, PAGE_SIZE - (physical & PAGE_MASK))
            if self.processor.epc.index(physical >> PAGE_SHIFT) >= 0:
                out += b"\xff" * length
            else:
                out += self.processor.memory.read(physical, length)
            address += length
            size -= length
        return out

    def system_read_int(self, address: int, size: int) -> int:
        """`size` bytes inside one page as a little-endian integer; otherwise as `system_read`."""
        processor = self.processor
        offset = address - DIRECT_MAP
        if 0 <= offset < processor.epc_base:
            return processor.memory.read_int(offset, size)
        return int.from_bytes(self.system_read(address, size), "little")

    def system_write(self, address: int, data: bytes) -> None:
        """Write at CPL 0; writes to EPC are dropped (abort page)."""
        offset = address - DIRECT_MAP
        if 0 <= offset <= self.processor.epc_base - len(data):
            self.processor.memory.write(offset, data)  # RAM, all of it
            return
        while data:
            physical = supervisor_physical(self, address, True)
            length = min(len(data), PAGE_SIZE - (physical & PAGE_MASK))
            if self.processor.epc.index(physical >> PAGE_SHIFT) < 0:
                self.processor.memory.write(physical, data[:length])
            address += length
            data = data[length:]

    def system_write_check(self, address: int, size: int) -> None:
        """Raise the fault that `system_write` of `size` bytes would raise; write nothing."""
        if not 0 <= address - DIRECT_MAP <= DIRECT_MAP_SIZE - size:
            supervisor_physical(self, address, True)
            supervisor_physical(self, address + size - 1, True)

    def system_epc_page(self, address: int, *, write: bool = False) -> int:
        """EPC page number of an ENCLS operand; -1 if it is not EPC. Page faults as usual.

        `write`: the leaf is documented to write the page, so paging must permit that.
        """
        offset = address - DIRECT_MAP
        epc = self.processor.epc
        number = (offset >> PAGE_SHIFT) - epc.first
        if 0 <= number < epc.contiguous:
            return number
        if not 0 <= offset < DIRECT_MAP_SIZE:
            offset = supervisor_physical(self, address, write)
        return epc.index(offset >> PAGE_SHIFT)

    def peek_epc_page(self, address: int, user: bool) -> int:
        """EPC page number of an operand, for the claims made before its leaf executes.

        At CPL 3 (`user`) -1 also if nothing is mapped; A is not set. Else as `system_epc_page`.
        """
        if user:
            pte = self.space.lookup(address)
            if not pte & PTE_P:
                return -1
            return self.processor.epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
        return self.system_epc_page(address)
