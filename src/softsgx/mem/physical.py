"""Physical memory, sparse: a page costs nothing until it is written.

Ordinary RAM and the contents of EPC pages share one store; the access check decides who may touch
which. Pages are copied on write after a snapshot, so that a snapshot costs a dictionary copy,
however much memory the machine has.
"""

from __future__ import annotations

from hashlib import blake2b

from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE

Page = bytearray | bytes
MemoryImage = tuple[dict[int, Page], dict[int, int], dict[int, None], int, int]


class PhysicalMemory:
    """Frames of 4 KiB by frame number (pfn). Unwritten frames read as zero.

    `frames` bounds what `alloc` hands out; EPC sections lie above it.
    """

    __slots__ = ("_digest", "_dirty", "_next", "_owned", "_sum", "frames", "pages")

    def __init__(self, frames: int = 1 << 26) -> None:
        self.frames = frames
        self.pages: dict[int, Page] = {}
        # Frames that may be written in place; all others are shared with a snapshot.
        self._owned: set[int] = set()
        # Digests of frames as they were last hashed, their XOR, and the frames written since.
        self._digest: dict[int, int] = {}
        self._sum = 0
        self._dirty: dict[int, None] = {}
        self._next = 1  # frame 0 stays unused, so that a zero pfn is always a mistake

    def alloc(self, count: int = 1) -> int:
        """Take `count` consecutive frames of RAM, for good; return the first pfn."""
        first = self._next
        if first + count > self.frames:
            raise MemoryError(f"physical memory: {count} frames asked, {self.frames - first} left")
        self._next = first + count
        return first

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes from physical `address`; may cross pages."""
        offset = address & PAGE_MASK
        if offset + size <= PAGE_SIZE:
            page = self.pages.get(address >> PAGE_SHIFT)
            if size == PAGE_SIZE:
                return ZERO_PAGE if page is None else bytes(page)
            if page is None:
                return bytes(size)
            return bytes(page[offset : offset + size])
        # Page by page, in a loop: the size has no bound.
        pieces, done = [], 0
        while done < size:
            at = address + done
            length = min(PAGE_SIZE - (at & PAGE_MASK), size - done)
            pieces.append(self.read(at, length))
            done += length
        return b"".join(pieces)

    def read_int(self, address: int, size: int) -> int:
        """`size` bytes inside one page as a little-endian integer: the fast way to a field."""
        page = self.pages.get(address >> PAGE_SHIFT)
        if page is None:
            return 0
        offset = address & PAGE_MASK
        return int.from_bytes(page[offset : offset + size], "little")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data` at physical `address`; may cross pages."""
        offset = address & PAGE_MASK
        end = offset + len(data)
        if end <= PAGE_SIZE:
            self.writable(address >> PAGE_SHIFT)[offset:end] = data
            return
        done, size = 0, len(data)
        while done < size:
            at = address + done
            length = min(PAGE_SIZE - (at & PAGE_MASK), size - done)
            self.write(at, data[done : done + length])
            done += length

    def writable(self, pfn: int) -> bytearray | memoryview:
        """The frame itself, to be changed in place at once and not to be kept."""
        self._dirty[pfn] = None
        if pfn in self._owned:
            return self.pages[pfn]  # type: ignore[return-value]
        page = self.pages[pfn] = bytearray(self.pages.get(pfn, ZERO_PAGE))
        self._owned.add(pfn)
        return page

    def page_view(self, pfn: int) -> Page:
        """The frame itself, not a copy: to be decoded at once, neither kept nor written."""
        return self.pages.get(pfn, ZERO_PAGE)

    def read_page(self, pfn: int) -> bytes:
        """The 4096 bytes of a frame."""
        return bytes(self.pages.get(pfn, ZERO_PAGE))

    def write_page(self, pfn: int, data: bytes | bytearray) -> None:
        """Replace the 4096 bytes of a frame. Bytes are kept as they are until the next write."""
        if data is ZERO_PAGE:
            self.clear_page(pfn)
            return
        assert len(data) == PAGE_SIZE
        self.pages[pfn] = bytes(data)
        self._owned.discard(pfn)
        self._dirty[pfn] = None

    def clear_page(self, pfn: int) -> None:
        """Zero a frame, and give back the memory that held it."""
        if self.pages.pop(pfn, None) is not None:
            self._owned.discard(pfn)
            self._dirty[pfn] = None

    def is_zero(self, pfn: int) -> bool:
        """Whether a frame holds nothing but zeros."""
        page = self.pages.get(pfn)
        return page is None or page == ZERO_PAGE

    def digest(self) -> int:
        """A 128-bit digest of all contents. Only frames written since the last call are hashed."""
        for pfn in self._dirty:
            old, new = self._digest.pop(pfn, 0), self.page_digest(pfn)
            self._sum ^= old ^ new
            if new:
                self._digest[pfn] = new
        self._dirty.clear()
        return self._sum

    def page_digest(self, pfn: int) -> int:
        """A 128-bit digest of one frame, in which its number counts; 0 for a frame of zeros."""
        page = self.pages.get(pfn)
        if page is None or page == ZERO_PAGE:
            return 0
        salt = pfn.to_bytes(8, "little")
        return int.from_bytes(blake2b(page, digest_size=16, salt=salt).digest(), "little")

    def snapshot(self) -> MemoryImage:
        """All contents; pages are shared until one side writes."""
        self._owned.clear()
        return dict(self.pages), dict(self._digest), dict(self._dirty), self._sum, self._next

    def restore(self, image: MemoryImage) -> None:
        """Go back to a snapshot, any number of times."""
        pages, digests, dirty, self._sum, self._next = image
        self.pages = dict(pages)
        self._digest = dict(digests)
        self._dirty = dict(dirty)
        self._owned.clear()
