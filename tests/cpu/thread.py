"""Builders for tests of entry and exit: a thread of an enclave, its TCS and its SSA frames."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from softsgx.cpu import Bare, LogicalProcessor, Part, Readings
from softsgx.cpu.bare import AEP, ENCLAVE_BASE, BareEnclave
from softsgx.mem.pagetable import PTE_A, PTE_D
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_DEBUG, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.leaves import EDBGWR, EDECCSSA, EENTER, ERESUME
from softsgx.spec.msr import RFLAGS_FIXED, RFLAGS_IF
from softsgx.spec.registers import RIP, RSP
from softsgx.spec.secs import SECS
from softsgx.spec.ssa import EXINFO, GPRSGX
from softsgx.spec.tcs import TCS, TCS_AEXNOTIFY, TCS_OFF_FLAGS
from tests.cpu.table import Attempt

ENCLU_PFEC = 0x8005
ENCLU_PFEC_W = 0x8007
NON_CANONICAL = 1 << 47
OUTSIDE_RIP = 0x40_0FF0
OUTSIDE_RSP = 0x7FFF_0000_1000
DEBUG_64 = ATTR_MODE64BIT | ATTR_DEBUG
NOTIFY_64 = DEBUG_64 | ATTR_AEXNOTIFY


@dataclass
class Thread:
    """One thread of one enclave, and the operands of the leaf it is about to execute."""

    bare: Bare
    enclave: BareEnclave
    leaf: int = 0
    rbx: int = 0
    rcx: int = AEP
    frame_pages: int = 1  # pages of one SSA frame
    foreign: int = -1  # EPC page of another enclave, for the address of SSA frame 0

    @property
    def lp(self) -> LogicalProcessor:
        """The logical processor the thread runs on."""
        return self.bare.lp

    @property
    def other(self) -> LogicalProcessor:
        """The second logical processor: a kernel, a debugger, a rival."""
        return self.bare.processor.lps[1]

    @property
    def tcs_address(self) -> int:
        """Linear address of the TCS."""
        return self.enclave.tcs[0]

    @property
    def tcs_page(self) -> int:
        """EPC page of the TCS."""
        return self.enclave.pages[self.tcs_address]

    @property
    def tcs(self) -> TCS:
        """The TCS as it is now."""
        return TCS.unpack(self._page(self.tcs_address))

    @property
    def registers(self) -> list[int]:
        """RAX..R15 in the order of `spec.registers`, then RFLAGS and RIP."""
        return self.lp.regs[:]

    def set_tcs(self, **fields: int) -> None:
        """Change fields of the TCS, as if it had been added that way."""
        self._write(self.tcs_address, 0, self.tcs.replace(**fields).pack())

    def opt_in(self, flags: int = 1) -> None:
        """TCS.FLAGS by EDBGWR, as a debugger sets DBGOPTIN."""
        at = self.bare.address(self.tcs_page) + TCS_OFF_FLAGS
        assert self.other.encls(EDBGWR, flags, at) == 0

    def frame(self, index: int = 0, page: int = 0) -> int:
        """Linear address of a page of SSA frame `index`."""
        first = self.tcs_address + PAGE_SIZE
        return first + (index * self.frame_pages + page) * PAGE_SIZE

    def frame_page(self, index: int = 0, page: int = 0) -> int:
        """EPC page of a page of SSA frame `index`."""
        return self.enclave.pages[self.frame(index, page)]

    def ssa(self, index: int = 0) -> bytes:
        """All bytes of SSA frame `index`."""
        pages = range(self.frame_pages)
        return b"".join(self._page(self.frame(index, page)) for page in pages)

    def set_ssa(self, offset: int, data: bytes, index: int = 0) -> None:
        """Write into SSA frame `index`, inside one page; a negative offset counts from its end."""
        at = offset % (self.frame_pages * PAGE_SIZE)
        self._write(self.frame(index, at // PAGE_SIZE), at % PAGE_SIZE, data)

    def gpr(self, index: int = 0) -> GPRSGX:
        """GPRSGX of SSA frame `index`."""
        return GPRSGX.unpack(self.ssa(index)[-GPRSGX.SIZE :])

    def set_gpr(self, index: int = 0, **fields: int) -> None:
        """Change fields of GPRSGX of SSA frame `index`."""
        self.set_ssa(-GPRSGX.SIZE, self.gpr(index).replace(**fields).pack(), index)

    def exinfo(self, index: int = 0) -> EXINFO:
        """EXINFO of SSA frame `index`."""
        return EXINFO.unpack(self.ssa(index)[-GPRSGX.SIZE - EXINFO.SIZE : -GPRSGX.SIZE])

    def map(self, address: int, page: int) -> None:
        """Let the page tables lead from `address` to an EPC page."""
        processor = self.bare.processor
        processor.space.map(address, processor.epc.pfn(page), execute=True)

    def map_ram(self, address: int) -> None:
        """Let the page tables lead from `address` to ordinary memory."""
        processor = self.bare.processor
        processor.space.map(address, processor.memory.alloc(), execute=True)

    def enter(self) -> None:
        """EENTER."""
        self.enclave.enter()

    def resume(self) -> None:
        """ERESUME."""
        self.enclave.resume()

    def exit(self) -> None:
        """EEXIT."""
        self.enclave.exit()

    def attempt(self) -> Attempt:
        """The leaf about to be executed. A and D bits are set already: a fault may leave those."""
        space = self.bare.processor.space
        for page, pte in list(space.ptes.items()):
            space.set(page << PAGE_SHIFT, pte | PTE_A | PTE_D)
        return Attempt(self.lp, "enclu", self.leaf, self.rbx, self.rcx)

    def _page(self, address: int) -> bytes:
        processor = self.bare.processor
        return processor.memory.read_page(processor.epc.pfn(self.enclave.pages[address]))

    def _write(self, address: int, offset: int, data: bytes) -> None:
        processor = self.bare.processor
        physical = processor.epc.physical(self.enclave.pages[address])
        processor.memory.write(physical + offset, data)


def thread(
    *,
    frames: int = 2,
    frame_pages: int = 1,
    part: Part | None = None,
    readings: Readings | None = None,
    tcs: dict[str, int | bytes] | None = None,
    **options: Any,
) -> Thread:
    """A thread outside its enclave, with `frames` SSA frames of `frame_pages` pages each."""
    bare = Bare(64, part=part or Part(), readings=readings or Readings())
    enclave = bare.enclave(
        nssa=frames * frame_pages,
        secs={"SSAFRAMESIZE": frame_pages, **options.pop("secs", {})},
        tcs={"NSSA": frames, **(tcs or {})},
        **options,
    )
    rival = SECS(SIZE_=1 << 20, BASEADDR=ENCLAVE_BASE, SSAFRAMESIZE=1, ATTRIBUTES=DEBUG_64, XFRM=3)
    foreign = bare.eadd(bare.ecreate(rival), ENCLAVE_BASE + PAGE_SIZE)
    lp = bare.lp
    lp.regs[RIP], lp.regs[RSP] = OUTSIDE_RIP, OUTSIDE_RSP
    return Thread(bare, enclave, frame_pages=frame_pages, foreign=foreign)


def notifying(*, handled: bool = True, **options: Any) -> Thread:
    """A thread of an enclave with AEX-Notify, interrupted once; `handled`: it asks for a notice."""
    tcs = {"FLAGS": TCS_AEXNOTIFY, **options.pop("tcs", {})}
    t = thread(attributes=NOTIFY_64, tcs=tcs, **options)
    t.enter()
    t.lp.interrupt()
    t.set_gpr(AEXNOTIFY=int(handled))
    return t


def before(leaf: int, make: Callable[[], Thread] = thread) -> Thread:
    """A thread that could execute EENTER, ERESUME or EDECCSSA; each of them uses SSA frame 0."""
    t = make()
    t.leaf, t.rbx = leaf, t.tcs_address
    if leaf != EENTER and t.tcs.CSSA == 0:
        t.enter()
        t.lp.interrupt()
    if leaf == EDECCSSA:
        t.enter()
        t.rbx = t.rcx = 0
    return t


@cache
def _kept(leaf: int, make: Callable[[], Thread]) -> tuple[Thread, Any]:
    t = before(leaf, make)
    return t, t.bare.processor.snapshot()


def kept(leaf: int, make: Callable[[], Thread] = thread) -> Thread:
    """The same as `before`, built once and put back: for tables of many rows."""
    t, image = _kept(leaf, make)
    t.bare.processor.restore(image)
    return replace(t)


def outside(lp: LogicalProcessor, *, flags: int = 0, first: int = 0x100) -> list[int]:
    """Fill all registers of a program outside with different values; the values."""
    regs = [first + number for number in range(16)]
    regs[RSP] = OUTSIDE_RSP
    lp.regs[:] = [*regs, RFLAGS_FIXED | RFLAGS_IF | flags, OUTSIDE_RIP]
    lp.fsbase, lp.gsbase = 0x7000_0000_1000, 0x7000_0000_2000
    return lp.regs[:]


def name(leaf: int) -> str:
    """The name of one of the three leaves, for ids."""
    return {EENTER: "EENTER", ERESUME: "ERESUME", EDECCSSA: "EDECCSSA"}[leaf]
