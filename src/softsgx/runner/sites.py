"""The CPUID and ENCLU instructions of a program file, which the supervisor replaces.

A byte pattern is not an instruction: it may lie in a constant, or across two instructions. A
pattern counts only where disassembly from a known function start arrives at it; what is not proven
is never patched, and reported. Proofs, from the cheapest: the function range of .eh_frame, a
function symbol, control flow from the ELF entry point, control flow from a call out of proven code.

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

from softsgx.runner.disassembler import Code, Instruction, reach
from softsgx.runner.eh_frame import Frames
from softsgx.runner.elf_code import BadElf, ElfCode, Segment

Kind = Literal["cpuid", "enclu"]

PATTERNS: Final[dict[bytes, Kind]] = {b"\x0f\xa2": "cpuid", b"\x0f\x01\xd7": "enclu"}
_HIT: Final = re.compile(rb"\x0f\xa2|\x0f\x01\xd7")
# Feature selection in these stays native, and ld.so runs before a library can be patched.
_NATIVE: Final = re.compile(
    r"(ld-linux.*|ld64|ld-musl.*|libc\.musl.*|(ld|lib(c|m|mvec|pthread|dl|rt))(-[\d.]+)?)"
    r"\.so(\.[\d.]+)?"
)
_CALL_PROOFS_MAX: Final = 64
# Calls out of proven code are looked for in small programs only: it costs 100 ms per 2 MiB.
_CALLED_SIZE_MAX: Final = 1 << 19
_NEAR: Final = re.compile(rb"[\xe8\xe9]")


class Site(NamedTuple):
    """An instruction to patch: where in the file, at which (unrelocated) address, and which."""

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
    """The instructions of one file. `reason` says why nothing was searched; else it is empty."""

    patch: tuple[Site, ...] = ()
    unproven: tuple[Unproven, ...] = ()
    reason: str = ""


def patchable(path: str) -> bool:
    """Whether a mapped file is the program or one of its libraries, not the C library's own."""
    name = os.path.basename(path.removesuffix(" (deleted)"))
    return path.startswith("/") and not _NATIVE.fullmatch(name)


def scan(data: bytes) -> Sites:
    """Search the content of a file. Never raises for what the content is."""
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
    patch, unproven = [], []
    prover = _Prover(elf)
    for segment, site in hits:
        why = prover.doubt(segment, site.vaddr, partial(_is_site, site))
        if why:
            unproven.append(Unproven(*site, why))
        else:
            patch.append(site)
    return Sites(tuple(patch), tuple(unproven))


def _is_site(site: Site, found: Instruction) -> bool:
    """Whether the instruction is the one of the pattern; CPUID may have prefixes without effect."""
    if site.kind == "enclu":
        return found.mnemonic == "enclu" and found.address == site.vaddr and found.size == 3
    ends = found.address + found.size == site.vaddr + 2
    return found.mnemonic.rpartition(" ")[2] == "cpuid" and ends


class _Prover:
    """What is known of one file's code, found out when a pattern first needs it."""

    def __init__(self, elf: ElfCode) -> None:
        self.elf = elf
        self.frames = Frames(elf)
        self._codes: dict[Segment, Code] = {}
        self._near: dict[Segment, list[tuple[int, int]]] = {}

    def doubt(
        self, segment: Segment, vaddr: int, wanted: Callable[[Instruction], bool], depth: int = 0
    ) -> str:
        """Why the byte at an address is not known to be the wanted instruction; empty if it is."""
        code = self.code(segment)
        why = "in no known function"
        for start, end in self.ranges(vaddr):
            found = code.covering(start, vaddr) if start in code else start
            if isinstance(found, Instruction):
                return "" if wanted(found) else f"inside the instruction at {found.address:#x}"
            # Data in the way: only what control reaches is code.
            if _reached(reach(code, [start], start, end), vaddr, wanted):
                return ""
            why = f"no instruction at {found:#x}, on the way from {start:#x}"
        if depth:
            return why
        low, high = self.gap(segment, vaddr)
        if _reached(self.from_entry, vaddr, wanted):
            return ""
        starts = list(self.called(segment, low, high))
        if starts and _reached(reach(code, starts, low, high), vaddr, wanted):
            return ""
        return why

    def code(self, segment: Segment) -> Code:
        """The bytes of a segment, ready to be disassembled."""
        if segment not in self._codes:
            content = self.elf.data[segment.offset : segment.offset + segment.size]
            self._codes[segment] = Code(content, segment.vaddr)
        return self._codes[segment]

    def ranges(self, vaddr: int) -> Iterator[tuple[int, int]]:
        """Functions that an address is in, best known first."""
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

    @cached_property
    def from_entry(self) -> dict[int, Instruction]:
        """What control reaches from the entry point, and from symbols without a size."""
        segment = self.elf.code_at(self.elf.entry)
        if segment is None:
            return {}
        code = self.code(segment)
        starts = [self.elf.entry, *(start for start, size in self.functions if not size)]
        return reach(code, starts, code.vaddr, code.end)

    def gap(self, segment: Segment, vaddr: int) -> tuple[int, int]:
        """The addresses around one that belong to no function."""
        low, high = self.frames.around(vaddr)
        return max(low, segment.vaddr), min(high, segment.vaddr + segment.size)

    def called(self, segment: Segment, low: int, high: int) -> Iterator[int]:
        """Addresses in a gap that proven calls and jumps elsewhere in the segment lead to."""
        near = self.near(segment)
        first, last = bisect_right(near, (low, -1)), bisect_right(near, (high, -1))
        outside = [pair for pair in near[first:last] if not low <= pair[1] < high]
        for target, at in outside[:_CALL_PROOFS_MAX]:
            if not self.doubt(segment, at, partial(_leads_to, target), depth=1):
                yield target

    def near(self, segment: Segment) -> list[tuple[int, int]]:
        """(target, address) of whatever looks like a near call or jump within the segment."""
        if segment.size > _CALLED_SIZE_MAX:
            return []
        if segment not in self._near:
            data, code = self.elf.data, self.code(segment)
            found = []
            for match in _NEAR.finditer(data, segment.offset, segment.offset + segment.size - 4):
                start = match.end()
                at = segment.to_vaddr(match.start())
                target = at + 5 + int.from_bytes(data[start : start + 4], "little", signed=True)
                if target in code:
                    found.append((target, at))
            self._near[segment] = sorted(found)
        return self._near[segment]


def _leads_to(target: int, found: Instruction) -> bool:
    """Whether the instruction is a direct call or jump to an address."""
    return found.mnemonic in ("call", "jmp") and found.operands == f"{target:#x}"


def _reached(
    found: dict[int, Instruction], vaddr: int, wanted: Callable[[Instruction], bool]
) -> bool:
    """Whether the instruction with the byte at an address is reached, and the wanted one."""
    for start in range(vaddr, vaddr - 15, -1):
        if start in found:
            instruction = found[start]
            return start + instruction.size > vaddr and wanted(instruction)
    return False
