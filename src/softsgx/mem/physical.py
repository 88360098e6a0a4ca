"""Physical memory, sparse: a page costs nothing until it is written.

Ordinary RAM and the contents of EPC pages share one store; who may touch which is the access
check's business, not the store's. Pages are copied on write after a snapshot, so that a snapshot
costs a dictionary copy however much memory the machine has.
"""

from __future__ import annotations

from hashlib import blake2b

from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

Page = bytearray | bytes
MemoryImage = tuple[dict[int, Page], dict[int, int], int]

_ZERO_PAGE = bytes(PAGE_SIZE)


class PhysicalMemory:
    """Frames of 4 KiB by frame number (pfn). Unwritten frames read as zero.

    `frames` bounds what `alloc` hands out; EPC sections lie above it.
    """

    __slots__ = ("_digest", "_next", "_owned", "frames", "pages")

    def __init__(self, frames: int = 1 << 26) -> None:
        self.frames = frames
        self.pages: dict[int, Page] = {}
        # Frames that may be written in place; all others are shared with a snapshot.
        self._owned: set[int] = set()
        self._digest: dict[int, int] = {}
        self._next = 1  # frame 0 stays unused, so that a zero pfn is always a mistake

    def alloc(self, count: int = 1) -> int:
        """Take `count` consecutive frames of RAM, never given back; return the first pfn."""
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
            if page is None:
                return bytes(size)
            return bytes(page[offset : offset + size])
        head = PAGE_SIZE - offset
        return self.read(address, head) + self.read(address + head, size - head)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data` at physical `address`; may cross pages."""
        pfn, offset, size = address >> PAGE_SHIFT, address & PAGE_MASK, len(data)
        if offset + size > PAGE_SIZE:
            head = PAGE_SIZE - offset
            self.write(address, data[:head])
            self.write(address + head, data[head:])
            return
        if pfn in self._owned:
            page = self.pages[pfn]
        else:
            page = self.pages[pfn] = bytearray(self.pages.get(pfn, _ZERO_PAGE))
            self._owned.add(pfn)
        page[offset : offset + size] = data  # type: ignore[index]
        self._digest.pop(pfn, None)

    def read_page(self, pfn: int) -> bytes:
        """The 4096 bytes of a frame."""
        return bytes(self.pages.get(pfn, _ZERO_PAGE))

    def write_page(self, pfn: int, data: bytes | bytearray) -> None:
        """Replace the 4096 bytes of a frame."""
        assert len(data) == PAGE_SIZE
        self.pages[pfn] = bytearray(data)
        self._owned.add(pfn)
        self._digest.pop(pfn, None)

    def clear_page(self, pfn: int) -> None:
        """Zero a frame; it costs nothing again."""
        self.pages.pop(pfn, None)
        self._owned.discard(pfn)
        self._digest.pop(pfn, None)

    def page_digest(self, pfn: int) -> int:
        """A 64-bit digest of a frame, kept until the frame is written; 0 for an unwritten frame."""
        digest = self._digest.get(pfn)
        if digest is None:
            page = self.pages.get(pfn)
            if page is None:
                return 0
            raw = blake2b(page, digest_size=8).digest()
            digest = self._digest[pfn] = int.from_bytes(raw, "little")
        return digest

    def snapshot(self) -> MemoryImage:
        """All contents; pages are shared until one side writes."""
        self._owned.clear()
        return dict(self.pages), dict(self._digest), self._next

    def restore(self, image: MemoryImage) -> None:
        """Go back to a snapshot, any number of times."""
        pages, digests, self._next = image
        self.pages = dict(pages)
        self._digest = dict(digests)
        self._owned.clear()
