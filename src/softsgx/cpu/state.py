"""State: a package, which its logical processors share, and one logical processor.

The classes below are what the operation listings read and write; what software does with a
processor is in `cpu.memory` (accesses), `cpu.lp` (instructions, events) and `cpu.processor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from marshal import dumps
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.cpu.epc import DEFAULT_EPC_BASE, Epc
from softsgx.cpu.epcm import Epcm, EpcmImage
from softsgx.cpu.fault import ENCLS_PFEC, Status
from softsgx.cpu.keys import Keys
from softsgx.cpu.secs import Secs, SecsImage
from softsgx.cpu.xstate import XKey, XState
from softsgx.events.cpu import TlbFlushed
from softsgx.mem.pagetable import AddressSpace
from softsgx.mem.physical import MemoryImage, PhysicalMemory
from softsgx.mem.tlb import Tlb
from softsgx.sim.slots import reader, writer
from softsgx.spec.epcm import MODIFIED, PENDING, PR, PT_MASK, SECS, VALID, child_type
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
from softsgx.spec.paging import SECINFO_RESERVED
from softsgx.spec.ssa import GPRS

if TYPE_CHECKING:
    from hashlib import _Hash

    from softsgx.cpu.part import Part
    from softsgx.cpu.readings import Readings
    from softsgx.sim.events import Log

# A leaf: the logical processor, RBX, RCX, RDX -> the Status of one that writes RAX, else None.
Body = Callable[..., Status | None]

# What leaves in flight hold: (EPC page << 2 | kind) -> -1 exclusively, n > 0 shared by n leaves.
Claims = dict[int, int]

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


_MARSHAL_VERSION = 2  # without references, so that equal values give equal bytes


class Snapshot(NamedTuple):
    """The whole state of a processor at rest. Opaque; for `restore`."""

    shape: tuple[tuple[tuple[int, int], ...], int]
    memory: MemoryImage
    epcm: EpcmImage
    secs: tuple[SecsImage, ...]
    hashes: dict[int, _Hash]
    lps: tuple[LpImage, ...]
    spaces: tuple[tuple[AddressSpace, dict[int, int]], ...]
    counters: tuple[int, int, dict[int, int]]


class Package:
    """What the logical processors of a package share: EPC, EPCM, enclaves, keys.

    `part` is what it announces, `readings` how the open points of the manual are read.
    """

    __slots__ = (
        *("claims", "encls_leaves", "enclu_leaves", "epc", "epc_base", "epcm", "hashes", "keys"),
        *("log", "lps", "memory", "next_eid", "next_version", "part", "readings"),
        *("recodes_faults", "secinfo_reserved", "secs", "space", "stamp_entries"),
    )

    # The leaves that the part announces: number -> (name, body).
    encls_leaves: dict[int, tuple[str, Body]]
    enclu_leaves: dict[int, tuple[str, Body]]
    lps: Sequence[LpState]

    def __init__(
        self,
        epc_pages: int,
        seed: int,
        part: Part,
        readings: Readings,
        sections: Sequence[tuple[int, int]] | None,
        log: Log,
    ) -> None:
        self.part = part
        self.readings = readings
        self.log = log
        # Reserved bits of a SECINFO for leaves that do not consume PENDING, MODIFIED and PR.
        unused = PENDING | MODIFIED | PR if readings.secinfo_state_bits_reserved else 0
        self.secinfo_reserved = SECINFO_RESERVED | unused
        self.recodes_faults = (
            readings.encls_pf_code != ENCLS_PFEC or not readings.enclu_pf_write_bit
        )
        self.memory = PhysicalMemory()
        self.epc = Epc(sections if sections is not None else ((DEFAULT_EPC_BASE, epc_pages),))
        self.epc_base = self.epc.sections[0][0]  # no EPC below this physical address
        self.memory.frames = min(self.memory.frames, self.epc.first)  # RAM ends there
        self.epcm = Epcm(self.epc.pages, log)
        self.keys = Keys(seed)
        # Live enclaves: EPC page of the SECS -> its contents.
        self.secs: dict[int, Secs] = {}
        # Running MRENCLAVE hashes of evicted, uninitialised enclaves: EID -> SHA-256 object.
        self.hashes: dict[int, _Hash] = {}
        self.next_eid = 1
        self.next_version = 1
        self.claims: Claims = {}
        # EPC page -> entries of its enclave before its stamp (`cpu.tracking`, late_entry_counts).
        self.stamp_entries: dict[int, int] = {}
        self.space = AddressSpace("boot", log)

    def secs_of(self, page: int) -> Secs | None:
        """The SECS a VALID page belongs to, or is; None for a VA page, and for a free page."""
        word = self.epcm.state[page]
        if not word & VALID:
            return None
        if word & PT_MASK == SECS:
            return self.secs[page]
        return self.secs[self.epcm.secs[page]] if child_type(word) else None

    def parent(self, page: int) -> Secs:
        """The SECS of a VALID child page."""
        return self.secs[self.epcm.secs[page]]

    # Snapshots, only with no leaf in flight, and fingerprints.

    def _spaces(self) -> dict[int, AddressSpace]:
        """By identity: the space all processors start in, and those they are in now."""
        spaces = {id(self.space): self.space}
        spaces.update([(id(lp.space), lp.space) for lp in self.lps])
        return spaces

    def snapshot(self) -> Snapshot:
        """The whole state; restoring it any number of times gives the same machine.

        It covers `space` and the address spaces that processors are in, and no others.
        """
        self._refuse_in_flight("snapshot")
        return Snapshot(
            (self.epc.sections, len(self.lps)),
            self.memory.snapshot(),
            self.epcm.snapshot(),
            tuple([secs.snapshot() for secs in self.secs.values()]),
            {eid: h.copy() for eid, h in self.hashes.items()},
            tuple([lp.snapshot() for lp in self.lps]),
            tuple([(space, space.snapshot()) for space in self._spaces().values()]),
            (self.next_eid, self.next_version, dict(self.stamp_entries)),
        )

    def _refuse_in_flight(self, what: str) -> None:
        for lp in self.lps:
            lp.refuse_in_flight(what)

    def restore(self, image: Snapshot) -> None:
        """Go back to a snapshot of this processor; leaves in flight are forgotten."""
        if image.shape != (self.epc.sections, len(self.lps)):
            raise ValueError("restore: the snapshot is of a processor with another EPC or more LPs")
        self.claims = {}  # a new dict: so a leaf in flight notices (`execute`)
        self.memory.restore(image.memory)
        self.epcm.restore(image.epcm)
        self.secs = {s.page: s for s in map(Secs.restored, image.secs)}
        self.hashes = {eid: h.copy() for eid, h in image.hashes.items()}
        for space, entries in image.spaces:
            space.restore(entries)
        for lp, lp_image in zip(self.lps, image.lps, strict=True):
            lp.restore(lp_image)
        self.next_eid, self.next_version, entries = image.counters
        self.stamp_entries = dict(entries)

    def fingerprint(self) -> int:
        """A 64-bit hash of the whole architectural state; equal states give equal hashes.

        It covers the address spaces of a snapshot, and which processor is in which.
        """
        state = (*self._state(), self.space.digest(), self._foreign_spaces())
        raw = blake2b(dumps(state, _MARSHAL_VERSION), digest_size=8).digest()
        return int.from_bytes(raw, "little")

    def _state(self) -> tuple[Any, ...]:
        """All state except address spaces."""
        # A table that is empty most of the time is represented by 0 while it is empty.
        return (
            self.epcm.digest_bytes(),
            self.memory.digest(),
            [secs.key() for _page, secs in sorted(self.secs.items())],
            [(eid, running.digest()) for eid, running in sorted(self.hashes.items())]
            if self.hashes
            else 0,
            [lp.key() for lp in self.lps],
            self.next_eid,
            self.next_version,
            sorted(self.stamp_entries.items()) if self.stamp_entries else 0,
            ([lp.in_flight for lp in self.lps], sorted(self.claims.items())) if self.claims else 0,
        )

    def state_key(self) -> tuple[object, Sequence[object], Sequence[object]]:
        """For `explore`: the state, the address spaces in use, and the objects that it is kept in.

        What does not change, the part and the readings, is left out, as is what caches.
        """
        lps = self.lps
        kept = (self.memory, self.epc, self.epcm, self.keys, self.claims, self.stamp_entries)
        tlbs = [each for lp in lps for each in (lp, lp.regs, lp.tlb, lp.tlb.entries, lp.x)]
        live = [secs for _page, secs in sorted(self.secs.items())]
        spaces = (self.space, *[lp.space for lp in lps])
        return self._state(), spaces, (*kept, self.secs, self.hashes, *live, lps, *tlbs)

    def _foreign_spaces(self) -> tuple[tuple[bytes, ...], tuple[int, ...]] | int:
        """For the fingerprint: address spaces and each processor's; 0 if all are in `space`."""
        first = self.space
        for lp in self.lps:
            if lp.space is not first:
                break
        else:
            return 0
        spaces = self._spaces()
        numbers = {identity: number for number, identity in enumerate(spaces)}
        digests = tuple(space.digest() for space in spaces.values())
        return digests, tuple(numbers[id(lp.space)] for lp in self.lps)


class LastEntry(NamedTuple):
    """An EENTER that succeeded, for `cpu.reentry`.

    `read` is what its tests read of operands and registers; `entries` the page table and EPCM
    entries of TCS and frame: linear page, PTE, EPC page, and the three columns of the EPCM. `tcs`
    are the fields of the TCS as they are after an EEXIT from it.
    """

    read: tuple[object, ...]
    entries: tuple[tuple[int, int, int, int, int, int], ...]
    tcs: bytes
    secs: Secs
    page: int
    frame: tuple[int, ...]
    cssa: int
    entry: int
    fsbase: int
    gsbase: int


class LpState:
    """Registers, enclave mode and TLB of one logical processor.

    `regs` holds RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15, RFLAGS, RIP (`spec.registers`).
    """

    __slots__ = (
        *("busy", "id", "in_flight", "last_entries", "log", "processor", "regs", "secs", "space"),
        *("tlb", "x"),
        *_SCALARS,
    )

    regs: list[int]

    def __init__(self, processor: Package, number: int, space: AddressSpace) -> None:
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
        self.last_entries: tuple[LastEntry, ...] = ()  # not part of the state: see `cpu.reentry`
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

    def refuse_in_flight(self, what: str) -> None:
        """RuntimeError if this processor is in the middle of a leaf: a mistake of the caller."""
        if self.in_flight:
            raise RuntimeError(f"{what}: logical processor {self.id} is in the middle of a leaf")

    def flush_tlb(self, cause: str) -> None:
        """Drop all translations. `cause` names what flushed, for the event log."""
        self.tlb.flush()
        if self.log.on:
            self.log.emit(TlbFlushed(self.id, cause))

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
        self.last_entries = ()
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
