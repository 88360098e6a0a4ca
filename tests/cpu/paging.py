"""Builders for tests of paging: block, track, evict, reload; leaves held open; what changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from softsgx.cpu import Bare, LogicalProcessor, Readings, Status
from softsgx.cpu.bare import Backing, BareEnclave
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    REG,
    RWX,
    TCS,
    TRIM,
    VALID,
    R,
    W,
    child_type,
)
from softsgx.spec.leaves import ELDU

ENCLS_PFEC = 0x8003
T = TypeVar("T")

# EPCM words of pages that have a parent, in every state that leaves can bring about.
CHILD_WORDS = [
    *(VALID | REG | rights for rights in (0, R, R | W, RWX)),
    VALID | REG | R | W | PENDING,
    VALID | REG | R | PR,
    VALID | TCS,
    VALID | TCS | MODIFIED,
    VALID | TRIM | MODIFIED,
    VALID | TRIM,
]


@dataclass
class Paged:
    """A machine, an enclave on it, and a VA page."""

    bare: Bare
    enclave: BareEnclave
    va: int

    @property
    def page(self) -> int:
        """The EPC page of the first data page."""
        return self.enclave.pages[self.enclave.data[0]]

    def word(self, page: int, word: int) -> int:
        """Replace the EPCM word of a page; the page."""
        self.bare.processor.epcm.put(page, word)
        return page

    def content(self, page: int) -> bytes:
        """What an EPC page holds."""
        processor = self.bare.processor
        return processor.memory.read_page(processor.epc.pfn(page))

    def fill(self, page: int, content: bytes) -> None:
        """Give an EPC page contents, as if its enclave had written them."""
        processor = self.bare.processor
        processor.memory.write_page(processor.epc.pfn(page), content)

    def slot(self, slot: int, va: int | None = None) -> int:
        """The version in a slot."""
        page = self.va if va is None else va
        return int.from_bytes(self.content(page)[8 * slot : 8 * slot + 8], "little")

    def block_and_track(self, page: int) -> None:
        """EBLOCK of a child page, then ETRACK of its enclave."""
        processor = self.bare.processor
        if not self.bare.word(page) & BLOCKED:
            assert self.bare.eblock(page) == 0
        assert self.bare.etrack(processor.epcm.secs[page]) == 0

    def evict(self, page: int, slot: int = 0, va: int | None = None) -> Backing:
        """EWB; a child page is blocked and tracked before."""
        if child_type(self.bare.word(page)):
            self.block_and_track(page)
        backing = self.bare.backing()
        assert self.bare.ewb(page, self.va if va is None else va, slot, backing) == 0
        return backing

    def load(
        self, backing: Backing, slot: int = 0, secs: int | None = -1, leaf: int = ELDU
    ) -> tuple[int, Status | None]:
        """ELD as a page of the enclave (or of `secs`; None for SECS and VA pages)."""
        parent = self.enclave.secs if secs == -1 else secs
        return self.bare.eld(backing, self.va, slot, parent, leaf=leaf)


def paged(
    *,
    init: bool = False,
    lps: int = 2,
    pages: int = 1,
    threads: int = 1,
    readings: Readings | None = None,
) -> Paged:
    """A machine with one enclave and one VA page."""
    bare = Bare(48, lps=lps, readings=readings or Readings())
    enclave = bare.enclave(pages=pages, threads=threads, init=init)
    return Paged(bare, enclave, bare.epa())


def ram(bare: Bare, address: int, size: int) -> bytes:
    """What ordinary memory holds at a linear address of the kernel."""
    return bare.lp.system_read(address, size)


def poke(bare: Bare, address: int, data: bytes) -> None:
    """Write ordinary memory at a linear address of the kernel."""
    bare.lp.system_write(address, data)


def flip(bare: Bare, address: int, bit: int) -> None:
    """Flip one bit of ordinary memory; bits count from `address` upwards."""
    at = address + bit // 8
    poke(bare, at, bytes([ram(bare, at, 1)[0] ^ 1 << bit % 8]))


def pattern(seed: int) -> bytes:
    """A page in which no two quadwords are equal."""
    return b"".join((seed << 32 | n).to_bytes(8, "little") for n in range(PAGE_SIZE // 8))


def beside_registers(lp: LogicalProcessor) -> int:
    """The fingerprint of the machine without the general registers of `lp`."""
    regs = lp.regs[:]
    lp.regs[:] = [0] * len(regs)
    fingerprint = lp.processor.fingerprint()
    lp.regs[:] = regs
    return fingerprint


def hold_open(steps: Steps[T]) -> Callable[[], T]:
    """Run a leaf to the point before its body; the returned function lets it finish."""
    next(steps)

    def finish() -> T:
        try:
            next(steps)
        except StopIteration as stop:
            value: T = stop.value
            return value
        raise AssertionError("the leaf yielded twice")

    return finish
