"""What every layer says of one address at one moment: VMA, PTE, TLB, EPCM, and the kernel's record.

Reads only: nothing here changes the machine, and no point is yielded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
from softsgx.report.explanation import Layer
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    VA,
    VALID,
    child_type,
    rwx_text,
    state_text,
)
from softsgx.spec.tcs import TCS
from softsgx.spec.translation import ABORT, PTE_P, PTE_PFN_MASK, pte_text, rights_text
from softsgx.system.explain.history import Change, History

if TYPE_CHECKING:
    from softsgx.cpu import LogicalProcessor
    from softsgx.cpu.secs import Secs
    from softsgx.cpu.state import Package
    from softsgx.linux.mm import Mm, Vma

DUE: Final = PENDING | MODIFIED | PR
_ACCEPTS: Final = frozenset({"EACCEPT", "EACCEPTCOPY"})


@dataclass
class Facts:
    """`number` is the EPC page of the address (-1: not EPC), `word` its EPCM word.

    `entry` is the kernel's record of the enclave page. `secs` is the enclave that the thread was in
    when it was refused, None outside.
    """

    history: History
    lp: LogicalProcessor
    address: int
    mm: Mm | None
    vma: Vma | None
    pte: int
    tlb: Cached
    number: int
    word: int
    encl: SgxEncl | None
    entry: SgxEnclPage | None
    secs: Secs | None

    @property
    def page(self) -> int:
        """The linear address of the page."""
        return self.address & ~PAGE_MASK

    @property
    def cap(self) -> int:
        """The most rights that the kernel lets an area have here: vm_max_prot_bits."""
        if self.entry is not None:
            return self.entry.vm_max_prot_bits
        return self.history.kernel.version.eaug_cap

    # Layers

    def layers(self, missing: int = 0) -> list[Layer]:
        """VMA, PTE, TLB, EPCM. `missing` are the rights that the EPCM lacked."""
        found = [self.vma_layer(), self.pte_layer(), self.tlb_layer()]
        if self.pte & PTE_P or self.number >= 0:
            found.append(self.epcm_layer(missing))
        return found

    def vma_layer(self) -> Layer:
        """The area, who mapped it, and who changed its rights since."""
        space = self.mm.space.name if self.mm is not None else ""
        calls = list(self.history.mapped(space, self.address))
        last = f"; {calls[0][1]}, event {calls[0][0]}" if calls else ""
        if self.vma is None:
            return Layer("VMA", "-", f"no area of an enclave there{last}")
        what = "/dev/sgx_enclave" if self.vma.sgx else "host memory"
        mapped = next((entry for entry in calls if entry[1].name == "mmap"), None)
        by = f", mapped by thread {mapped[1].thread}, event {mapped[0]}" if mapped else ""
        if not calls or calls[0][1].name == "mmap":
            last = ""
        return Layer("VMA", rwx_text(self.vma.flags), f"{what}{by}{last}")

    def pte_layer(self) -> Layer:
        """The page-table entry, and who made or removed it."""
        space = self.mm.space.name if self.mm is not None else ""
        changes = self.history.ptes.get((space, self.address >> PAGE_SHIFT), [])
        since = f" since {changes[-1]}" if changes else ""
        if not self.pte & PTE_P:
            return Layer("PTE", "-", f"not present{since}")
        return Layer("PTE", pte_text(self.pte), f"present{since}")

    def tlb_layer(self) -> Layer:
        """The translation that the processor holds, or what flushed it."""
        entry, (seq, cause) = self.tlb
        if not entry:
            return Layer("TLB", "-", f"flushed by {cause}, event {seq}" if seq else "empty")
        kind = "abort page, " if entry & ABORT else ""
        since = f"loaded after {cause}, event {seq}" if seq else "loaded"
        return Layer("TLB", rights_text(entry), kind + since)

    def epcm_layer(self, missing: int = 0) -> Layer:
        """The EPCM entry, whose it is, and who changed it last or took the `missing` rights."""
        if self.number < 0:
            return Layer("EPCM", "-", "none: the page table leads to ordinary memory")
        since = self._since(missing)
        if not self.word & VALID:
            return Layer("EPCM", "-", f"EPC page {self.number} is free{since}")
        flags = state_text(self.word)
        due = "; EACCEPT still due" if self.word & DUE and self.word & PT_MASK != VA else ""
        return Layer("EPCM", rwx_text(self.word), f"{flags}{self._whose()}{since}{due}")

    def _since(self, missing: int) -> str:
        """The change that made the entry what it is, or that took the `missing` rights."""
        changes = self.history.epcm.get(self.number, [])
        if not changes:
            return ""
        last = changes[-1]
        chosen = next((x for x in reversed(changes) if _sets(x, missing)), last)
        accepted = f", accepted by {last.by}, event {last.seq}" if last.leaf in _ACCEPTS else ""
        return f" since {chosen}{accepted if chosen is not last else ''}"

    def _whose(self) -> str:
        """Enclave and address, if they are not the expected ones."""
        epcm, processor = self.lp.processor.epcm, self.lp.processor
        if not child_type(self.word):
            return ""
        secs = processor.secs.get(epcm.secs[self.number])
        away = epcm.address[self.number] != self.page
        other = secs is not None and not secs.BASEADDR <= self.address < secs.elrange_end
        if not (away or other) or secs is None:
            return ""
        return f" of enclave {secs.EID}, for {epcm.address[self.number]:#x}"


def _sets(change: Change, rights: int) -> bool:
    """Whether a change took these rights away or made the page without them."""
    if not rights:
        return True
    made = not change.before & VALID
    return not change.after & rights and (made or bool(change.before & rights))


class Cached(NamedTuple):
    """The TLB at an earlier moment: the word of the entry, number and cause of the last flush."""

    entry: int
    flushed: tuple[int, str]


class Moment(NamedTuple):
    """What an AEX loses: the TLB, and which enclave the thread is in."""

    tlb: Cached
    secs: Secs | None


def epc_number(processor: Package, pte: int) -> int:
    """The EPC page that a page-table entry leads to; -1 if it is none."""
    return processor.epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT)


def tcs_in(processor: Package, number: int) -> TCS:
    """The TCS in an EPC page."""
    return TCS.unpack(processor.memory.read(processor.epc.physical(number), TCS.SIZE))


def now(history: History, lp: LogicalProcessor, entry: int) -> Moment:
    """The present moment of a processor; `entry` is the TLB word in question."""
    return Moment(Cached(entry, history.flushed.get(lp.id, (0, ""))), lp.secs)


def look(
    history: History, lp: LogicalProcessor, address: int, moment: Moment | None = None
) -> Facts:
    """The facts of an address on a processor, with TLB and enclave as they were at `moment`."""
    processor = history.processor
    mm = history.kernel.loaded.get(lp.id)
    vma = mm.vma_lookup(address) if mm is not None else None
    pte = lp.space.lookup(address)
    if not pte and lp.space.host_pte is not None:
        pte = lp.space.host_pte(address)
    encl = vma.encl if vma is not None else None
    entry = encl.page(address) if encl is not None else None
    number = -1
    if pte & PTE_P:
        number = epc_number(processor, pte)
    elif entry is not None and entry.epc_page is not None:
        number = entry.epc_page.number
    word = processor.epcm.state[number] if number >= 0 else 0
    if moment is None:
        moment = now(history, lp, lp.tlb.entries.get(address >> PAGE_SHIFT, 0))
    tlb, secs = moment
    return Facts(history, lp, address, mm, vma, pte, tlb, number, word, encl, entry, secs)
