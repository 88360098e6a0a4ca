"""The processor package: EPC, EPCM, enclaves, keys, logical processors, and snapshots of it all."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from marshal import dumps
from typing import TYPE_CHECKING, NamedTuple

from softsgx.cpu.claims import Claims
from softsgx.cpu.dispatch import leaves_of
from softsgx.cpu.epc import DEFAULT_EPC_BASE, Epc
from softsgx.cpu.epcm import Epcm, EpcmImage
from softsgx.cpu.fault import ENCLS_PFEC
from softsgx.cpu.keys import Keys
from softsgx.cpu.lp import LogicalProcessor, LpImage
from softsgx.cpu.part import DEFAULT_PART, Part
from softsgx.cpu.readings import DEFAULT_READINGS, Readings
from softsgx.cpu.secs import Secs, SecsImage
from softsgx.mem.pagetable import AddressSpace
from softsgx.mem.physical import MemoryImage, PhysicalMemory
from softsgx.sim.events import Log
from softsgx.spec import cpuid
from softsgx.spec.epcm import MODIFIED, PENDING, PR, PT_MASK, SECS, VALID, child_type
from softsgx.spec.paging import SECINFO_RESERVED

if TYPE_CHECKING:
    from hashlib import _Hash

_MARSHAL_VERSION = 2  # without references, so that equal values give equal bytes


class Snapshot(NamedTuple):
    """The whole state of a processor at rest. Opaque; for `Processor.restore`."""

    shape: tuple[tuple[tuple[int, int], ...], int]
    memory: MemoryImage
    epcm: EpcmImage
    secs: tuple[SecsImage, ...]
    hashes: dict[int, _Hash]
    lps: tuple[LpImage, ...]
    spaces: tuple[tuple[AddressSpace, dict[int, int]], ...]
    counters: tuple[int, int, dict[int, int]]


def _check_arguments(
    epc_pages: object, lps: object, seed: object, part: object, readings: object
) -> None:
    for name, value, least in (("epc_pages", epc_pages, 1), ("lps", lps, 1), ("seed", seed, None)):
        if not isinstance(value, int):
            raise TypeError(f"Processor: {name}={value!r}, an integer is needed")
        if least is not None and value < least:
            raise ValueError(f"Processor: {name}={value}, at least {least} is needed")
    for name, value, kind in (("part", part, Part), ("readings", readings, Readings)):
        if not isinstance(value, kind):
            raise TypeError(f"Processor: {name}={value!r}, a {kind.__name__} is needed")


class Processor:
    """A package with `lps` logical processors and `epc_pages` pages of EPC.

    `sections` gives EPC sections as (physical base, pages) pairs instead of one default section.
    `seed` determines every key of the machine. `part` is what it announces, `readings` how the
    open points of the manual are read. `space` is the address space all processors start in.
    """

    __slots__ = (
        *(
            "claims",
            "encls_leaves",
            "enclu_leaves",
            "epc",
            "epc_base",
            "epcm",
            "keys",
            "log",
            "lps",
            "memory",
        ),
        *("hashes", "next_eid", "next_version", "part", "readings", "secs", "space"),
        *("recodes_faults", "secinfo_reserved", "stamp_entries"),
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
        _check_arguments(epc_pages, lps, seed, part, readings)
        self.part = part
        self.readings = readings
        self.log = log if log is not None else Log()
        # Reserved bits of a SECINFO for leaves that do not consume PENDING, MODIFIED and PR.
        unused = PENDING | MODIFIED | PR if readings.secinfo_state_bits_reserved else 0
        self.secinfo_reserved = SECINFO_RESERVED | unused
        self.recodes_faults = (
            readings.encls_pf_code != ENCLS_PFEC or not readings.enclu_pf_write_bit
        )
        self.encls_leaves = leaves_of(part, "ENCLS")
        self.enclu_leaves = leaves_of(part, "ENCLU")
        self.memory = PhysicalMemory()
        self.epc = Epc(sections if sections is not None else ((DEFAULT_EPC_BASE, epc_pages),))
        self.epc_base = self.epc.sections[0][0]  # no EPC below this physical address
        self.memory.frames = min(self.memory.frames, self.epc.first)  # RAM ends there
        self.epcm = Epcm(self.epc.pages, self.log)
        self.keys = Keys(seed)
        # Live enclaves: EPC page of the SECS -> its contents.
        self.secs: dict[int, Secs] = {}
        # Running MRENCLAVE hashes of evicted, uninitialised enclaves: EID -> SHA-256 object.
        self.hashes: dict[int, _Hash] = {}
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

    # Snapshots. Only with no leaf in flight.

    def _spaces(self) -> dict[int, AddressSpace]:
        """By identity: the space all processors start in, and those they are in now."""
        spaces = {id(self.space): self.space}
        spaces.update([(id(lp.space), lp.space) for lp in self.lps])
        return spaces

    def snapshot(self) -> Snapshot:
        """The whole state; restoring it any number of times gives the same machine.

        Of address spaces those that a processor is in, and `space`; others are their owner's.
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
        self.claims = {}  # another one, so that a leaf in flight can tell (`execute`)
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

        Address spaces count as they do for a snapshot, and so does who is in which.
        """
        # What is mostly empty costs a 0 then.
        state = (
            self.epcm.digest_bytes(),
            self.memory.digest(),
            [secs.key() for _page, secs in sorted(self.secs.items())],
            [(eid, running.digest()) for eid, running in sorted(self.hashes.items())]
            if self.hashes
            else 0,
            [lp.key() for lp in self.lps],
            self.space.digest(),
            self._foreign_spaces(),
            self.next_eid,
            self.next_version,
            sorted(self.stamp_entries.items()) if self.stamp_entries else 0,
            ([lp.in_flight for lp in self.lps], sorted(self.claims.items())) if self.claims else 0,
        )
        raw = blake2b(dumps(state, _MARSHAL_VERSION), digest_size=8).digest()
        return int.from_bytes(raw, "little")

    def _foreign_spaces(self) -> tuple[tuple[bytes, ...], tuple[int, ...]] | int:
        """For the fingerprint: address spaces besides `space`, and who is in which; 0 if none."""
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
