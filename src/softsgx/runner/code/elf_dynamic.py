"""Dynamic symbols of an image in memory, as a vDSO is, and a writer of small shared objects.

Names are those of the System V ABI, "Dynamic Linking" and "Object Files". An image in memory is
read by its dynamic section and its notes; a malformed image raises ValueError.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import error, pack, unpack_from
from typing import Final, NamedTuple

from softsgx.image.elf_format import (
    DT_GNU_HASH,
    DT_HASH,
    DT_STRTAB,
    DT_SYMTAB,
    EM_X86_64,
    ET_DYN,
    IDENT,
    PF_R,
    PF_X,
    PT_DYNAMIC,
    PT_LOAD,
    PT_NOTE,
    SHF_ALLOC,
    SHN_ABS,
    SHN_UNDEF,
    SHT_STRTAB,
    Dyn,
    Ehdr,
    Phdr,
    Shdr,
    Sym,
)


class Note(NamedTuple):
    """An entry of a note section: owner, type, and description."""

    name: bytes
    type: int
    description: bytes

    def pack(self) -> bytes:
        """The entry as bytes of the section; each part begins at a multiple of 4."""
        name = self.name + b"\0"
        words = pack("<III", len(name), len(self.description), self.type)
        return b"".join(part + bytes(-len(part) % 4) for part in (words, name, self.description))


class Symbol(NamedTuple):
    """A dynamic symbol: name, st_info, st_other, st_value, st_size."""

    name: bytes
    info: int
    other: int
    value: int
    size: int


def sysv_hash(name: bytes) -> int:
    """The hash of DT_HASH and of version names."""
    h = 0
    for byte in name:
        h = (h << 4) + byte
        h = (h ^ (h >> 24 & 0xF0)) & 0x0FFF_FFFF
    return h


def gnu_hash(name: bytes) -> int:
    """The hash of DT_GNU_HASH."""
    h = 5381
    for byte in name:
        h = (h * 33 + byte) & 0xFFFF_FFFF
    return h


def notes(image: bytes) -> list[Note]:
    """The entries in the PT_NOTE segments of an image linked for address 0."""
    try:
        return list(_notes(image))
    except (error, IndexError) as broken:
        raise ValueError(f"no shared object in memory: {broken!r}") from broken


def _notes(image: bytes) -> Iterator[Note]:
    for p_type, _, at, _, _, p_filesz, _, _ in _segments(image):
        end = at + p_filesz
        while p_type == PT_NOTE and at + 12 <= end:
            name_size, size, kind = unpack_from("<III", image, at)
            at += 12
            name = image[at : at + name_size]
            at += (name_size + 3) & ~3
            yield Note(name.rstrip(b"\0"), kind, image[at : at + size])
            at += (size + 3) & ~3


def _segments(image: bytes) -> Iterator[tuple[int, ...]]:
    header = Ehdr.S.unpack_from(image)
    if header[0][:7] != IDENT[:7]:
        raise ValueError(f"no 64-bit little-endian ELF image: it begins with {image[:7].hex()}")
    phoff, phnum = header[5], header[10]
    for i in range(phnum):
        yield Phdr.S.unpack_from(image, phoff + Phdr.SIZE * i)


def defined_symbols(image: bytes) -> list[Symbol]:
    """The symbols that an image linked for address 0 defines, without the markers of versions."""
    try:
        return list(_defined_symbols(image))
    except (error, IndexError, KeyError) as broken:
        raise ValueError(f"no shared object in memory: {broken!r}") from broken


def _defined_symbols(image: bytes) -> Iterator[Symbol]:
    tags: dict[int, int] = {}
    for p_type, _, p_offset, _, _, p_filesz, _, _ in _segments(image):
        if p_type == PT_DYNAMIC:
            for tag, value in Dyn.S.iter_unpack(image[p_offset : p_offset + p_filesz]):
                tags.setdefault(tag, value)
    for i in range(_symbol_count(image, tags)):
        name, info, other, shndx, value, size = Sym.S.unpack_from(
            image, tags[DT_SYMTAB] + Sym.SIZE * i
        )
        if shndx not in (SHN_UNDEF, SHN_ABS):
            start = tags[DT_STRTAB] + name
            yield Symbol(image[start : image.index(b"\0", start)], info, other, value, size)


def _symbol_count(image: bytes, tags: dict[int, int]) -> int:
    """Size of the symbol table: nchain of DT_HASH, or the end of DT_GNU_HASH's last chain."""
    if DT_HASH in tags:
        return int(unpack_from("<II", image, tags[DT_HASH])[1])
    at = tags[DT_GNU_HASH]
    nbuckets, symoffset, bloom_size, _ = unpack_from("<IIII", image, at)
    buckets_at = at + 16 + 8 * bloom_size
    last = max(unpack_from(f"<{nbuckets}I", image, buckets_at), default=0)
    if last < symoffset:
        return int(symoffset)
    chain_at = buckets_at + 4 * nbuckets
    while not unpack_from("<I", image, chain_at + 4 * (last - symoffset))[0] & 1:
        last += 1
    return last + 1


class Strings:
    """A string table under construction, with every string once."""

    def __init__(self) -> None:
        self.data = b"\0"
        self._offsets: dict[bytes, int] = {b"": 0}

    def offset(self, text: bytes) -> int:
        """Where the string is; it is appended if it is new."""
        if text not in self._offsets:
            self._offsets[text] = len(self.data)
            self.data += text + b"\0"
        return self._offsets[text]


class Section(NamedTuple):
    """The fields of a section header."""

    name: bytes
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    entsize: int
    align: int


class SharedObject:
    """An ET_DYN image of one R-X segment: its sections are appended in file order."""

    def __init__(self, segments: int) -> None:
        """`segments`: program headers besides PT_LOAD, for which room is left."""
        self._phnum = 1 + segments
        self._content = bytearray(Ehdr.SIZE + Phdr.SIZE * self._phnum)
        self._sections = [Section(b"", 0, 0, 0, 0, 0, 0, 0, 0)]
        self._segments: list[tuple[int, Section]] = []

    def next_offset(self, align: int) -> int:
        """Where the next section of this alignment will be; addresses are offsets."""
        return -(-len(self._content) // align) * align

    def add(
        self,
        name: bytes,
        sh_type: int,
        data: bytes,
        flags: int = SHF_ALLOC,
        link: int = 0,
        info: int = 0,
        entsize: int = 0,
        align: int = 8,
    ) -> int:
        """Append a section; returns its number."""
        offset = self.next_offset(align)
        self._content += bytes(offset - len(self._content)) + data
        self._sections.append(
            Section(name, sh_type, flags, offset, len(data), link, info, entsize, align)
        )
        return len(self._sections) - 1

    def offset(self, section: int) -> int:
        """Offset, which is also the address, of a section."""
        return self._sections[section].offset

    def segment(self, p_type: int, section: int) -> None:
        """A read-only program header for a section."""
        self._segments.append((p_type, self._sections[section]))

    def image(self) -> bytes:
        """The file. The section of section names and the headers come last."""
        names = Strings()
        for section in (*(s.name for s in self._sections), b".shstrtab"):
            names.offset(section)
        shstrndx = self.add(b".shstrtab", SHT_STRTAB, names.data, flags=0, align=1)
        shoff = self.next_offset(8)
        content = self._content + bytes(shoff - len(self._content))
        for s in self._sections:
            address = s.offset if s.flags & SHF_ALLOC else 0
            content += Shdr.S.pack(
                *(names.offset(s.name), s.type, s.flags, address, s.offset, s.size),
                *(s.link, s.info, s.align, s.entsize),
            )
        assert len(self._segments) + 1 == self._phnum
        Ehdr.S.pack_into(
            *(content, 0, IDENT, ET_DYN, EM_X86_64, 1, 0, Ehdr.SIZE, shoff, 0, Ehdr.SIZE),
            *(Phdr.SIZE, self._phnum, Shdr.SIZE, len(self._sections), shstrndx),
        )
        size = len(content)
        Phdr.S.pack_into(content, Ehdr.SIZE, PT_LOAD, PF_R | PF_X, 0, 0, 0, size, size, 0x1000)
        for i, (p_type, s) in enumerate(self._segments, 1):
            at = Ehdr.SIZE + Phdr.SIZE * i
            Phdr.S.pack_into(
                content, at, p_type, PF_R, s.offset, s.offset, s.offset, s.size, s.size, s.align
            )
        return bytes(content)


def hash_table(names: list[bytes], hash_of: Callable[[bytes], int] = sysv_hash) -> list[int]:
    """The words of DT_HASH for symbols in this order; number 0 is the undefined symbol."""
    buckets = [0] * max(1, len(names) // 2)
    chains = [0] * len(names)
    for i, name in enumerate(names[1:], 1):
        bucket = hash_of(name) % len(buckets)
        chains[i], buckets[bucket] = buckets[bucket], i
    return [len(buckets), len(chains), *buckets, *chains]


def gnu_hash_order(names: Iterable[bytes]) -> list[bytes]:
    """Names in the order of the symbols for DT_GNU_HASH: each bucket's are adjacent."""
    listed = list(names)
    return sorted(listed, key=lambda name: gnu_hash(name) % _gnu_buckets(len(listed)))


def gnu_hash_table(names: Sequence[bytes]) -> bytes:
    """DT_GNU_HASH for symbols in this order, which is `gnu_hash_order`; the first is number 1."""
    hashes = [gnu_hash(name) for name in names]
    count = _gnu_buckets(len(names))
    buckets, chains, bloom = [0] * count, [h & ~1 for h in hashes], 0
    for i, h in enumerate(hashes):
        bloom |= 1 << h % 64 | 1 << (h >> _BLOOM_SHIFT) % 64
        buckets[h % count] = buckets[h % count] or i + 1
        if i + 1 == len(hashes) or hashes[i + 1] % count != h % count:
            chains[i] |= 1  # the last of its bucket
    head = pack("<IIIIQ", count, 1, 1, _BLOOM_SHIFT, bloom)
    return head + pack(f"<{count + len(chains)}I", *buckets, *chains)


def _gnu_buckets(symbols: int) -> int:
    return max(1, symbols // 2)


_BLOOM_SHIFT: Final = 6
