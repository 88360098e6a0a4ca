"""A driver object as it is loaded: segments, symbols, and which source line an address is of."""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.cdriver import manifest as m

LINES: Final = ".softsgx.lines"
"""JSON: names of files, and [address, file, line] in ascending order; made by `build`."""

_PT_LOAD: Final = 1
_PHDR: Final = struct.Struct("<IIQQQQQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_HEADER_PHOFF, _HEADER_PHNUM = 0x20, 0x38
_STT_FUNC: Final = 2


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

    def line(self, address: int) -> tuple[str, int] | None:
        """The source file and line of an instruction; None if it is unknown."""
        at = bisect_right(self.lines, (address, len(self.files), 0)) - 1
        if at < 0 or not self.start <= address < self.data:
            return None
        _, file, line = self.lines[at]
        return self.files[file], line

    def function(self, address: int) -> str | None:
        """The name of the function that contains an instruction."""
        for name, symbol in self.symbols.items():
            if symbol.function and symbol.address <= address < symbol.address + symbol.size:
                return name
        return None


@lru_cache(maxsize=8)
def load(path: Path, _changed: int, _size: int) -> Elf:
    """Read a driver object that fits this softsgx. DriverError if it is none.

    The other arguments are there for the cache: when the file was changed, and its size.
    """
    manifest = m.fitting(path)
    data = path.read_bytes()
    (offset,) = struct.unpack_from("<Q", data, _HEADER_PHOFF)
    (count,) = struct.unpack_from("<H", data, _HEADER_PHNUM)
    rows = [_PHDR.unpack_from(data, offset + n * _PHDR.size) for n in range(count)]
    code, writable = (row for row in rows if row[0] == _PT_LOAD)
    segments = tuple((row[3], data[row[2] : row[2] + row[5]]) for row in (code, writable))
    symbols = _symbols(data)
    found = json.loads(m.section(data, LINES))
    return Elf(
        manifest=manifest,
        start=code[3],
        data=writable[3],
        end=writable[3] + writable[6],
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
    for name, info, _other, section, address, size in _SYMBOL.iter_unpack(table):
        if section:
            text = names[name : names.index(b"\0", name)].decode()
            found[text] = Symbol(address, size, info & 0xF == _STT_FUNC)
    return found
