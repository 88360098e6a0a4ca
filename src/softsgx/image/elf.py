"""Reading an ELF program for an enclave: its PT_LOAD segments, entry and relative relocations.

Names are those of the standard (System V ABI, "Object Files" and "Program Loading"; x86-64 psABI).
Every field that is used is checked here first, so that an error says which field is wrong, and
where it is in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from struct import pack_into
from typing import Final, NoReturn

from softsgx.image.elf_format import (
    DT_JMPREL,
    DT_NEEDED,
    DT_NULL,
    DT_PLTRELSZ,
    DT_REL,
    DT_RELA,
    DT_RELASZ,
    DT_RELR,
    E_MACHINES,
    E_TYPES,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    MAGIC,
    PF_R,
    PF_W,
    PF_X,
    PT_DYNAMIC,
    PT_INTERP,
    PT_LOAD,
    R_X86_64_NONE,
    R_X86_64_RELATIVE,
    Dyn,
    Ehdr,
    Phdr,
    Rela,
    Shdr,
)
from softsgx.image.errors import ImageError
from softsgx.spec.bits import MASK64
from softsgx.spec.epcm import R, W, X
from softsgx.spec.structure import Structure

_IDENT: Final = (
    ("e_ident", 0, MAGIC, "ELF magic"),
    ("EI_CLASS", 4, b"\x02", "64-bit program (02)"),
    ("EI_DATA", 5, b"\x01", "little-endian program (01)"),
)
# The code models of static x86-64 programs reach no further. x86-64 psABI, 3.5.1 "Architectural
# Constraints".
SPAN_MAX: Final = 1 << 31
_ADDRESS_END: Final = 1 << 47
_TAGS: Final = {
    DT_RELA: "DT_RELA",
    DT_RELASZ: "DT_RELASZ",
    DT_JMPREL: "DT_JMPREL",
    DT_PLTRELSZ: "DT_PLTRELSZ",
    DT_RELR: "DT_RELR",
    DT_REL: "DT_REL",
}
_TCS_NAME: Final = b".tcs\0"


class Header:
    """A structure of the file with the place it came from, so that its fields can be refused."""

    def __init__(self, data: bytes, name: str, at: int, layout: type[Structure]) -> None:
        self.name, self.at, self.layout = name, at, layout
        size = layout.SIZE
        if at + size > len(data):
            why = f"needs {size} bytes, but the file ends at byte {len(data)}"
            raise ImageError(f"{name} at byte {at}", why)
        self.values = layout.unpack(data[at : at + size])

    def __getitem__(self, field: str) -> int:
        value: int = getattr(self.values, field)
        return value

    def refuse(self, field: str, why: str) -> NoReturn:
        """Raise ImageError for a field."""
        offset = self.at + self.layout.offset_of(field)
        raise ImageError(f"{self.name}, {field} at byte {offset}", why)


@dataclass(frozen=True, slots=True)
class Load:
    """A PT_LOAD: its number among the program headers, and what it puts where.

    `p_vaddr` and `p_memsz` are bytes; `rights` are R, W, X of `spec.epcm`; `content` is p_filesz
    bytes of the file, after which memory is zero; `header` is for errors.
    """

    number: int
    header: Header
    p_vaddr: int
    p_memsz: int
    rights: int
    content: bytes

    @property
    def end(self) -> int:
        """Address of the first byte after the segment."""
        return self.p_vaddr + self.p_memsz

    def __str__(self) -> str:
        return f"PT_LOAD {self.number}"


@dataclass(frozen=True, slots=True)
class Elf:
    """What an enclave needs of a program. `loads` are in ascending order, none is empty.

    `dynamic` holds the tags that are used, with the byte offset of their entry in the file;
    `tcs_section` tells whether there is a section called .tcs; `header` is for errors.
    """

    header: Header
    e_type: str
    e_entry: int
    loads: tuple[Load, ...]
    dynamic: dict[str, tuple[int, int]]
    tcs_section: bool


def read(data: bytes) -> Elf:
    """Read a static or static-pie program for x86-64. Raises ImageError."""
    ehdr = _ehdr(data)
    phdrs = list(_phdrs(data, ehdr))
    dynamic: dict[str, tuple[int, int]] = {}
    for phdr in phdrs:
        if phdr["p_type"] == PT_INTERP:
            phdr.refuse("p_type", "PT_INTERP: dynamically linked; link with -static or -static-pie")
        if phdr["p_type"] == PT_DYNAMIC:
            dynamic = _dynamic(data, phdr)
    loads = tuple(
        _load(data, number, phdr)
        for number, phdr in enumerate(phdrs)
        if phdr["p_type"] == PT_LOAD and phdr["p_memsz"]
    )
    if not loads:
        ehdr.refuse("e_phnum", "there is no PT_LOAD with memory, so nothing to load")
    for below, above in pairwise(loads):
        if above.p_vaddr < below.end:
            why = f"{above.p_vaddr:#x} is below the end {below.end:#x} of {below}"
            above.header.refuse("p_vaddr", why)
    if loads[-1].end - loads[0].p_vaddr > SPAN_MAX:
        why = f"the program would span more than {SPAN_MAX:#x} bytes"
        loads[-1].header.refuse("p_memsz", why)
    tcs = _has_tcs_section(data, ehdr)
    return Elf(ehdr, E_TYPES[ehdr["e_type"]], ehdr["e_entry"], loads, dynamic, tcs)


def _ehdr(data: bytes) -> Header:
    if len(data) >= Ehdr.SIZE:
        # Before anything is decoded: the structures are those of this class and data encoding.
        for field, at, expected, meaning in _IDENT:
            found = data[at : at + len(expected)]
            if found != expected:
                where = f"ELF header, {field} at byte {at}"
                raise ImageError(where, f"{found.hex()} is no {meaning}")
    ehdr = Header(data, "ELF header", 0, Ehdr)
    if (machine := ehdr["e_machine"]) != EM_X86_64:
        ehdr.refuse("e_machine", f"{E_MACHINES.get(machine, str(machine))} is not EM_X86_64")
    if (e_type := ehdr["e_type"]) not in (ET_EXEC, ET_DYN):
        name = E_TYPES.get(e_type, str(e_type))
        ehdr.refuse("e_type", f"{name} is neither ET_EXEC nor ET_DYN: link it first")
    return ehdr


def _phdrs(data: bytes, ehdr: Header) -> Iterator[Header]:
    size = Phdr.SIZE
    if ehdr["e_phnum"] and ehdr["e_phentsize"] != size:
        ehdr.refuse("e_phentsize", f"{ehdr['e_phentsize']} is not {size}")
    for number in range(ehdr["e_phnum"]):
        at = ehdr["e_phoff"] + number * size
        yield Header(data, f"program header {number}", at, Phdr)


def _load(data: bytes, number: int, phdr: Header) -> Load:
    start, filesz, memsz = phdr["p_offset"], phdr["p_filesz"], phdr["p_memsz"]
    vaddr, flags = phdr["p_vaddr"], phdr["p_flags"]
    if start + filesz > len(data):
        why = f"{start:#x} + p_filesz {filesz:#x} is past the end of the file ({len(data):#x})"
        phdr.refuse("p_offset", why)
    if filesz > memsz:
        phdr.refuse("p_filesz", f"{filesz:#x} is more than p_memsz {memsz:#x}")
    if vaddr + memsz > _ADDRESS_END:
        phdr.refuse("p_vaddr", f"{vaddr:#x} + p_memsz {memsz:#x} is not a user address")
    if memsz > SPAN_MAX:
        phdr.refuse("p_memsz", f"{memsz:#x} is more than {SPAN_MAX:#x}")
    names = ((PF_R, R), (PF_W, W), (PF_X, X))
    rights = sum(right for flag, right in names if flags & flag)
    if flags & ~(PF_R | PF_W | PF_X):
        phdr.refuse("p_flags", f"{flags:#x} has bits besides PF_R, PF_W, PF_X")
    if rights & (R | W) == W:
        phdr.refuse("p_flags", "PF_W without PF_R: EADD refuses such a page")
    return Load(number, phdr, vaddr, memsz, rights, data[start : start + filesz])


def _dynamic(data: bytes, phdr: Header) -> dict[str, tuple[int, int]]:
    """Tags of the dynamic section: value, and byte offset of the entry."""
    start, size = phdr["p_offset"], phdr["p_filesz"]
    if start + size > len(data):
        phdr.refuse("p_offset", f"{start:#x} + p_filesz {size:#x} is past the end of the file")
    tags: dict[str, tuple[int, int]] = {}
    step = Dyn.SIZE
    for at in range(start, start + size - step + 1, step):
        entry = Header(data, "dynamic section", at, Dyn)
        tag = entry["d_tag"]
        if tag == DT_NULL:
            break
        if tag == DT_NEEDED:
            entry.refuse("d_tag", "DT_NEEDED: shared libraries; link with -static or -static-pie")
        if tag in _TAGS:
            tags[_TAGS[tag]] = (entry["d_val"], at)
    return tags


def _has_tcs_section(data: bytes, ehdr: Header) -> bool:
    """Whether a section is called .tcs. Nothing is loaded by sections, so nothing is refused."""
    size = Shdr.SIZE
    start, count = ehdr["e_shoff"], ehdr["e_shnum"]
    end = start + count * size
    if ehdr["e_shentsize"] != size or end > len(data) or ehdr["e_shstrndx"] >= count:
        return False
    shdrs = [Shdr.unpack(data[at : at + size]) for at in range(start, end, size)]
    strings = shdrs[ehdr["e_shstrndx"]].sh_offset
    names = [strings + shdr.sh_name for shdr in shdrs]
    return any(data[at : at + len(_TCS_NAME)] == _TCS_NAME for at in names)


def relocate(elf: Elf, base: int) -> Elf:
    """The program with R_X86_64_RELATIVE applied for a load address. Raises ImageError."""
    for tag in ("DT_RELR", "DT_REL"):
        if tag in elf.dynamic:
            why = f"{tag}: only DT_RELA can be applied here: link with -z nopack-relative-relocs"
            raise ImageError(f"dynamic section, d_tag at byte {elf.dynamic[tag][1]}", why)
    contents = [bytearray(load.content) for load in elf.loads]
    for table, size in (("DT_RELA", "DT_RELASZ"), ("DT_JMPREL", "DT_PLTRELSZ")):
        if elf.dynamic.get(size, (0, 0))[0]:
            _apply(elf, contents, base, table, size)
    loads = (
        replace(load, content=bytes(content))
        for load, content in zip(elf.loads, contents, strict=True)
    )
    return replace(elf, loads=tuple(loads))


def _apply(elf: Elf, contents: list[bytearray], base: int, table: str, size: str) -> None:
    address = elf.dynamic.get(table, (0, 0))[0]
    length, at = elf.dynamic[size]
    home = _place(elf, address, length)
    if home is None or address + length > elf.loads[home].p_vaddr + len(elf.loads[home].content):
        why = f"{length:#x} bytes at {address:#x} are not in the program"
        raise ImageError(f"dynamic section, {size} at byte {at}", why)
    if length % Rela.SIZE:
        why = f"{length:#x} is not a multiple of {Rela.SIZE}"
        raise ImageError(f"dynamic section, {size} at byte {at}", why)
    # The table itself is not relocated, so the unchanged content is the one to read.
    start = address - elf.loads[home].p_vaddr
    entries = Rela.S.iter_unpack(elf.loads[home].content[start : start + length])
    for number, (r_offset, r_info, r_addend) in enumerate(entries):
        where = f"{table} entry {number} at address {address + number * Rela.SIZE:#x}"
        kind = r_info & 0xFFFFFFFF
        if kind == R_X86_64_NONE:
            continue
        if kind != R_X86_64_RELATIVE:
            why = f"type {kind}: only R_X86_64_RELATIVE (8) can be applied here"
            raise ImageError(f"{where}, r_info", why)
        target = _place(elf, r_offset, 8)
        if target is None:
            raise ImageError(f"{where}, r_offset", f"{r_offset:#x} is not in the program")
        content, inside = contents[target], r_offset - elf.loads[target].p_vaddr
        if len(content) < inside + 8:
            content.extend(bytes(inside + 8 - len(content)))
        pack_into("<Q", content, inside, base + r_addend & MASK64)


def _place(elf: Elf, address: int, length: int) -> int | None:
    """Index of the PT_LOAD in which [address, address + length) lies."""
    for index, load in enumerate(elf.loads):
        if load.p_vaddr <= address and address + length <= load.end:
            return index
    return None
