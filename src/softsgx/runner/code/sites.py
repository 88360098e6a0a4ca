"""The CPUID and ENCLU instructions of a program file, which the supervisor replaces.

A byte pattern is not an instruction: it may lie in a constant, or across two instructions. A
pattern counts only if disassembly from a known function start arrives at it; a pattern that is not
proven is reported and never patched. Proofs, cheapest first: the function range of .eh_frame, a
function symbol, control flow from the ELF entry point, control flow from a call in proven code.

Not found: code that is made at run time, and code that is only reached through a pointer and has
neither call frame information nor a symbol. XGETBV stays native: what a runtime computes from it
is masked by CPUID leaf 12H (`cpuid`).
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Final, Literal, NamedTuple

from softsgx.runner.code.callers import near_calls
from softsgx.runner.code.disassembler import Code, Instruction, reach
from softsgx.runner.code.eh_frame import Frames
from softsgx.runner.code.elf_code import BadElf, ElfCode, Segment
from softsgx.spec.leaves import ENCLU_OPCODE

Kind = Literal["cpuid", "enclu"]

PATTERNS: Final[dict[bytes, Kind]] = {b"\x0f\xa2": "cpuid", ENCLU_OPCODE: "enclu"}
_HIT: Final = re.compile(b"|".join(map(re.escape, PATTERNS)))
# Feature selection in these stays native, and ld.so runs before a library can be patched.
_NATIVE: Final = re.compile(
    r"(ld-linux.*|ld64|ld-musl.*|libc\.musl.*|(ld|lib(c|m|mvec|pthread|dl|rt))(-[\d.]+)?)"
    r"\.so(\.[\d.]+)?"
)
# Calls into gaps are searched only in segments of at most this size in bytes (20 ms), and only the
# nearest targets and a few of their callers are examined.
_CALLED_SIZE_MAX: Final = 16 << 20
_TARGETS_MAX: Final = 16
_CALLS_MAX: Final = 4
ORPHAN: Final = "in no known function"


class Site(NamedTuple):
    """An instruction to patch: its offset in the file, unrelocated address, and kind."""

    offset: int
    vaddr: int
    kind: Kind


class Unproven(NamedTuple):
    """A byte pattern that is left alone, and why."""

    offset: int
    vaddr: int
    kind: Kind
    why: str


class Sites(NamedTuple):
    """The instructions of one file. `reason`: why it was not searched; empty if it was."""

    patch: tuple[Site, ...] = ()
    unproven: tuple[Unproven, ...] = ()
    reason: str = ""


def patchable(path: str) -> bool:
    """Whether a mapped file is the program or one of its libraries, not the C library's own."""
    name = os.path.basename(path.removesuffix(" (deleted)"))
    return path.startswith("/") and not _NATIVE.fullmatch(name)


def scan(data: bytes) -> Sites:
    """Search the content of a file. Never raises, whatever the content."""
    try:
        elf = ElfCode(data)
        hits = list(_hits(elf))
        if not hits:
            return Sites()
        return _prove(elf, hits)
    except BadElf as error:
        return Sites(reason=str(error))


def _hits(elf: ElfCode) -> Iterator[tuple[Segment, Site]]:
    seen = set()
    for segment in elf.code:
        for hit in _HIT.finditer(elf.data, segment.offset, segment.offset + segment.size):
            offset = hit.start()
            if offset not in seen:  # two headers may name the same bytes
                seen.add(offset)
                yield segment, Site(offset, segment.to_vaddr(offset), PATTERNS[hit.group()])


def _prove(elf: ElfCode, hits: list[tuple[Segment, Site]]) -> Sites:
    prover = _Prover(elf)
    doubts = {
        site: prover.doubt(segment, site.vaddr, partial(_is_site, site)) for segment, site in hits
    }
    for segment in elf.code:
        orphans = [site for where, site in hits if where == segment and doubts[site] == ORPHAN]
        for site in prover.led_to(segment, orphans):
            doubts[site] = ""
    return Sites(
        tuple(site for site, why in doubts.items() if not why),
        tuple(Unproven(*site, why) for site, why in doubts.items() if why),
    )


def _is_site(site: Site, found: Instruction) -> bool:
    """Whether the instruction is that of the pattern; CPUID may have ineffective prefixes."""
    if site.kind == "enclu":
        return found.mnemonic == "enclu" and found.address == site.vaddr and found.size == 3
    ends = found.address + found.size == site.vaddr + 2
    return found.mnemonic.rpartition(" ")[2] == "cpuid" and ends


class _Prover:
    """What is known about the code of one file, determined when a pattern first needs it."""

    def __init__(self, elf: ElfCode) -> None:
        self.elf = elf
        self.frames = Frames(elf)
        self._codes: dict[Segment, Code] = {}

    def doubt(self, segment: Segment, vaddr: int, wanted: Callable[[Instruction], bool]) -> str:
        """Why the byte at an address is not proven to be in the wanted instruction; "" if it is."""
        code = self.code(segment)
        why = ORPHAN
        for start, end in self.ranges(vaddr):
            found = code.covering(start, vaddr) if start in code else start
            if isinstance(found, Instruction):
                return "" if wanted(found) else f"inside the instruction at {found.address:#x}"
            # There is data on the way: only what control flow reaches is code.
            if _reached(reach(code, [start], start, end), vaddr, wanted):
                return ""
            why = f"no instruction at {found:#x}, on the way from {start:#x}"
        return why

    def led_to(self, segment: Segment, orphans: list[Site]) -> Iterator[Site]:
        """Sites outside all functions that control flow reaches from the entry or a function."""
        code = self.code(segment)
        entries = [self.elf.entry, *(start for start, size in self.functions if not size)]
        gaps: dict[tuple[int, int], list[Site]] = {}
        for site in orphans:
            gaps.setdefault(self.gap(segment, site.vaddr), []).append(site)
        lost = []
        for (low, high), sites in gaps.items():
            found = reach(code, [start for start in entries if low <= start < high], low, high)
            reached = [
                site for site in sites if _reached(found, site.vaddr, partial(_is_site, site))
            ]
            yield from reached
            lost += [(site, low, high) for site in sites if site not in reached]
        if not lost or segment.size > _CALLED_SIZE_MAX:
            return
        calls: dict[int, list[int]] = {}
        for target, at in near_calls(code.content, code.vaddr, list(gaps)):
            calls.setdefault(target, []).append(at)
        targets = sorted(calls)
        for site, low, high in lost:
            number = bisect_right(targets, site.vaddr)
            nearest = reversed(targets[max(0, number - _TARGETS_MAX) : number])
            starts = [one for one in nearest if low <= one and self.is_called(segment, one, calls)]
            if _reached(reach(code, starts, low, high), site.vaddr, partial(_is_site, site)):
                yield site

    def is_called(self, segment: Segment, target: int, calls: dict[int, list[int]]) -> bool:
        """Whether one of the likely calls of an address is an instruction of a known function."""
        leads = partial(_leads_to, target)
        return any(not self.doubt(segment, at, leads) for at in calls[target][:_CALLS_MAX])

    def code(self, segment: Segment) -> Code:
        """The bytes of a segment, ready to be disassembled."""
        if segment not in self._codes:
            content = self.elf.data[segment.offset : segment.offset + segment.size]
            self._codes[segment] = Code(content, segment.vaddr)
        return self._codes[segment]

    def ranges(self, vaddr: int) -> Iterator[tuple[int, int]]:
        """Ranges of the functions that contain an address, the most reliable first."""
        if (frame := self.frames.containing(vaddr)) is not None:
            yield frame
            return
        number = bisect_right(self.functions, (vaddr, 1 << 64)) - 1
        if number >= 0:
            start, size = self.functions[number]
            if size and vaddr < start + size:
                yield start, start + size

    @cached_property
    def functions(self) -> list[tuple[int, int]]:
        """Function symbols."""
        return self.elf.functions()

    def gap(self, segment: Segment, vaddr: int) -> tuple[int, int]:
        """The range around an address that belongs to no function."""
        low, high = self.frames.around(vaddr)
        return max(low, segment.vaddr), min(high, segment.vaddr + segment.size)


def _leads_to(target: int, found: Instruction) -> bool:
    """Whether the instruction is a direct call or jump to an address."""
    return found.mnemonic in ("call", "jmp") and found.operands == f"{target:#x}"


def _reached(
    found: dict[int, Instruction], vaddr: int, wanted: Callable[[Instruction], bool]
) -> bool:
    """Whether the instruction that contains an address was reached and is the wanted one."""
    for start in range(vaddr, vaddr - 15, -1):
        if start in found:
            instruction = found[start]
            return start + instruction.size > vaddr and wanted(instruction)
    return False
