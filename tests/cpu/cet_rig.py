"""Builders for tests of CET: a part with it, an enclave with a shadow stack, leaves about to run.

The enclave that `building` and `running` give has, from BASE: a TCS, two SSA frames, SAVE (its CET
state save area, PT_SS_REST), STACK (its shadow stack, PT_SS_FIRST), SCRATCH, DATA; HEAP is free.
"""

from typing import Any, Final

from softsgx.cpu import Bare, LogicalProcessor, Part, Readings
from softsgx.cpu.bare import ENCLAVE_BASE, BareEnclave
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_W
from softsgx.spec.attributes import ATTR_CET, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.cet import ENDBR_EN, SH_STK_EN
from softsgx.spec.epcm import SECS, SS_FIRST, SS_REST, R, W
from softsgx.spec.leaves import EACCEPT, EADD, EAUG, ECREATE
from softsgx.spec.msr import CR4_CET
from softsgx.spec.secs import SECS as SECS_PAGE
from tests.cpu.table import Attempt

CET: Final = Part(cet=True)
BASE: Final = ENCLAVE_BASE
SIZE: Final = 1 << 20
SAVE: Final = BASE + 3 * PAGE_SIZE
STACK: Final = BASE + 4 * PAGE_SIZE
SCRATCH: Final = BASE + 5 * PAGE_SIZE
DATA: Final = BASE + 6 * PAGE_SIZE
HEAP: Final = BASE + 7 * PAGE_SIZE
LAST: Final = BASE + SIZE - PAGE_SIZE
BOTH: Final = SH_STK_EN | ENDBR_EN
FIRST_RW: Final = SS_FIRST | R | W
REST_RW: Final = SS_REST | R | W
TOKEN_AT: Final = PAGE_SIZE - 8


def machine(readings: Readings | None = None, part: Part = CET) -> Bare:
    """A processor with CET, nothing in its EPC."""
    return Bare(64, part=part, readings=readings or Readings())


def building(cet: int = BOTH, **options: Any) -> BareEnclave:
    """An enclave that is being built on a part with CET."""
    return machine(options.pop("readings", None)).enclave(cet=cet, init=False, **options)


def running(cet: int = BOTH, **options: Any) -> BareEnclave:
    """An enclave with a thread inside, on the second processor; the first is the kernel's."""
    enclave = machine(options.pop("readings", None)).enclave(cet=cet, **options)
    enclave.enter(inside(enclave))
    return enclave


def inside(enclave: BareEnclave) -> LogicalProcessor:
    """The processor that runs the enclave."""
    return enclave.bare.processor.lps[1]


def token(linaddr: int, wide: bool = True) -> bytes:
    """A PT_SS_FIRST page as it must be added at `linaddr`."""
    return bytes(TOKEN_AT) + (linaddr + PAGE_SIZE | wide).to_bytes(8, "little")


def without_cr4(lp: LogicalProcessor) -> None:
    """CR4.CET := 0."""
    lp.cr4 &= ~CR4_CET


def settle(bare: Bare) -> None:
    """Set A in all entries, and D in those a write may go through: a fault may leave those."""
    space = bare.processor.space
    for page, pte in list(space.ptes.items()):
        space.set(page << PAGE_SHIFT, pte | PTE_A | (PTE_D if pte & PTE_W else 0))


def ecreate(*, part: Part = CET, **fields: int) -> Attempt:
    """ECREATE of a SECS with CET, or with these fields instead."""
    bare = machine(part=part)
    values: dict[str, int | bytes] = {
        "SIZE_": SIZE,
        "BASEADDR": BASE,
        "SSAFRAMESIZE": 1,
        "ATTRIBUTES": ATTR_MODE64BIT | ATTR_CET,
        "CET_ATTRIBUTES": SH_STK_EN,
        "XFRM": 3,
    }
    values.update(fields)
    source = bare.source(SECS_PAGE(**values).pack())
    info = bare.pageinfo(srcpge=source, secinfo=bare.secinfo(SECS))
    return Attempt(bare.lp, "encls", ECREATE, info, bare.address(bare.free_page()))


def eadd(
    flags: int = FIRST_RW,
    content: bytes | None = None,
    linaddr: int = HEAP,
    *,
    cr4: bool = True,
    part: Part = CET,
    wide: bool = True,
    init: bool = False,
) -> Attempt:
    """EADD of a page, by default a PT_SS_FIRST page as it must be."""
    base = BASE if wide else 0x1000_0000
    bare = machine(part=part)
    attributes = ATTR_MODE64BIT if wide else 0
    limits: dict[str, int | bytes] = {"FSLIMIT": 0xFFF, "GSLIMIT": 0xFFF}
    enclave = bare.enclave(base=base, attributes=attributes, init=init, tcs=limits)
    linaddr = linaddr if wide else linaddr - BASE + base
    if content is None:
        content = token(linaddr, wide) if flags & 0xFF00 == SS_FIRST else b""
    if not cr4:
        without_cr4(bare.lp)
    info = bare.pageinfo(
        linaddr=linaddr,
        srcpge=bare.source(content),
        secinfo=bare.secinfo(flags),
        secs=bare.address(enclave.secs),
    )
    return Attempt(bare.lp, "encls", EADD, info, bare.address(bare.free_page()))


def eaug(
    flags: int = FIRST_RW, linaddr: int = HEAP, *, cr4: bool = True, part: Part = CET
) -> Attempt:
    """EAUG of a shadow-stack page."""
    bare = machine(part=part)
    enclave = bare.enclave()
    if not cr4:
        without_cr4(bare.lp)
    secinfo, secs = bare.secinfo(flags), bare.address(enclave.secs)
    info = bare.pageinfo(linaddr=linaddr, secinfo=secinfo, secs=secs)
    return Attempt(bare.lp, "encls", EAUG, info, bare.address(bare.free_page()))


def eaccept(flags: int, kind: int = FIRST_RW, *, part: Part = CET) -> Attempt:
    """EACCEPT with this SECINFO of a page at HEAP that EAUG added with SECINFO `kind`."""
    bare = machine(part=part)
    enclave = bare.enclave()
    enclave.eaug(HEAP_OF_PLAIN, kind)
    enclave.enter()
    rbx = enclave.secinfo(flags)
    settle(bare)
    return Attempt(bare.lp, "enclu", EACCEPT, rbx, HEAP_OF_PLAIN)


HEAP_OF_PLAIN: Final = BASE + 5 * PAGE_SIZE  # an enclave without CET_ATTRIBUTES is smaller
