"""Names of an ELF file: the code of a function, and what lies at an address."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from softsgx.image.elf_format import SHT_SYMTAB, STT_FUNC, Sym
from softsgx.image.errors import ImageError
from softsgx.runner.code.elf_code import BadElf, ElfCode

_STT_OBJECT: Final = 1


class Symbol(NamedTuple):
    """A function or an object: linked address, size in bytes, name."""

    address: int
    size: int
    name: str
    code: bool


class Symbols:
    """The symbols of a file, of .symtab: a stripped file has none."""

    def __init__(self, data: bytes) -> None:
        try:
            self._elf = ElfCode(data)
        except BadElf as error:
            raise ImageError("ELF file", str(error)) from None
        self._all = sorted(self._read())

    def _read(self) -> list[Symbol]:
        sections = self._elf.sections()
        names = next((s for s in sections if s.name == b".strtab"), None)
        found: list[Symbol] = []
        if names is None:
            return found
        data = self._elf.data
        for section in sections:
            if section.kind != SHT_SYMTAB:
                continue
            table = data[section.offset : section.offset + section.size // Sym.SIZE * Sym.SIZE]
            for name, info, _, shndx, value, size in Sym.S.iter_unpack(table):
                if info & 0xF in (STT_FUNC, _STT_OBJECT) and shndx and name < names.size:
                    at = names.offset + name
                    text = data[at : data.find(b"\0", at)].decode(errors="replace")
                    found.append(Symbol(value, size, text, info & 0xF == STT_FUNC))
        return found

    def function(self, name: str) -> tuple[int, int]:
        """First linked address of a function, and the one behind it. Raises ImageError."""
        return self._named(name, True)

    def object(self, name: str) -> tuple[int, int]:
        """First linked address of an object, and the one behind it. Raises ImageError."""
        return self._named(name, False)

    def _named(self, name: str, code: bool) -> tuple[int, int]:
        for symbol in self._all:
            if symbol.name == name and symbol.code is code:
                if not symbol.size:
                    raise ImageError(f"symbol {name}", "the file does not say how long it is")
                return symbol.address, symbol.address + symbol.size
        raise ImageError(f"symbol {name}", f"the file has no such {('object', 'function')[code]}")

    def in_code(self, begin: int, end: int) -> bool:
        """Whether linked addresses [begin, end) are in one executable segment."""
        segment = self._elf.code_at(begin)
        return begin < end and segment is not None and end - segment.vaddr <= segment.size

    def name_of(self, address: int) -> str:
        """A linked address as "name" or "name+8"; "" if it is in nothing that has a name."""
        at = bisect_right(self._all, address, key=lambda symbol: symbol.address) - 1
        while at >= 0:
            symbol = self._all[at]
            inside = address - symbol.address
            if inside < symbol.size:
                return f"{symbol.name}+{inside}" if inside else symbol.name
            if symbol.size:
                return ""
            at -= 1
        return ""
