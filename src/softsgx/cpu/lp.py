"""A logical processor: registers, enclave mode, TLB, and the instructions of SGX.

State that belongs to enclave mode is grouped under CR_ENCLAVE_MODE below; everything else is the
ordinary context that software sees outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from softsgx.cpu.access import fill, split_fetch, supervisor_physical
from softsgx.cpu.aex import Delivered, aex
from softsgx.cpu.execute import encls, encls_steps, enclu, enclu_steps, enclv
from softsgx.cpu.msr import rdmsr, wrmsr
from softsgx.cpu.shadow_stack import (
    check_shadow_access,
    endbranch,
    indirect_branch,
    shadow_load,
    shadow_store,
)
from softsgx.cpu.xstate import XKey, XState
from softsgx.events.cpu import AccessFaulted, TlbFlushed
from softsgx.mem.pagetable import DIRECT_MAP, DIRECT_MAP_SIZE, PTE_P, PTE_PFN_MASK, AddressSpace
from softsgx.mem.tlb import ABORT, FETCH, READ, WRITE, Tlb
from softsgx.sim.slots import reader, writer
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.msr import (
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR4_CET,
    CR4_OSFXSR,
    CR4_OSXSAVE,
    FEATURE_LOCK,
    FEATURE_SGX_ENABLE,
    FEATURE_SGX_LC,
    INTEL_LEPUBKEYHASH,
    RFLAGS_FIXED,
    RFLAGS_IF,
)
from softsgx.spec.registers import RFLAGS
from softsgx.spec.ssa import GPRS

if TYPE_CHECKING:
    from softsgx.cpu.fault import Fault
    from softsgx.cpu.processor import Processor
    from softsgx.cpu.secs import Secs

_BYTES: Final = (bytes, bytearray, memoryview)
_RESET_REGS: Final = [0] * 16 + [RFLAGS_FIXED | RFLAGS_IF, 0]

# Scalar state that a snapshot keeps; `secs` and the containers are treated one by one.
_SCALARS: Final = (
    *("cr0", "cr4", "xcr0", "feature_control", "lepubkeyhash", "fsbase", "gsbase"),
    *("pending_event", "secs_page", "tcs_page", "tcs_address", "elrange_base", "elrange_end"),
    *("ssa_frame", "epoch", "entry", "outside", "dbgoptin"),
    *("u_cet", "ssp", "cet_save_area", "outside_cet"),
)

_read_scalars, _write_scalars = reader(_SCALARS), writer(_SCALARS)

# Registers, address space, TLB entries, extended state, EPC page of the active SECS, scalars.
LpImage = tuple[list[int], AddressSpace, dict[int, int], XKey, int, tuple[object, ...]]


class LogicalProcessor:
    """One logical processor of a `Processor`.

    `regs` holds RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15, RFLAGS, RIP (`spec.registers`).
    Instructions: `encls`, `enclu`, `enclv` execute one leaf at once; `encls_steps`, `enclu_steps`
    are the same for tasks that interleave. `load`, `store`, `fetch` are data accesses and fetches
    at CPL 3 through the TLB. `deliver` takes an event, with an AEX if the processor is inside an
    enclave.
    """

    __slots__ = (
        *("busy", "id", "in_flight", "log", "processor", "regs", "secs", "space", "tlb", "x"),
        *_SCALARS,
    )

    regs: list[int]

    def __init__(self, processor: Processor, number: int, space: AddressSpace) -> None:
        self.processor = processor
        self.log = processor.log
        self.id = number
        self.space = space
        self.tlb = Tlb()
        self.regs = _RESET_REGS[:]
        self.fsbase = 0
        self.gsbase = 0
        self.x = XState()
        self.cr0 = CR0_PE | CR0_PG | CR0_NE
        self.cr4 = CR4_OSFXSR | CR4_OSXSAVE | (CR4_CET if processor.part.cet else 0)
        self.u_cet = 0  # IA32_U_CET
        self.ssp = 0
        self.xcr0 = processor.part.xfrm
        self.feature_control = FEATURE_LOCK | FEATURE_SGX_ENABLE | FEATURE_SGX_LC
        self.lepubkeyhash = INTEL_LEPUBKEYHASH
        self.pending_event = False  # an unmasked event waits; EINIT gives up for it
        # CR_ENCLAVE_MODE: secs is None outside.
        self.secs: Secs | None = None  # CR_ACTIVE_SECS
        self.secs_page = -1
        self.tcs_page = -1
        self.tcs_address = 0
        self.elrange_base = 0
        self.elrange_end = 0
        # Physical page addresses of the SSA frame CSSA, cached at entry for AEX.
        self.ssa_frame: tuple[int, ...] = ()
        self.epoch = 0  # the tracking epoch in which this processor entered
        self.entry = 0  # its number among the entries of the enclave
        # FS base, GS base, XCR0, TF of the outside, saved at entry.
        self.outside: tuple[int, int, int, int] = (0, 0, 0, 0)
        # IA32_U_CET and SSP of the outside, saved at entry.
        self.outside_cet: tuple[int, int] = (0, 0)
        self.cet_save_area = 0  # CR_CET_SAVE_AREA_PA: physical address of CET frame CSSA, 0 if none
        self.dbgoptin = False  # CR_DBGOPTIN: TCS.FLAGS.DBGOPTIN at entry
        # Concurrency: bits of the resources found busy for the leaf that executes now.
        self.busy = 0
        self.in_flight = False

    @property
    def cpu(self) -> int:
        """The number of this logical processor, as interprocessor interrupts name it."""
        return self.id

    @property
    def enclave_mode(self) -> bool:
        """CR_ENCLAVE_MODE."""
        return self.secs is not None

    def interruptible(self) -> bool:
        """Whether an interrupt can be taken now: not in the middle of a leaf."""
        return not self.in_flight

    # Instructions
    encls = encls
    enclu = enclu
    enclv = enclv
    encls_steps = encls_steps
    enclu_steps = enclu_steps
    # Memory accesses at CPL 3

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

    # Shadow stack and indirect-branch tracker
    shadow_load = shadow_load
    shadow_store = shadow_store
    indirect_branch = indirect_branch
    endbranch = endbranch

    # Memory accesses at CPL 0: what the kernel does, and the operands of ENCLS

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
        """As `system_epc_page` for either CPL, without effects: -1 also if nothing is mapped."""
        if user:
            pte = self.space.lookup(address)
            if not pte & PTE_P:
                return -1
            return self.processor.epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
        return self.system_epc_page(address)

    # Model-specific registers
    rdmsr = rdmsr
    wrmsr = wrmsr

    # TLB maintenance and events

    def flush_tlb(self, cause: str) -> None:
        """Drop all translations. `cause` names what flushed, for the event log."""
        self.tlb.flush()
        if self.log.on:
            self.log.emit(TlbFlushed(self.id, cause))

    def refuse_in_flight(self, what: str) -> None:
        """RuntimeError if this processor is in the middle of a leaf: a mistake of the caller."""
        if self.in_flight:
            raise RuntimeError(f"{what}: logical processor {self.id} is in the middle of a leaf")

    def load_cr3(self, space: AddressSpace) -> None:
        """Switch to another address space. Only outside enclave mode."""
        if not isinstance(space, AddressSpace):
            raise TypeError(f"space: {space!r} is not an AddressSpace")
        if self.secs is not None:
            raise RuntimeError("MOV to CR3 is not possible inside an enclave: CPL is 3")
        self.refuse_in_flight("MOV to CR3")
        self.space = space
        self.flush_tlb("CR3")

    def deliver(self, vector: int, code: int = 0, address: int = 0) -> Delivered:
        """Take an exception or interrupt: AEX if inside, then what the OS handler finds."""
        for name, value, bits in (
            ("vector", vector, 8),
            ("code", code, 32),
            ("address", address, 64),
        ):
            if not isinstance(value, int) or not 0 <= value < 1 << bits:
                raise ValueError(f"{name}: {value!r} is not a {bits}-bit number")
        return self._deliver(vector, code, address)

    def _deliver(self, vector: int, code: int, address: int) -> Delivered:
        self.refuse_in_flight("an event")
        if self.secs is not None:
            return aex(self, vector, code, address)
        return Delivered(vector, code, address, from_enclave=False)

    def deliver_fault(self, fault: Fault) -> Delivered:
        """Deliver a `Fault` raised by an access or a leaf."""
        return self._deliver(fault.vector, fault.code, fault.address)

    def interrupt(self, vector: int = 0xFB) -> Delivered:
        """Take an external interrupt, whatever its vector: AEX if inside, else nothing changes."""
        self.refuse_in_flight("an interrupt")
        if self.secs is not None:
            return aex(self, vector, 0, 0, exception=False)
        return Delivered(vector, 0, 0, False)

    def shootdown(self, pages: Sequence[int] | None) -> None:
        """Take the interrupt of a TLB shootdown (`mem.shootdown`).

        Inside, the interrupt is an AEX, which drops all translations. Outside, the handler drops
        those of `pages`, a linear address in each, or all of them if it is None.
        """
        if self.secs is not None:
            self.interrupt()
        elif pages is None:
            self.flush_tlb("shootdown")
        else:
            for address in pages:
                self.tlb.invlpg(address)

    # Snapshots

    def snapshot(self) -> LpImage:
        """All state; the active SECS by its EPC page number."""
        return (
            self.regs[:],
            self.space,
            dict(self.tlb.entries),
            self.x.key(),
            -1 if self.secs is None else self.secs.page,
            _read_scalars(self),
        )

    def restore(self, image: LpImage) -> None:
        """Go back to a snapshot. The processor's SECS table must have been restored before."""
        regs, self.space, entries, xkey, secs_page, scalars = image
        self.regs[:] = regs
        self.tlb.entries.clear()
        self.tlb.entries.update(entries)
        self.x = XState.restored(xkey)
        self.secs = None if secs_page == -1 else self.processor.secs[secs_page]
        _write_scalars(self, scalars)
        self.busy = 0
        self.in_flight = False

    def key(self) -> tuple[object, ...]:
        """What the fingerprint of the machine sees of this processor."""
        entries = self.tlb.entries
        return (
            GPRS.pack(*self.regs),
            tuple(sorted(entries.items())) if entries else (),
            self.x.digest(),
            _read_scalars(self),
        )

    def __repr__(self) -> str:
        where = "outside" if self.secs is None else f"inside enclave {self.secs.EID}"
        return f"<LP {self.id} {where}, flags {self.regs[RFLAGS]:#x}>"
