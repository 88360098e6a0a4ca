"""What the operations act on: enclaves at fixed places, and user memory at fixed places."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from softsgx.cpu.signature import development_key
from softsgx.image.image import NO_CHUNKS, EnclaveImage, Segment
from softsgx.image.sigstruct import sign
from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import REG, RWX, TCS, R, W
from softsgx.spec.paging import SECINFO
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system import HostThread
from tests.differential.operations import BIG_PAGES, PAGES, VA_SLOTS

if TYPE_CHECKING:
    from softsgx.linux.mm import Mm
    from softsgx.sim import Steps

SIZE: Final = PAGES * PAGE_SIZE
TCS_PAGES: Final = (0, 3)
SCRATCH: Final = 6
DATA: Final = 7
READ_ONLY: Final = 11
HOLE: Final = 12
# Where mremap moves areas to.
ALIAS: Final = 0x1000_0000

# User memory of each process: arguments (two pages), contents of pages, a page that can only be
# read, a page without rights; then nothing.
USER: Final = 0x70_0000_0000
ARGUMENT: Final = USER
SOURCE: Final = USER + 2 * PAGE_SIZE
SOURCE_PAGES: Final = 8
SECRET: Final = SOURCE + SOURCE_PAGES * PAGE_SIZE  # SIGSTRUCT, SECS, SECINFO
CONST: Final = SECRET + 2 * PAGE_SIZE
NOTHING: Final = CONST + PAGE_SIZE
ABSENT: Final = NOTHING + PAGE_SIZE


def base_of(number: int) -> int:
    """ELRANGE of the enclave with a number."""
    return 0x10_0000_0000 * (1 + number)


@cache
def image(big: bool) -> EnclaveImage:
    """Two threads, a page for operands of leaves, data pages with different rights, a hole.

    A big one has so many pages more that a few in the hole need another VA page.
    """
    segments = []
    for page in TCS_PAGES:
        at = page * PAGE_SIZE
        tcs = TCS_PAGE(OSSA=at + PAGE_SIZE, NSSA=2, OENTRY=0).pack()
        segments.append(Segment(at, PAGE_SIZE, TCS, tcs, chunks=NO_CHUNKS))
        frames = 2 * PAGE_SIZE
        segments.append(Segment(at + PAGE_SIZE, frames, REG | R | W, chunks=NO_CHUNKS))
    content = bytes(range(256)) * 4
    for page, count, flags, measured in (
        (SCRATCH, 1, REG | R | W, False),
        (DATA, 3, REG | RWX, False),
        (DATA + 3, 1, REG | R | W, True),
        (READ_ONLY, 1, REG | R, False),
    ):
        chunks: dict[str, Any] = {} if measured else {"chunks": NO_CHUNKS}
        at, size = page * PAGE_SIZE, count * PAGE_SIZE
        segments.append(Segment(at, size, flags, content, **chunks))
    size = SIZE
    if big:
        more = (VA_SLOTS - HOLE - 3) * PAGE_SIZE
        segments.append(Segment(SIZE, more, REG | R | W, chunks=NO_CHUNKS))
        size = BIG_PAGES * PAGE_SIZE
    return EnclaveImage(size=size, segments=tuple(segments), attributes=ATTR_MODE64BIT | ATTR_DEBUG)


@cache
def sigstruct(big: bool) -> bytes:
    """Signed once: the image is the same at every base."""
    return sign(image(big), development_key()).pack()


@cache
def secs(number: int, big: bool) -> bytes:
    """The SECS page of an enclave."""
    return image(big).secs(base_of(number)).pack()


@cache
def secinfo(flags: int) -> bytes:
    """A SECINFO."""
    return SECINFO(FLAGS=flags).pack()


def furnish(host: HostThread) -> Steps[None]:
    """Map the user memory of a process, all of it present."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
    both = PROT_READ | PROT_WRITE
    assert (yield from host.mmap(USER, CONST - USER, both, flags)) == USER
    assert (yield from host.mmap(CONST, PAGE_SIZE, both, flags)) == CONST
    for page in range(USER, NOTHING, PAGE_SIZE):
        yield from host.store(page, b"\0")
    assert not (yield from host.mprotect(CONST, PAGE_SIZE, PROT_READ))
    assert (yield from host.mmap(NOTHING, PAGE_SIZE, PROT_NONE, flags)) == NOTHING


def put(mm: Mm, address: int, data: bytes) -> None:
    """Write to user memory that is present, as the program did before."""
    memory = mm.kernel.processor.memory
    while data:
        pte = mm.space.lookup(address)
        length = min(len(data), PAGE_SIZE - (address & PAGE_MASK))
        if pte & PTE_PFN_MASK:
            memory.write(pte & PTE_PFN_MASK | address & PAGE_MASK, data[:length])
        address += length
        data = data[length:]


def get(mm: Mm, address: int, size: int) -> bytes:
    """Read user memory that is present."""
    memory, found = mm.kernel.processor.memory, b""
    while size:
        pte = mm.space.lookup(address)
        length = min(size, PAGE_SIZE - (address & PAGE_MASK))
        if pte & PTE_PFN_MASK:
            found += memory.read(pte & PTE_PFN_MASK | address & PAGE_MASK, length)
        address += length
        size -= length
    return found
