"""The enclave page cache map, in packed columns. SDM 3D, 38.19 "Enclave Page Cache Map (EPCM)".

One entry per EPC page, spread over four columns: 20 bytes a page. `state` is the packed word of
`spec.epcm` (VALID, R, W, X, PT, PENDING, MODIFIED, PR, BLOCKED), `secs` the EPC page number of the
parent SECS, `address` ENCLAVEADDRESS, `stamp` the tracking stamp of `cpu.tracking`. All columns are
views of one buffer. A large EPC lives in anonymous memory that the host commits when an entry is
first used, so 512 GiB of EPC cost nothing until pages are added.

An entry whose VALID bit is 0 has all columns zero: the manual gives the other fields no meaning.
"""

from __future__ import annotations

import mmap
import struct

from softsgx.events.cpu import EpcmChanged
from softsgx.sim.events import Log

ENTRY_BYTES = 20
_ENTRY = struct.Struct("<IIQI")
_BLOCK = 1024  # pages per block of a large EPCM; the grain of its snapshots
_SMALL = 4096  # pages up to which the whole buffer is copied by a snapshot

EpcmImage = bytes | dict[int, tuple[bytes, bytes, bytes, bytes]]


class Epcm:
    """EPCM entries by EPC page number. Columns are indexed directly by hot code.

    Written only through `put`, `install` and `free`, which emit EpcmChanged.
    """

    __slots__ = (
        *("_buffer", "_touched", "address", "cause", "generation", "log", "pages", "secs"),
        *("stamp", "state"),
    )

    def __init__(self, pages: int, log: Log) -> None:
        self.pages = pages
        self.log = log
        self.generation = 0  # counts changes of entries; not part of the state
        self.cause: tuple[int, str] = (0, "")  # logical processor and leaf, for events
        # Block number -> None, in order of first use (a dict, for its order).
        self._touched: dict[int, None] = {}
        size = ENTRY_BYTES * pages
        self._buffer: bytearray | mmap.mmap
        if pages <= _SMALL:
            self._buffer = bytearray(size)
        else:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
            self._buffer = mmap.mmap(-1, size, flags=flags)
        view = memoryview(self._buffer)
        # The widest column first, so that each is aligned.
        self.address: memoryview[int] = view[: 8 * pages].cast("Q")
        self.state: memoryview[int] = view[8 * pages : 12 * pages].cast("I")
        self.secs: memoryview[int] = view[12 * pages : 16 * pages].cast("I")
        self.stamp: memoryview[int] = view[16 * pages :].cast("I")

    def put(self, page: int, word: int) -> None:
        """Change the packed word of a VALID entry."""
        if self.log.on and word != self.state[page]:
            self._changed(page, word)
        self.state[page] = word
        self.generation += 1

    def install(self, page: int, word: int, secs: int, address: int) -> None:
        """Make a free entry VALID with the given contents."""
        self._touched[page // _BLOCK] = None
        self.secs[page] = secs
        self.address[page] = address
        if self.log.on:
            self._changed(page, word)
        self.state[page] = word
        self.generation += 1

    def free(self, page: int) -> None:
        """VALID := 0."""
        if self.log.on:
            self._changed(page, 0)
        self.generation += 1
        self.state[page] = 0
        self.secs[page] = 0
        self.address[page] = 0
        self.stamp[page] = 0

    def _changed(self, page: int, word: int) -> None:
        lp, leaf = self.cause
        self.log.emit(
            EpcmChanged(lp, page, self.secs[page], self.address[page], self.state[page], word, leaf)
        )

    def touched_pages(self) -> list[int]:
        """EPC page numbers of all VALID entries, in ascending order."""
        found = []
        for block in sorted(self._touched):
            end = min((block + 1) * _BLOCK, self.pages)
            found += [p for p in range(block * _BLOCK, end) if self.state[p]]
        return found

    def snapshot(self) -> EpcmImage:
        """All entries; of a large EPCM only the blocks ever used."""
        if self.pages <= _SMALL:
            return bytes(self._buffer)
        return {block: self._columns(block) for block in self._touched}

    def restore(self, image: EpcmImage) -> None:
        """Go back to a snapshot."""
        if isinstance(image, bytes):
            self._buffer[:] = image
            return
        for block in self._touched:
            columns = image.get(block)
            a, b = block * _BLOCK, min((block + 1) * _BLOCK, self.pages)
            for column, data in zip(
                (self.address, self.state, self.secs, self.stamp),
                columns or (None,) * 4,
                strict=True,
            ):
                part = column[a:b].cast("B")
                part[:] = bytes(len(part)) if data is None else data

    def _columns(self, block: int) -> tuple[bytes, bytes, bytes, bytes]:
        a, b = block * _BLOCK, min((block + 1) * _BLOCK, self.pages)
        return (
            self.address[a:b].tobytes(),
            self.state[a:b].tobytes(),
            self.secs[a:b].tobytes(),
            self.stamp[a:b].tobytes(),
        )

    def digest_bytes(self) -> bytes:
        """The entries as bytes, for the fingerprint of the machine.

        A large EPCM lists its VALID entries, so that two machines agree however their blocks were
        touched.
        """
        if self.pages <= _SMALL:
            return bytes(self._buffer)
        return b"".join(
            page.to_bytes(4, "little")
            + _ENTRY.pack(self.state[page], self.secs[page], self.address[page], self.stamp[page])
            for page in self.touched_pages()
        )
