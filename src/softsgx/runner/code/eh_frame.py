"""Function ranges from call frame information. LSB Core, 10.6 "Exception Frames";
DWARF 4, 6.4 "Call Frame Information".

Compilers describe every function there, with its exact start and length, in stripped files, too.
.eh_frame_hdr holds a table sorted by start, so one look-up costs a binary search; static non-PIE
files may have only .eh_frame, which is then read from end to end, once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from struct import Struct
from typing import Final

from softsgx.image.elf_format import PT_GNU_EH_FRAME
from softsgx.runner.code.elf_code import BadElf, ElfCode
from softsgx.spec.bits import MASK64

# DWARF pointer encodings: the low four bits are the format, the next three the base.
_OMIT: Final = 0xFF
_FORMATS: Final = {
    0x00: Struct("<Q"),  # absptr
    0x02: Struct("<H"),
    0x03: Struct("<I"),
    0x04: Struct("<Q"),
    0x0A: Struct("<h"),
    0x0B: Struct("<i"),
    0x0C: Struct("<q"),
}
_PCREL: Final = 0x10
_DATAREL: Final = 0x30
_TABLE: Final = _DATAREL | 0x0B  # the one encoding of the search table that linkers write
_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")

Range = tuple[int, int]


class Frames:
    """The function ranges [start, end) of one file; addresses as in the file, not relocated."""

    def __init__(self, elf: ElfCode) -> None:
        self.elf = elf
        self._encodings: dict[int, int] = {}
        self.header = next((s for s in elf.segments if s.kind == PT_GNU_EH_FRAME), None)
        self._table: memoryview | None = None
        if self.header is not None:
            self._read_header()

    def containing(self, vaddr: int) -> Range | None:
        """The function that an address is in."""
        if self._table is not None and self.header is not None:
            base = self.header.vaddr
            # Every other word is a start. In a table that is not sorted this finds a wrong entry.
            number = bisect_right(self._table[::2], vaddr - base) - 1
            if number < 0:
                return None
            start = (base + self._table[2 * number]) & MASK64
            found = self._fde((base + self._table[2 * number + 1]) & MASK64)
            return found if found is not None and found[0] == start <= vaddr < found[1] else None
        number = bisect_right(self._starts, vaddr) - 1
        if number >= 0 and vaddr < self._ranges[number][1]:
            return self._ranges[number]
        return None

    def around(self, vaddr: int) -> Range:
        """The gap between functions around an address: [end of one, start of the next)."""
        below, above = 0, MASK64
        if self._table is not None and self.header is not None:
            base = self.header.vaddr
            number = bisect_right(self._table[::2], vaddr - base)
            if number:
                found = self._fde((base + self._table[2 * number - 1]) & MASK64)
                below = found[1] if found is not None else 0
            if 2 * number < len(self._table):
                above = base + self._table[2 * number]
            return below, above
        number = bisect_right(self._starts, vaddr)
        below = self._ranges[number - 1][1] if number else 0
        above = self._starts[number] if number < len(self._starts) else above
        return below, above

    @cached_property
    def _ranges(self) -> list[Range]:
        return sorted(self._walk())

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in self._ranges]

    def _read_header(self) -> None:
        """Read the table of .eh_frame_hdr: signed words, start and FDE relative to the header."""
        header, data = self.header, self.elf.data
        assert header is not None
        end = header.offset + header.size
        if header.size < 12 or end > len(data):
            return
        version, pointer, count_format, table_format = data[header.offset : header.offset + 4]
        if version != 1 or table_format != _TABLE or count_format != 0x03:
            return
        if _FORMATS.get(pointer & 0xF, _U64).size != 4:
            return
        (count,) = _U32.unpack_from(data, header.offset + 8)
        if 0 < count <= (header.size - 12) // 8:
            at = header.offset + 12
            self._table = memoryview(data)[at : at + 8 * count].cast("i")

    def _fde(self, vaddr: int) -> Range | None:
        """The range of the FDE at an address."""
        try:
            return self._entry(self.elf.at(vaddr, 8), vaddr)[1]
        except BadElf:
            return None

    def _walk(self) -> Iterator[Range]:
        """All FDEs of .eh_frame."""
        section = next((s for s in self.elf.sections() if s.name == b".eh_frame"), None)
        if section is None:
            return
        at, end = section.offset, min(section.offset + section.size, len(self.elf.data))
        while at + 4 <= end:
            try:
                size, found = self._entry(at, section.vaddr + at - section.offset)
            except BadElf:
                return
            if size <= 4:  # the terminator; crt files may put one before the rest
                at += 4
                continue
            if found is not None:
                yield found
            at += size

    def _entry(self, at: int, vaddr: int) -> tuple[int, Range | None]:
        """Size of the CIE or FDE at a file offset, and the range if it is an FDE."""
        data = self.elf.data
        length = self._number(_U32, at)
        head = 4
        if length == 0xFFFFFFFF:
            length, head = self._number(_U64, at + 4), 12
        if length == 0:
            return 4, None
        if at + head + length > len(data):
            raise BadElf(f"frame entry at byte {at} is longer than the file")
        cie = self._number(_U32, at + head)
        if cie == 0:
            return head + length, None
        encoding = self._encoding(at + head - cie)
        layout = _FORMATS.get(encoding & 0xF)
        where = at + head + 4
        if layout is None or length < 4 + 2 * layout.size:
            return head + length, None
        start = self._number(layout, where)
        # The length has the format of the start, without its sign and its base.
        count = self._number(layout, where + layout.size) & ((1 << 8 * layout.size) - 1)
        if encoding & 0x70 == _PCREL:
            start += vaddr + head + 4
        start &= MASK64
        return head + length, (start, start + count)

    def _number(self, layout: Struct, at: int) -> int:
        if at < 0 or at + layout.size > len(self.elf.data):
            raise BadElf(f"frame entry at byte {at} is cut short")
        value: int = layout.unpack_from(self.elf.data, at)[0]
        return value

    def _encoding(self, cie: int) -> int:
        """How the FDEs of a CIE encode addresses: the R of its augmentation string."""
        if cie not in self._encodings:
            self._encodings[cie] = self._read_encoding(cie)
        return self._encodings[cie]

    def _read_encoding(self, cie: int) -> int:
        data = self.elf.data
        length = self._number(_U32, cie)
        at = cie + (12 if length == 0xFFFFFFFF else 4)
        if self._number(_U32, at) != 0:
            raise BadElf(f"no CIE at byte {cie}")
        stop = data.find(b"\0", at + 5, at + 5 + 16)
        if stop < 0:
            raise BadElf(f"CIE at byte {cie} has no augmentation string")
        version, augmentation = data[at + 4], data[at + 5 : stop]
        if not augmentation.startswith(b"z"):
            return 0x00 if not augmentation else _OMIT
        at = self._skip_leb(self._skip_leb(stop + 1))  # code and data alignment
        at = at + 1 if version == 1 else self._skip_leb(at)  # return address register
        at = self._skip_leb(at)  # length of what follows
        for letter in augmentation[1:]:
            if letter == ord("R"):
                return data[at] if at < len(data) else _OMIT
            if letter == ord("L"):
                at += 1
            elif letter == ord("P"):
                layout = _FORMATS.get(data[at] & 0xF) if at < len(data) else None
                if layout is None:
                    return _OMIT
                at += 1 + layout.size
            elif letter not in b"SB":
                return _OMIT
        return 0x00

    def _skip_leb(self, at: int) -> int:
        data = self.elf.data
        while at < len(data) and data[at] & 0x80:
            at += 1
        return at + 1
