"""The processor package: EPC, EPCM, enclaves, keys, logical processors, and snapshots of it all."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from marshal import dumps
from typing import NamedTuple

from softsgx.cpu.claims import Claims
from softsgx.cpu.dispatch import leaves_of
from softsgx.cpu.epc import DEFAULT_EPC_BASE, Epc
from softsgx.cpu.epcm import Epcm, EpcmImage
from softsgx.cpu.keys import Keys
from softsgx.cpu.lp import LogicalProcessor, LpImage
from softsgx.cpu.part import DEFAULT_PART, Part
from softsgx.cpu.readings import DEFAULT_READINGS, Readings
from softsgx.cpu.secs import Secs, SecsImage
from softsgx.mem.pagetable import AddressSpace
from softsgx.mem.physical import MemoryImage, PhysicalMemory
from softsgx.sim.events import Log
from softsgx.spec import cpuid
from softsgx.spec.epcm import PT_MASK, SECS, VALID, child_type

_MARSHAL_VERSION = 2  # without references, so that equal values give equal bytes


class Snapshot(NamedTuple):
    """The whole state of a processor at rest. Opaque; for `Processor.restore`."""

    memory: MemoryImage
    epcm: EpcmImage
    secs: tuple[SecsImage, ...]
    hashes: dict[int, object]
    lps: tuple[LpImage, ...]
    spaces: tuple[tuple[AddressSpace, dict[int, int]], ...]
    counters: tuple[int, int, dict[int, int]]


class Processor:
    """A package with `lps` logical processors and `epc_pages` pages of EPC.

    `sections` gives EPC sections as (physical base, pages) pairs instead of one default section.
    `seed` determines every key of the machine. `part` is what it announces, `readings` how the
    open points of the manual are read. `space` is the address space all processors start in.
    """

    __slots__ = (
        *("claims", "encls_leaves", "enclu_leaves", "epc", "epcm", "keys", "log", "lps", "memory"),
        *("hashes", "next_eid", "next_version", "part", "readings", "secs", "space"),
        *("stamp_entries",),
    )

    def __init__(
        self,
        epc_pages: int = 1024,
        *,
        lps: int = 2,
        seed: int = 0,
        part: Part = DEFAULT_PART,
        readings: Readings = DEFAULT_READINGS,
        sections: Sequence[tuple[int, int]] | None = None,
        log: Log | None = None,
    ) -> None:
        if lps < 1:
            raise ValueError(f"Processor: lps={lps}, at least 1 is needed")
        self.part = part
        self.readings = readings
        self.log = log if log is not None else Log()
        self.encls_leaves = leaves_of(part, "ENCLS")
        self.enclu_leaves = leaves_of(part, "ENCLU")
        self.memory = PhysicalMemory()
        self.epc = Epc(sections if sections is not None else ((DEFAULT_EPC_BASE, epc_pages),))
        self.epcm = Epcm(self.epc.pages, self.log)
        self.keys = Keys(seed)
        # Live enclaves: EPC page of the SECS -> its contents.
        self.secs: dict[int, Secs] = {}
        # Running MRENCLAVE hashes of evicted, uninitialised enclaves: EID -> SHA-256 object.
        self.hashes: dict[int, object] = {}
        self.next_eid = 1
        self.next_version = 1
        self.claims: Claims = {}
        self.stamp_entries: dict[int, int] = {}
        self.space = AddressSpace("boot", self.log)
        self.lps = [LogicalProcessor(self, number, self.space) for number in range(lps)]

    def cpuid(self, leaf: int, subleaf: int = 0) -> cpuid.Registers:
        """CPUID leaf 7 or 12H."""
        return self.part.cpuid(leaf, subleaf, self.epc.cpuid_sections())

    def secs_of(self, page: int) -> Secs | None:
        """The enclave a VALID page belongs to: its parent's, or its own if it is a SECS page."""
        word = self.epcm.state[page]
        if not word & VALID:
            return None
        if word & PT_MASK == SECS:
            return self.secs[page]
        return self.secs[self.epcm.secs[page]] if child_type(word) else None

    def parent(self, page: int) -> Secs:
        """The SECS of a VALID child page."""
        return self.secs[self.epcm.secs[page]]

    # Snapshots. Only with no leaf in flight; address spaces are those the processors use.

    def snapshot(self) -> Snapshot:
        """The whole state; restoring it any number of times gives the same machine."""
        assert not self.claims, "a leaf is in flight"
        spaces = {id(lp.space): lp.space for lp in self.lps}
        return Snapshot(
            self.memory.snapshot(),
            self.epcm.snapshot(),
            tuple([secs.snapshot() for secs in self.secs.values()]),
            {eid: h.copy() for eid, h in self.hashes.items()},  # type: ignore[attr-defined]
            tuple([lp.snapshot() for lp in self.lps]),
            tuple([(space, space.snapshot()) for space in spaces.values()]),
            (self.next_eid, self.next_version, dict(self.stamp_entries)),
        )

    def restore(self, image: Snapshot) -> None:
        """Go back to a snapshot of this processor."""
        self.claims.clear()
        self.memory.restore(image.memory)
        self.epcm.restore(image.epcm)
        self.secs = {s.page: s for s in map(Secs.restored, image.secs)}
        self.hashes = {eid: h.copy() for eid, h in image.hashes.items()}  # type: ignore[attr-defined]
        for space, entries in image.spaces:
            space.restore(entries)
        for lp, lp_image in zip(self.lps, image.lps, strict=True):
            lp.restore(lp_image)
        self.next_eid, self.next_version, entries = image.counters
        self.stamp_entries = dict(entries)

    def fingerprint(self) -> int:
        """A 64-bit hash of the whole architectural state; equal states give equal hashes."""
        memory = self.memory
        state = (
            self.epcm.digest_bytes(),
            [(pfn, memory.page_digest(pfn)) for pfn in sorted(memory.pages)],
            [secs.key() for secs in self.secs.values()],
            [lp.key() for lp in self.lps],
            sorted(self.lps[0].space.ptes.items()),
            (self.next_eid, self.next_version),
        )
        raw = blake2b(dumps(state, _MARSHAL_VERSION), digest_size=8).digest()
        return int.from_bytes(raw, "little")
