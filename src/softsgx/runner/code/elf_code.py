"""Where the code of an ELF file is, and where its functions start.

Only what the search of `sites` needs, reading as few bytes as possible: the search runs before the
program does. Names are those of the standard (System V ABI, "Object Files" and
"Program Loading"). Anything wrong with the file raises `BadElf`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from softsgx.image.elf_format import (
    ELFCLASS64,
    ELFDATA2LSB,
    EM_X86_64,
    MAGIC,
    PF_X,
    PT_LOAD,
    SHT_DYNSYM,
    SHT_NOBITS,
    SHT_SYMTAB,
    STT_FUNC,
    STT_GNU_IFUNC,
    Ehdr,
    Phdr,
    Shdr,
    Sym,
)

# A file with more headers or symbols is damaged: compilers and linkers stay far below.
_HEADERS_MAX: Final = 4096
_SYMBOLS_MAX: Final = 4_000_000


class BadElf(ValueError):
    """The file is not an ELF program for x86-64, or is damaged."""


class Segment(NamedTuple):
    """A program header: `offset`, `size` in the file, `vaddr` in memory, all in bytes."""

    kind: int
    flags: int
    offset: int
    vaddr: int
    size: int

    def to_vaddr(self, offset: int) -> int:
        """The address of a byte of the file."""
        return self.vaddr + offset - self.offset


class Section(NamedTuple):
    """A section header."""

    name: bytes
    kind: int
    vaddr: int
    offset: int
    size: int


class ElfCode:
    """The parts of an ELF file that tell code from data."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        if data[:4] != MAGIC:
            raise BadElf("not an ELF file")
        if len(data) < Ehdr.SIZE:
            raise BadElf("ELF header cut short")
        self.ehdr = Ehdr.unpack(data[: Ehdr.SIZE])
        self.entry = self.ehdr.e_entry
        ident = self.ehdr.e_ident
        if ident[4:6] != bytes((ELFCLASS64, ELFDATA2LSB)) or self.ehdr.e_machine != EM_X86_64:
            raise BadElf("not a 64-bit x86-64 ELF file")
        self.segments = list(self._segments())
        self.code = [s for s in self.segments if s.kind == PT_LOAD and s.flags & PF_X and s.size]

    def _segments(self) -> Iterator[Segment]:
        ehdr = self.ehdr
        if ehdr.e_phnum and ehdr.e_phentsize != Phdr.SIZE:
            raise BadElf(f"e_phentsize is {ehdr.e_phentsize}, not {Phdr.SIZE}")
        if ehdr.e_phnum > _HEADERS_MAX:
            raise BadElf(f"e_phnum is {ehdr.e_phnum}")
        end = len(self.data)
        for number in range(ehdr.e_phnum):
            at = ehdr.e_phoff + number * Phdr.SIZE
            if at + Phdr.SIZE > end:
                raise BadElf(f"program header {number} is past the end of the file")
            kind, flags, offset, vaddr, _, filesz, _, _ = Phdr.S.unpack_from(self.data, at)
            if kind == PT_LOAD and offset + filesz > end:
                raise BadElf(f"program header {number} names bytes past the end of the file")
            yield Segment(kind, flags, offset, vaddr, filesz)

    def at(self, vaddr: int, size: int) -> int:
        """The file offset of `size` loaded bytes at an address. Raises BadElf."""
        for segment in self.segments:
            inside = vaddr - segment.vaddr
            if segment.kind == PT_LOAD and inside >= 0 and inside + size <= segment.size:
                return segment.offset + inside
        raise BadElf(f"{vaddr:#x} is not in a loaded part of the file")

    def code_at(self, vaddr: int) -> Segment | None:
        """The executable segment that an address is in."""
        for segment in self.code:
            if 0 <= vaddr - segment.vaddr < segment.size:
                return segment
        return None

    def sections(self) -> list[Section]:
        """The section headers; empty if the file has no table, or a damaged one."""
        data, count, start = self.data, self.ehdr.e_shnum, self.ehdr.e_shoff
        if not count or self.ehdr.e_shentsize != Shdr.SIZE or count > _HEADERS_MAX:
            return []
        if start + count * Shdr.SIZE > len(data) or self.ehdr.e_shstrndx >= count:
            return []
        raw = [Shdr.S.unpack_from(data, start + i * Shdr.SIZE) for i in range(count)]
        names_at, names_end = raw[self.ehdr.e_shstrndx][4], sum(raw[self.ehdr.e_shstrndx][4:6])
        found = []
        for name, kind, _, vaddr, offset, size, *_ in raw:
            if kind != SHT_NOBITS and offset + size > len(data):
                continue
            stop = data.find(b"\0", names_at + name, min(names_end, len(data)))
            text = data[names_at + name : stop] if stop >= 0 else b""
            found.append(Section(text, kind, vaddr, offset, size))
        return found

    def functions(self) -> list[tuple[int, int]]:
        """(address, size) of the functions in .symtab and .dynsym; size is 0 if not stated."""
        found = set()
        for section in self.sections():
            count = section.size // Sym.SIZE
            if section.kind not in (SHT_SYMTAB, SHT_DYNSYM) or count > _SYMBOLS_MAX:
                continue
            table = memoryview(self.data)[section.offset : section.offset + count * Sym.SIZE]
            for _, info, _, shndx, value, size in Sym.S.iter_unpack(table):
                if info & 0xF in (STT_FUNC, STT_GNU_IFUNC) and shndx:
                    found.add((value, size))
        return sorted(found)
