"""Builders for dynamic memory: one enclave of known layout, and spoilt conditions.

Kernel code runs on the first logical processor, enclave code on the second. The enclave has, from
BASE: a TCS, two SSA frames, SCRATCH for SECINFO operands, DATA and DATA2 (accepted, RW);
`augmented` adds HEAP (PENDING).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from softsgx.cpu import Bare, LogicalProcessor, Readings
from softsgx.cpu.bare import ENCLAVE_BASE, BareEnclave
from softsgx.cpu.epc import DEFAULT_EPC_BASE
from softsgx.mem.pagetable import PTE_A, PTE_D, direct
from softsgx.spec.attributes import ATTR_MODE64BIT, XFRM_LEGACY
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PT_MASK, TCS, R
from softsgx.spec.paging import SECINFO
from softsgx.spec.secs import SECS
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.cpu.table import Attempt, hold

BASE: Final = ENCLAVE_BASE
SSA: Final = BASE + 0x1000
SCRATCH: Final = BASE + 0x3000
DATA: Final = BASE + 0x4000
DATA2: Final = BASE + 0x5000
HEAP: Final = BASE + 0x6000
SIZE: Final = 1 << 20
END: Final = BASE + SIZE
OUTSIDE: Final = 0x50_0000  # a user address far from every enclave
RAM: Final = 0x80_0000  # a physical address of ordinary memory that nobody uses

# Error codes of a #PF that a leaf raises: KVM's for ENCLS, that of a CPL 3 access for ENCLU.
ENCLS_PFEC: Final = 0x8003
ENCLU_PFEC: Final = 0x8005
ENCLU_PFEC_W: Final = 0x8007

Spoil = Callable[[BareEnclave, int], None]


def built(*, epc_pages: int = 32, init: bool = True, **options: Any) -> BareEnclave:
    """An enclave nobody runs in. `options` are the processor's."""
    return Bare(epc_pages, **options).enclave(pages=2, threads=1, size=SIZE, init=init)


def running(**options: Any) -> BareEnclave:
    """An enclave with a thread inside on the second processor."""
    enclave = built(**options)
    enclave.enter(inside(enclave))
    return enclave


def augmented(**options: Any) -> BareEnclave:
    """A running enclave with a PENDING page at HEAP."""
    enclave = running(**options)
    enclave.eaug(HEAP)
    return enclave


def inside(enclave: BareEnclave) -> LogicalProcessor:
    """The processor that runs the enclave."""
    return enclave.bare.processor.lps[1]


def entry(enclave: BareEnclave, address: int) -> int:
    """The packed EPCM word of the page at a linear address."""
    return enclave.bare.word(enclave.pages[address])


def epc_address(page: int) -> int:
    """The kernel's linear address of an EPC page number, before any processor exists."""
    return direct(DEFAULT_EPC_BASE + page * PAGE_SIZE)


def reenter(enclave: BareEnclave) -> None:
    """The thread inside leaves by EEXIT and comes back: nothing stale is left in its TLB."""
    enclave.exit(inside(enclave))
    enclave.enter(inside(enclave))


def etrack(enclave: BareEnclave) -> None:
    """A whole tracking cycle: ETRACK, and the thread inside leaves and comes back."""
    assert enclave.bare.etrack(enclave.secs) == 0
    reenter(enclave)


def eaccept(enclave: BareEnclave, address: int, flags: int) -> int:
    """EACCEPT by the thread inside; RAX."""
    status = enclave.eaccept(address, flags, inside(enclave))
    assert status is not None
    return int(status)


# What can be wrong with the page at a linear address


def not_epc(enclave: BareEnclave, address: int) -> None:
    """The page tables lead to ordinary memory."""
    enclave.bare.processor.space.map(address, RAM >> PAGE_SHIFT, execute=True)


def unmapped(enclave: BareEnclave, address: int) -> None:
    """The page tables lead nowhere."""
    enclave.bare.processor.space.unmap(address)


def read_only(enclave: BareEnclave, address: int) -> None:
    """The page tables permit no write."""
    enclave.map(address, enclave.pages[address], write=False)


def word(value: int) -> Spoil:
    """The EPCM entry has exactly this packed word."""
    return lambda enclave, address: enclave.bare.processor.epcm.put(enclave.pages[address], value)


def changed(*, clear: int = 0, to: int = 0) -> Spoil:
    """The EPCM entry with some bits cleared, then others set."""

    def spoil(enclave: BareEnclave, address: int) -> None:
        word(entry(enclave, address) & ~clear | to)(enclave, address)

    return spoil


blocked: Final = changed(to=BLOCKED)
pending: Final = changed(to=PENDING)
modified: Final = changed(to=MODIFIED)
unreadable: Final = changed(clear=R)
a_tcs: Final = changed(clear=PT_MASK, to=TCS)


def free(enclave: BareEnclave, address: int) -> None:
    """VALID = 0."""
    enclave.bare.processor.epcm.free(enclave.pages[address])


def foreign(enclave: BareEnclave, address: int) -> None:
    """ENCLAVESECS is another enclave, of the same ELRANGE."""
    epcm, page = enclave.bare.processor.epcm, enclave.pages[address]
    other = enclave.bare.ecreate(
        SECS(
            SIZE_=SIZE,
            BASEADDR=BASE,
            SSAFRAMESIZE=1,
            ATTRIBUTES=ATTR_MODE64BIT,
            XFRM=XFRM_LEGACY,
        )
    )
    old, linear = epcm.state[page], epcm.address[page]
    epcm.free(page)
    epcm.install(page, old, other, linear)


def moved(enclave: BareEnclave, address: int) -> None:
    """ENCLAVEADDRESS is another address."""
    epcm, page = enclave.bare.processor.epcm, enclave.pages[address]
    old, secs, linear = epcm.state[page], epcm.secs[page], epcm.address[page]
    epcm.free(page)
    epcm.install(page, old, secs, linear + PAGE_SIZE)


def restricted(rights: int) -> Spoil:
    """EMODPR was executed; ETRACK was not."""

    def spoil(enclave: BareEnclave, address: int) -> None:
        assert enclave.bare.emodpr(enclave.pages[address], rights) == 0

    return spoil


def retyped(page_type: int) -> Spoil:
    """EMODT was executed; ETRACK was not."""

    def spoil(enclave: BareEnclave, address: int) -> None:
        assert enclave.bare.emodt(enclave.pages[address], page_type) == 0

    return spoil


def holding(content: bytes) -> Spoil:
    """The page has this content."""

    def spoil(enclave: BareEnclave, address: int) -> None:
        processor = enclave.bare.processor
        processor.memory.write(processor.epc.physical(enclave.pages[address]), content)

    return spoil


def thread_page(*, ragged: int = 0, **fields: int) -> Spoil:
    """A legal TCS but for `fields` and one byte at offset `ragged`, retyped and tracked."""

    def spoil(enclave: BareEnclave, address: int) -> None:
        values: dict[str, int | bytes] = {"OSSA": 0x1000, "NSSA": 1, "OENTRY": 0x100}
        values.update(fields)
        raw = bytearray(TCS_PAGE(**values).pack())
        if ragged:
            raw[ragged] = 1
        holding(bytes(raw))(enclave, address)
        retyped(TCS)(enclave, address)
        etrack(enclave)

    return spoil


def all_of(*spoils: Spoil) -> Spoil:
    """Several conditions at once, applied in order."""

    def spoil(enclave: BareEnclave, address: int) -> None:
        for one in spoils:
            one(enclave, address)

    return spoil


# The accepted, readable PT_REG page that every SECINFO and every source operand must lie in.
OPERAND_SPOILS: Final[Mapping[str, Spoil]] = {
    "VALID": free,
    "BLOCKED": blocked,
    "PENDING": pending,
    "MODIFIED": modified,
    "PT": a_tcs,
    "ENCLAVESECS": foreign,
    "ENCLAVEADDRESS": moved,
    "R": unreadable,
}


# Attempts


def user_leaf(
    leaf: int,
    flags: int,
    *,
    rbx: int = SCRATCH,
    rcx: int = HEAP,
    rdx: int = 0,
    tail: int = 0,
    spoil: Mapping[int, Spoil] | None = None,
    busy: tuple[int, int] | None = None,
    readings: Readings | None = None,
) -> Attempt:
    """An ENCLU leaf about to be executed inside, its SECINFO at SCRATCH.

    `tail`: a byte offset of the SECINFO that is not zero. `busy`: linear address and lock kind of a
    page that another leaf holds.
    """
    enclave = augmented(readings=readings or Readings())
    lp = inside(enclave)
    enclave.secinfo(flags, lp)
    if tail:
        lp.store(SCRATCH + tail, b"\x01")
    for address, apply in (spoil or {}).items():
        apply(enclave, address)
    if busy is not None:
        hold(enclave.bare, enclave.pages[busy[0]], busy[1])
    mark_used(enclave)
    return Attempt(lp, "enclu", leaf, rbx, rcx, rdx)


def system_leaf(
    leaf: int,
    flags: int,
    *,
    rbx_off: int = 0,
    rcx: int | None = None,
    rcx_off: int = 0,
    tail: int = 0,
    spoil: Spoil | None = None,
    busy: int | None = None,
    shared: bool = False,
    init: bool = True,
    readings: Readings | None = None,
) -> Attempt:
    """An ENCLS leaf about to be executed on the page at DATA of an enclave nobody runs in.

    `busy` is the lock kind of that page that another leaf holds, exclusively unless `shared`.
    """
    enclave = built(init=init, readings=readings or Readings())
    bare, page = enclave.bare, enclave.pages[DATA]
    if spoil is not None:
        spoil(enclave, DATA)
    if busy is not None:
        hold(bare, page, busy, exclusive=not shared)
    rbx = bare.secinfo(flags)
    if tail:
        bare.lp.system_write(rbx + tail, b"\x01")
    target = bare.address(page) if rcx is None else rcx
    return Attempt(bare.lp, "encls", leaf, rbx + rbx_off, target + rcx_off)


def secinfo_in_epc(leaf: int, flags: int) -> Attempt:
    """As `system_leaf`, but the SECINFO, legal as it is, lies in an EPC page."""
    attempt = system_leaf(leaf, flags)
    processor = attempt.lp.processor
    processor.memory.write(processor.epc.physical(20), SECINFO(FLAGS=flags).pack())
    return attempt._replace(rbx=epc_address(20))


def target(attempt: Attempt) -> int:
    """The EPC page number that RCX of an ENCLS leaf names."""
    return attempt.lp.system_epc_page(attempt.rcx)


def mark_used(enclave: BareEnclave) -> None:
    """Set A and D in every entry: a walk may set them even if the leaf then faults."""
    space = enclave.bare.processor.space
    for page, pte in list(space.ptes.items()):
        space.set(page << PAGE_SHIFT, pte | PTE_A | PTE_D)
