"""A step of the processor between two copies of its state, for the checks of transitions.py.

`Image` is a copy of everything a check looks at; `Step` is one instruction, access or event.
"""

from typing import NamedTuple

from softsgx.cpu import Processor
from softsgx.mem.pagetable import PTE_A, PTE_D
from softsgx.mem.tlb import ABORT
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT
from softsgx.spec.epcm import VALID

IDENTITY = (
    *("EID", "BASEADDR", "SIZE", "SSAFRAMESIZE", "MISCSELECT", "ATTRIBUTES", "XFRM", "CONFIGID"),
    *("CONFIGSVN", "MRENCLAVE", "MRSIGNER", "ISVPRODID", "ISVSVN", "ISVEXTPRODID", "ISVFAMILYID"),
)


class Where(NamedTuple):
    """A logical processor: enclave and TCS by EPC page (-1 outside), pages of its SSA frame."""

    secs: int
    tcs: int
    frame: tuple[int, ...]
    # (linear page, EPC page) of the translations that lead into an enclave, then the whole TLB.
    mapped: tuple[tuple[int, int], ...]
    tlb: dict[int, int]
    key: tuple[object, ...]


class Image(NamedTuple):
    """A copy of the processor's state."""

    words: tuple[int, ...]
    owners: tuple[int, ...]
    addresses: tuple[int, ...]
    stamps: tuple[int, ...]
    contents: tuple[bytes, ...]
    enclaves: dict[int, tuple[object, ...]]  # EPC page of the SECS -> identity
    epochs: dict[int, tuple[int, int]]  # EPOCH, and how many processors tracking waits for
    lps: tuple[Where, ...]
    ptes: dict[int, int]  # without A and D
    rest: tuple[object, ...]


class Step(NamedTuple):
    """One instruction, access ("load", "store", "fetch") or "AEX", on logical processor `lp`.

    `operand` is RCX of a leaf, the linear address of an access.
    """

    name: str
    lp: int
    operand: int
    faulted: bool
    before: Image
    after: Image

    @property
    def inside(self) -> int:
        """SECS page of the enclave in which it was executed; -1 outside."""
        return self.before.lps[self.lp].secs

    def kept(self) -> list[tuple[int, int, int]]:
        """(EPC page, word before, word after) of pages that stayed VALID."""
        pairs = enumerate(zip(self.before.words, self.after.words, strict=True))
        return [(page, old, new) for page, (old, new) in pairs if old & new & VALID]

    def changed(self) -> list[tuple[int, int, int]]:
        """The pages that stayed VALID and whose entry changed."""
        return [(page, old, new) for page, old, new in self.kept() if old != new]


def capture(processor: Processor) -> Image:
    """Copy the state."""
    epcm, memory, epc = processor.epcm, processor.memory, processor.epc
    ptes = {page: pte & ~(PTE_A | PTE_D) for page, pte in processor.space.ptes.items()}
    lps = []
    for lp in processor.lps:
        mapped = [
            (page, epc.index((entry & ~PAGE_MASK) >> PAGE_SHIFT))
            for page, entry in lp.tlb.entries.items()
            if lp.secs is not None and not entry & ABORT
        ]
        frame = tuple(epc.index(physical >> PAGE_SHIFT) for physical in lp.ssa_frame)
        regs, _, *others = lp.key()
        in_epc = tuple((page, epc_page) for page, epc_page in mapped if epc_page >= 0)
        key = (regs, *others)
        lps.append(Where(lp.secs_page, lp.tcs_page, frame, in_epc, dict(lp.tlb.entries), key))
    return Image(
        tuple(epcm.state),
        tuple(epcm.secs),
        tuple(epcm.address),
        tuple(epcm.stamp),
        tuple(memory.read_page(epc.pfn(page)) for page in range(epc.pages)),
        {
            page: tuple(getattr(secs, name) for name in IDENTITY)
            for page, secs in processor.secs.items()
        },
        {page: (secs.EPOCH, secs.previous) for page, secs in processor.secs.items()},
        tuple(lps),
        ptes,
        (
            memory.digest(),
            [secs.key() for secs in processor.secs.values()],
            *(processor.next_eid, processor.next_version, sorted(processor.hashes)),
        ),
    )
