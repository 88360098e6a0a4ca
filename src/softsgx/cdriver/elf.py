"""A driver object as it is loaded: segments, symbols, and which source line an address is of."""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.cdriver import manifest as m
from softsgx.cdriver.tree import SOURCES
from softsgx.image.elf_format import PT_LOAD, SHN_UNDEF, STT_FUNC, Ehdr, Phdr, Sym

LINES: Final = ".softsgx.lines"
"""JSON: names of files, and [address, file, line] in ascending order; made by `build`."""

_TYPE_MASK: Final = 0xF  # of st_info


class Symbol(NamedTuple):
    """A function or variable."""

    address: int
    size: int
    function: bool


@dataclass(frozen=True, eq=False)
class Elf:
    """start, data, end  of the image: code and constants up to `data`, then what can be written
    stacks, heap    where they begin
    initial         the first bytes of the data; the rest is zero
    segments        what is copied to which address
    """

    manifest: m.Manifest
    start: int
    data: int
    end: int
    stacks: int
    heap: int
    initial: bytes
    segments: tuple[tuple[int, bytes], ...]
    symbols: dict[str, Symbol]
    files: tuple[str, ...]
    lines: tuple[tuple[int, int, int], ...]

    @cached_property
    def _functions(self) -> tuple[list[int], list[str]]:
        """The addresses of all functions, ascending, and their names."""
        found = sorted((s.address, name) for name, s in self.symbols.items() if s.function)
        return [address for address, _ in found], [name for _, name in found]

    @cached_property
    def _of_tree(self) -> frozenset[int]:
        """Which files are the C files of the tree."""
        return frozenset(n for n, file in enumerate(self.files) if file in SOURCES)

    def place(self, address: int) -> str:
        """`file:line function` of the driver that an instruction belongs to; "" if it is not its.

        Code of a header that was inlined belongs to the line before it.
        """
        name = self.function(address)
        at = bisect_right(self.lines, (address, len(self.files), 0)) - 1
        while name is not None and at >= 0 and self.lines[at][0] >= self.symbols[name].address:
            _, file, line = self.lines[at]
            if file in self._of_tree:
                return f"{self.files[file]}:{line} {name}"
            at -= 1
        return ""

    def line(self, address: int) -> tuple[str, int] | None:
        """The source file and line of an instruction; None if it is unknown."""
        at = bisect_right(self.lines, (address, len(self.files), 0)) - 1
        if at < 0 or not self.start <= address < self.data:
            return None
        _, file, line = self.lines[at]
        return self.files[file], line

    def function(self, address: int) -> str | None:
        """The name of the function that contains an instruction."""
        addresses, names = self._functions
        at = bisect_right(addresses, address) - 1
        if at < 0:
            return None
        symbol = self.symbols[names[at]]
        return names[at] if address < symbol.address + symbol.size else None


@lru_cache(maxsize=8)
def load(path: Path, _changed: int, _size: int) -> Elf:
    """Read a driver object that fits this softsgx. DriverError if it is none.

    The other arguments are there for the cache: when the file was changed, and its size.
    """
    manifest = m.fitting(path)
    data = path.read_bytes()
    header = Ehdr.unpack(data[: Ehdr.SIZE])
    rows = [
        Phdr.unpack(data[at : at + Phdr.SIZE])
        for at in range(header.e_phoff, header.e_phoff + header.e_phnum * Phdr.SIZE, Phdr.SIZE)
    ]
    code, writable = (row for row in rows if row.p_type == PT_LOAD)
    segments = tuple(
        (row.p_vaddr, data[row.p_offset : row.p_offset + row.p_filesz]) for row in (code, writable)
    )
    symbols = _symbols(data)
    found = json.loads(m.section(data, LINES))
    return Elf(
        manifest=manifest,
        start=code.p_vaddr,
        data=writable.p_vaddr,
        end=writable.p_vaddr + writable.p_memsz,
        stacks=symbols["k_stacks"].address,
        heap=symbols["k_heap"].address,
        initial=segments[1][1],
        segments=segments,
        symbols=symbols,
        files=tuple(found["files"]),
        lines=tuple((a, f, n) for a, f, n in found["lines"]),
    )


def _symbols(data: bytes) -> dict[str, Symbol]:
    table, names = m.section(data, ".symtab"), m.section(data, ".strtab")
    found: dict[str, Symbol] = {}
    for at in range(0, len(table), Sym.SIZE):
        row = Sym.unpack(table[at : at + Sym.SIZE])
        if row.st_shndx != SHN_UNDEF:
            text = names[row.st_name : names.index(b"\0", row.st_name)].decode()
            function = row.st_info & _TYPE_MASK == STT_FUNC
            found[text] = Symbol(row.st_value, row.st_size, function)
    return found
