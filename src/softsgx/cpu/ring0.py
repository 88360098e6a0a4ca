"""Ring 0 without an operating system: operands in RAM, EPC pages, and the leaves of ENCLS."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from softsgx.cpu import measurement
from softsgx.cpu.fault import Status
from softsgx.cpu.lp import LogicalProcessor
from softsgx.cpu.processor import Processor
from softsgx.cpu.signature import development_key, sign
from softsgx.mem.pagetable import direct
from softsgx.spec import leaves
from softsgx.spec.bits import MASK32, MASK64, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import PT_VA, REG, VALID, R, W
from softsgx.spec.epcm import SECS as SECS_TYPE
from softsgx.spec.msr import IA32_SGXLEPUBKEYHASH
from softsgx.spec.paging import PAGEINFO, SECINFO
from softsgx.spec.secs import SECS
from softsgx.spec.sigstruct import (
    EINITTOKEN,
    SIGSTRUCT,
    SIGSTRUCT_EXPONENT,
    SIGSTRUCT_HEADER,
    SIGSTRUCT_HEADER2,
)


@dataclass
class Backing:
    """Where an evicted page lies: linear addresses of its RAM page and PCMD, and its LINADDR."""

    page: int
    pcmd: int
    linaddr: int = 0


class Ring0:
    """Ring 0 on one processor: scratch operands in RAM, EPC pages handed out in order.

    EPC pages are named by their number. `lp` arguments choose the logical processor, the first by
    default. Methods named after a leaf execute it and return its `Status` (None without RAX); those
    that need a fresh EPC page return its number.
    """

    def __init__(self, epc_pages: int = 64, *, processor: Processor | None = None, **options: Any):
        if processor is not None and options:
            raise TypeError(f"Bare: {', '.join(options)} is for a new processor, yet one is given")
        self.processor = processor or Processor(epc_pages, **options)
        memory = self.processor.memory
        base = memory.alloc(4) << PAGE_SHIFT
        self._pageinfo = base
        self._secinfo = base + 64
        self._token = base + 512
        self._source = base + PAGE_SIZE
        self._sigstruct = base + 2 * PAGE_SIZE
        self.rdinfo = direct(base + 1024)
        self._next = 0

    @property
    def lp(self) -> LogicalProcessor:
        """The first logical processor."""
        return self.processor.lps[0]

    def word(self, page: int) -> int:
        """The packed EPCM word of a page (`spec.epcm`)."""
        epcm = self.processor.epcm
        if not 0 <= page < epcm.pages:
            self.processor.epc.pfn(page)  # says which pages there are
        word: int = epcm.state[page]
        return word

    def free_page(self) -> int:
        """Number of an EPC page that is not VALID; pages are tried in order."""
        epcm = self.processor.epcm
        for first, end in ((self._next, epcm.pages), (0, self._next)):
            for page in range(first, end):
                if not epcm.state[page] & VALID:
                    self._next = page + 1
                    return page
        raise MemoryError(f"EPC: all {epcm.pages} pages are in use")

    def address(self, page: int) -> int:
        """The kernel's linear address of an EPC page."""
        return direct(self.processor.epc.physical(page))

    # Operands

    def pageinfo(
        self, *, linaddr: int = 0, srcpge: int = 0, secinfo: int = 0, secs: int = 0
    ) -> int:
        """Write a PAGEINFO to scratch memory; its linear address."""
        block = PAGEINFO(LINADDR=linaddr, SRCPGE=srcpge, SECINFO=secinfo, SECS=secs)
        self.processor.memory.write(self._pageinfo, block.pack())
        return direct(self._pageinfo)

    def secinfo(self, flags: int) -> int:
        """Write a SECINFO to scratch memory; its linear address."""
        self.processor.memory.write(self._secinfo, SECINFO(FLAGS=flags).pack())
        return direct(self._secinfo)

    def source(self, content: bytes) -> int:
        """Write a source page to scratch memory, padded with zeros; its linear address."""
        if len(content) > PAGE_SIZE:
            raise ValueError(f"content: {len(content)} bytes do not fit a page")
        self.processor.memory.write_page(
            self._source >> PAGE_SHIFT, content + bytes(PAGE_SIZE - len(content))
        )
        return direct(self._source)

    def sigstruct(self, secs: int, **fields: int | bytes) -> SIGSTRUCT:
        """A SIGSTRUCT for an enclave as it is now, signed with the development key."""
        live = self.processor.secs[secs]
        values: dict[str, int | bytes] = {
            "HEADER": SIGSTRUCT_HEADER,
            "HEADER2": SIGSTRUCT_HEADER2,
            "DATE": 0x20220304,
            "EXPONENT": SIGSTRUCT_EXPONENT,
            "MISCSELECT": live.MISCSELECT,
            "MISCMASK": MASK32,
            "CET_ATTRIBUTES": live.CET_ATTRIBUTES,
            "CET_ATTRIBUTES_MASK": 0xFF if self.processor.part.cet else 0,
            "ATTRIBUTES": live.ATTRIBUTES,
            "ATTRIBUTEMASK": MASK64,
            "XFRM": live.XFRM,
            "XFRMMASK": MASK64,
            "ENCLAVEHASH": measurement.running(live).digest(),
        }
        values.update(fields)
        return sign(SIGSTRUCT(**values), development_key())

    # ENCLS

    def ecreate(self, secs: SECS) -> int:
        """ECREATE; the EPC page of the new SECS."""
        page = self.free_page()
        info = self.pageinfo(srcpge=self.source(secs.pack()), secinfo=self.secinfo(SECS_TYPE))
        self.lp.encls(leaves.ECREATE, info, self.address(page))
        return page

    def eadd(self, secs: int, linaddr: int, content: bytes = b"", flags: int = REG | R | W) -> int:
        """EADD of a page with the given contents; its EPC page."""
        page = self.free_page()
        info = self.pageinfo(
            linaddr=linaddr,
            srcpge=self.source(content),
            secinfo=self.secinfo(flags),
            secs=self.address(secs),
        )
        self.lp.encls(leaves.EADD, info, self.address(page))
        return page

    def eextend(self, secs: int, page: int) -> None:
        """EEXTEND of all 16 chunks of a page."""
        rbx, rcx = self.address(secs), self.address(page)
        for chunk in range(0, PAGE_SIZE, 256):
            self.lp.encls(leaves.EEXTEND, rbx, rcx + chunk)

    def einit(self, secs: int, sig: SIGSTRUCT, token: EINITTOKEN | None = None) -> Status | None:
        """EINIT, with the hash MSRs set to the signer as Linux does when there is no token."""
        memory = self.processor.memory
        memory.write(self._sigstruct, sig.pack())
        memory.write(self._token, (token or EINITTOKEN()).pack())
        if token is None:
            signer = sha256(sig.MODULUS).digest()
            for number, msr in enumerate(IA32_SGXLEPUBKEYHASH):
                self.lp.wrmsr(msr, int.from_bytes(signer[8 * number : 8 * number + 8], "little"))
        rbx, rdx = direct(self._sigstruct), direct(self._token)
        return self.lp.encls(leaves.EINIT, rbx, self.address(secs), rdx)

    def eaug(self, secs: int, linaddr: int, flags: int = 0) -> int:
        """EAUG. `flags` is the SECINFO of a shadow-stack page. Returns the new EPC page."""
        page = self.free_page()
        secinfo = self.secinfo(flags) if flags else 0
        info = self.pageinfo(linaddr=linaddr, secinfo=secinfo, secs=self.address(secs))
        self.lp.encls(leaves.EAUG, info, self.address(page))
        return page

    def emodpr(self, page: int, rights: int, lp: LogicalProcessor | None = None) -> Status | None:
        """EMODPR with the given R, W, X."""
        return (lp or self.lp).encls(leaves.EMODPR, self.secinfo(rights), self.address(page))

    def emodt(self, page: int, page_type: int, lp: LogicalProcessor | None = None) -> Status | None:
        """EMODT to a page type of `spec.epcm` (TCS or TRIM)."""
        return (lp or self.lp).encls(leaves.EMODT, self.secinfo(page_type), self.address(page))

    def etrack(self, secs: int, lp: LogicalProcessor | None = None) -> Status | None:
        """ETRACK."""
        return (lp or self.lp).encls(leaves.ETRACK, 0, self.address(secs))

    def etrackc(self, page: int, lp: LogicalProcessor | None = None) -> Status | None:
        """ETRACKC."""
        return (lp or self.lp).encls(leaves.ETRACKC, 0, self.address(page))

    def eblock(self, page: int, lp: LogicalProcessor | None = None) -> Status | None:
        """EBLOCK."""
        return (lp or self.lp).encls(leaves.EBLOCK, 0, self.address(page))

    def eremove(self, page: int, lp: LogicalProcessor | None = None) -> Status | None:
        """EREMOVE."""
        return (lp or self.lp).encls(leaves.EREMOVE, 0, self.address(page))

    def epa(self) -> int:
        """EPA; the new version array page."""
        page = self.free_page()
        self.lp.encls(leaves.EPA, PT_VA, self.address(page))
        return page

    def backing(self) -> Backing:
        """RAM for one evicted page: a page and a PCMD."""
        frame = self.processor.memory.alloc(2) << PAGE_SHIFT
        return Backing(direct(frame), direct(frame + PAGE_SIZE))

    def ewb(self, page: int, va: int, slot: int, backing: Backing) -> Status | None:
        """EWB to `backing`, the version to slot number `slot` of VA page `va`."""
        info = self.pageinfo(srcpge=backing.page, secinfo=backing.pcmd)
        status = self.lp.encls(leaves.EWB, info, self.address(page), self.address(va) + 8 * slot)
        backing.linaddr = int.from_bytes(self.processor.memory.read(self._pageinfo, 8), "little")
        return status

    def eld(
        self,
        backing: Backing,
        va: int,
        slot: int,
        secs: int | None,
        *,
        leaf: int = leaves.ELDU,
        page: int | None = None,
    ) -> tuple[int, Status | None]:
        """ELDU, or another of the four, of a page that `ewb` evicted: EPC page and status."""
        page = self.free_page() if page is None else page
        info = self.pageinfo(
            linaddr=backing.linaddr,
            srcpge=backing.page,
            secinfo=backing.pcmd,
            secs=0 if secs is None else self.address(secs),
        )
        rdx = self.address(va) + 8 * slot
        return page, self.lp.encls(leaf, info, self.address(page), rdx)
