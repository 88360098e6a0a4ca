"""What the driver's state machine works on: a small machine, slots for threads, enclaves.

An `Enclave` is what the hosts know about one open /dev/sgx_enclave. `written` is what its pages
must hold; its key is the kernel's record of the page, so that a page that was removed and added
again counts as a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from softsgx.cpu.signature import development_key
from softsgx.image.image import NO_CHUNKS, EnclaveImage, Segment
from softsgx.image.sigstruct import sign
from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.linux.vfs import File
from softsgx.sim import Task
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import REG, RWX, TCS, R, W
from softsgx.spec.paging import SECINFO
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system import HostThread
from softsgx.system.host import EnclaveEntry

CPUS: Final = 4
ENCLAVES: Final = 3  # at most, at a time
THREADS: Final = 2
NSSA: Final = 2
DATA: Final = 4
HEAP: Final = 6  # pages of the hole that are used
SIZE: Final = 32 * PAGE_SIZE
# Where mremap moves areas of enclave number i: base + ALIAS.
ALIAS: Final = 0x1000_0000


def base_of(number: int) -> int:
    """ELRANGE of the enclaves: fixed, so that every process maps them at the same place."""
    return 0x10_0000_0000 * (1 + number)


@cache
def image() -> EnclaveImage:
    """Two threads, a page for operands of leaves, data pages with all relevant rights, a hole."""
    segments, at = [], 0
    for _ in range(THREADS):
        tcs = TCS_PAGE(OSSA=at + PAGE_SIZE, NSSA=NSSA, OENTRY=0).pack()
        segments.append(Segment(at, PAGE_SIZE, TCS, tcs, chunks=NO_CHUNKS, label="TCS"))
        at += PAGE_SIZE
        rights = REG | R | W
        segments.append(Segment(at, NSSA * PAGE_SIZE, rights, chunks=NO_CHUNKS, label="SSA"))
        at += NSSA * PAGE_SIZE
    segments.append(Segment(at, PAGE_SIZE, REG | R | W, chunks=NO_CHUNKS, label="scratch"))
    at += PAGE_SIZE
    content = bytes(range(256)) * 4
    for number, flags in ((DATA - 1, REG | RWX), (1, REG | R | W)):
        size = number * PAGE_SIZE
        chunks: dict[str, Any] = {} if number == 1 else {"chunks": NO_CHUNKS}
        segments.append(Segment(at, size, flags, content, label="data", **chunks))
        at += size
    return EnclaveImage(size=SIZE, segments=tuple(segments), attributes=ATTR_MODE64BIT | ATTR_DEBUG)


@cache
def sigstruct() -> bytes:
    """Signed once: the image is the same at every base."""
    return sign(image(), development_key()).pack()


def first_page(label: str) -> int:
    """Offset of the first segment of this label."""
    return next(s.offset for s in image().segments if s.label == label)


IMAGE_END: Final = max(segment.end for segment in image().segments)
PRIVATE_PAGES: Final = frozenset(
    offset
    for segment in image().segments
    if segment.label in ("TCS", "SSA", "scratch")
    for offset in range(segment.offset, segment.end, PAGE_SIZE)
)
"""Offsets of pages that the processor or the operands of leaves write: not compared."""


@dataclass(eq=False)
class Enclave:
    """One open /dev/sgx_enclave, at a fixed base: `number` says which."""

    number: int
    file: File
    encl: SgxEncl
    added: int = 0  # bytes of the image that ADD_PAGES has taken
    tcs: list[int] = field(default_factory=list)
    entries: dict[int, EnclaveEntry] = field(default_factory=dict)
    written: dict[SgxEnclPage, bytearray] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)  # addresses that REMOVE_PAGES was asked for
    hot: int = 0  # the page of the last ioctl, so that other moves collide with it
    leaked: int = 0  # references that a registration which ended in -EINTR did not give back
    torn: bool = False  # a type change failed between EMODT and the kernel's record (L5)

    @property
    def base(self) -> int:
        return base_of(self.number)

    @property
    def scratch(self) -> int:
        return self.base + first_page("scratch")

    @property
    def data(self) -> int:
        return self.base + first_page("data")

    @property
    def end(self) -> int:
        """The address after the part of the hole that is used."""
        return self.data + (DATA + HEAP) * PAGE_SIZE

    def secinfo_slot(self, tcs: int) -> int:
        """64 bytes in the scratch page, different for each TCS."""
        return self.scratch + (tcs - self.base) // PAGE_SIZE * SECINFO.SIZE


@dataclass(eq=False)
class Suspended:
    """A program that an exception stopped, and the run structure of its exit."""

    enclave: Enclave
    run: SgxEnclaveRun


@dataclass(eq=False)
class Slot:
    """A logical processor for one host thread at a time; `task` is what it does now."""

    cpu: int
    host: HostThread | None = None
    task: Task | None = None
    reserved: bool = False  # for the child of a fork that is in flight
