"""Who may reach a shadow-stack page, and what a shadow-stack access may reach.

SDM 3A, 4.6 "Access Rights", 4.7 "Page-Fault Exceptions"; SDM 3D, 38.3 "Access-control
Requirements".
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import pytest

from softsgx.cpu import Fault, LogicalProcessor, Readings
from softsgx.cpu.bare import BareEnclave
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_NX, PTE_U, PTE_W
from softsgx.mem.tlb import (
    ABORT,
    FETCH,
    READ,
    SHADOW,
    SHADOW_READ,
    SHADOW_WRITE,
    WRITE,
    rights_text,
)
from softsgx.spec.bits import MASK64
from softsgx.spec.cet import SH_STK_EN
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    REG,
    RWX,
    SECS,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
)
from softsgx.spec.msr import CR4_CET
from softsgx.spec.translation import ACCESS_NAMES
from tests.cpu.cet_rig import DATA, FIRST_RW, REST_RW, SAVE, STACK, inside, machine, running
from tests.cpu.table import Expected, gp, pf

AT: Final = 0x120
OUTSIDE: Final = 0x50_0000
KINDS: Final = {name: kind for kind, name in ACCESS_NAMES.items()}
# Error code bits of each kind of access at CPL 3: U; W; I; SS.
PFEC: Final = {READ: 0x4, WRITE: 0x6, FETCH: 0x14, SHADOW_READ: 0x44, SHADOW_WRITE: 0x46}
SGX: Final = 0x8001
PRESENT: Final = 0x0001

Build = Callable[[], tuple[LogicalProcessor, int]]


def access(lp: LogicalProcessor, kind: int, address: int) -> None:
    """Make one access of 8 bytes."""
    if kind == READ:
        lp.load(address, 8)
    elif kind == WRITE:
        lp.store(address, bytes(8))
    elif kind == FETCH:
        lp.fetch(address, 8)
    elif kind == SHADOW_READ:
        lp.shadow_load(address)
    else:
        lp.shadow_store(address, 0)


def put(enclave: BareEnclave, address: int, word: int, pte: int) -> None:
    """Give the page at `address` this EPCM word; its PTE is present, for users, and `pte`."""
    processor = enclave.bare.processor
    processor.epcm.put(enclave.pages[address], word)
    processor.space.map(address, processor.epc.pfn(enclave.pages[address]), write=False)
    entry = processor.space.lookup(address) & ~PTE_NX | PTE_A | pte
    processor.space.set(address, entry)


def page(word: int, pte: int, *, at: int = DATA, readings: Readings | None = None) -> Build:
    """An access from inside to a page of this EPCM word, mapped with these PTE bits."""

    def build() -> tuple[LogicalProcessor, int]:
        enclave = running(readings=readings)
        put(enclave, at, word, pte)
        return inside(enclave), at + AT

    return build


def beside(pte: int | None) -> Build:
    """An access from inside to ordinary memory outside ELRANGE."""

    def build() -> tuple[LogicalProcessor, int]:
        enclave = running()
        space = enclave.bare.processor.space
        if pte is not None:
            space.map(OUTSIDE, 0x800, write=False)
            space.set(OUTSIDE, space.lookup(OUTSIDE) | PTE_A | pte)
        return inside(enclave), OUTSIDE + AT

    return build


MAPPED_SS: Final = PTE_D  # R/W = 0, D = 1
MAPPED_RW: Final = PTE_W | PTE_D
SHADOW_KINDS = ("shadow-stack load", "shadow-stack store")
NO_READ = Readings(shadow_stack_pages_readable=False)


class ShadowRow(NamedTuple):
    """Rule id, the state builder, the kind of access, the fault."""

    rule: str
    build: Build
    kind: str
    expected: Expected
    note: str


def row(rule: str, build: Build, kind: str, expected: Expected, note: str) -> ShadowRow:
    return ShadowRow(rule, build, kind, expected, f"{note} {kind}")


def name_of(row: ShadowRow) -> str:
    return f"{row.rule}-{row.note}"


def denied(kind: str, code: int, address: int = DATA + AT) -> Expected:
    return pf(address, code | PFEC[KINDS[kind]])


ROWS = [
    *(
        row("ACCESS.15", beside(pte), kind, gp(), note)
        for kind in SHADOW_KINDS
        for note, pte in (("shadow stack", MAPPED_SS), ("RW", MAPPED_RW), ("unmapped", None))
    ),
    *(
        row("ACCESS.16", page(word, MAPPED_SS), kind, denied(kind, SGX), note)
        for kind in SHADOW_KINDS
        for note, word in (("REG r--", VALID | REG | R), ("REG rwx", VALID | REG | RWX))
    ),
    *(
        row("ACCESS.17", page(VALID | flags, MAPPED_RW), kind, denied(kind, SGX), f"{flags:#x}")
        for kind in ("write", "fetch")
        for flags in (FIRST_RW, REST_RW)
    ),
    row(
        "ACCESS.17",
        page(VALID | FIRST_RW, MAPPED_SS, readings=NO_READ),
        "read",
        denied("read", SGX),
        "not readable",
    ),
    *(
        row("PAGING.07", page(VALID | FIRST_RW, pte), kind, denied(kind, PRESENT), note)
        for kind in SHADOW_KINDS
        for note, pte in (("R/W = 1", MAPPED_RW), ("D = 0", 0))
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_shadow_stack_access_is_refused(row: ShadowRow) -> None:
    lp, address = row.build()
    before, expected = dict(lp.tlb.entries), row.expected
    with pytest.raises(Fault) as caught:
        access(lp, KINDS[row.kind], address)
    fault = caught.value
    assert (fault.rule, fault.vector, fault.code) == (row.rule, expected.value, expected.code)
    assert fault.address == (expected.address or 0)
    assert lp.tlb.entries.items() <= before.items()


# The manual's table, restated: page type x how it is mapped x access -> allowed, or who refuses.
# Where paging refuses, it does so before the EPCM is asked.
TYPES = {
    "REG": VALID | REG | R | W,
    "SS_FIRST": VALID | FIRST_RW,
    "SS_REST": VALID | REST_RW,
    "TCS": VALID | TCS,
    "TRIM": VALID | TRIM,
    "SECS": VALID | SECS,
    "VA": VALID | VA,
}
MAPPINGS = {"rw": MAPPED_RW, "ss": MAPPED_SS, "ro": 0}
ALLOWED = {
    ("REG", "rw", "read"),
    ("REG", "rw", "write"),
    ("REG", "ss", "read"),
    ("REG", "ro", "read"),
    *((kind, how, "read") for kind in ("SS_FIRST", "SS_REST") for how in ("rw", "ss", "ro")),
    *((kind, "ss", name) for kind in ("SS_FIRST", "SS_REST") for name in SHADOW_KINDS),
}
PAGING_REFUSES = {
    ("ss", "write"),
    ("ro", "write"),
    *((how, name) for how in ("rw", "ro") for name in SHADOW_KINDS),
}


@pytest.mark.parametrize("kind", ACCESS_NAMES.values())
@pytest.mark.parametrize("how", MAPPINGS)
@pytest.mark.parametrize("page_type", TYPES)
def test_page_types_mappings_and_accesses(page_type: str, how: str, kind: str) -> None:
    lp, address = page(TYPES[page_type], MAPPINGS[how])()
    if (page_type, how, kind) in ALLOWED:
        access(lp, KINDS[kind], address)
        return
    with pytest.raises(Fault) as caught:
        access(lp, KINDS[kind], address)
    by_epcm = (how, kind) not in PAGING_REFUSES
    assert caught.value.code == PFEC[KINDS[kind]] | (SGX if by_epcm else PRESENT)
    assert caught.value.address == address


@pytest.mark.parametrize("flags", [FIRST_RW, REST_RW])
@pytest.mark.parametrize(
    ("rule", "state"), [("ACCESS.09", BLOCKED), ("ACCESS.10", PENDING), ("ACCESS.11", MODIFIED)]
)
def test_a_shadow_stack_page_must_be_in_use(rule: str, state: int, flags: int) -> None:
    for kind in (READ, SHADOW_READ, SHADOW_WRITE):
        lp, address = page(VALID | flags | state, MAPPED_SS)()
        with pytest.raises(Fault) as caught:
            access(lp, kind, address)
        assert (caught.value.rule, caught.value.code) == (rule, SGX | PFEC[kind])


def test_ordinary_paging_faults_tell_of_shadow_stack_accesses() -> None:
    enclave = running()
    lp, space = inside(enclave), enclave.bare.processor.space
    space.unmap(STACK)
    for kind in (SHADOW_READ, SHADOW_WRITE):
        with pytest.raises(Fault) as caught:
            access(lp, kind, STACK)
        assert (caught.value.rule, caught.value.code) == ("PAGING.01", PFEC[kind])
    enclave.map_shadow_stack(STACK, enclave.pages[STACK])
    space.set(STACK, space.lookup(STACK) & ~PTE_U)
    with pytest.raises(Fault) as caught:
        access(lp, SHADOW_READ, STACK)
    assert (caught.value.rule, caught.value.code) == ("PAGING.02", 0x45)


def test_a_call_and_a_return_on_the_stack_of_the_enclave() -> None:
    enclave = running()
    lp = inside(enclave)
    lp.ssp = STACK + 0x800
    lp.shadow_store(lp.ssp - 8, 0x1234)
    assert lp.shadow_load(lp.ssp - 8) == 0x1234
    assert lp.load(lp.ssp - 8, 8) == (0x1234).to_bytes(8, "little")
    entry = lp.tlb.entries[STACK >> 12]
    assert entry & SHADOW == SHADOW
    assert rights_text(entry) == "r--s"


def test_a_cached_translation_outlives_the_change_of_the_page_as_ever() -> None:
    """Rights of a shadow-stack page go where tracking has flushed them, not before."""
    enclave = running()
    lp = inside(enclave)
    lp.shadow_load(STACK)
    assert enclave.bare.emodt(enclave.pages[STACK], TRIM) == 0
    lp.shadow_store(STACK, 1)
    lp.interrupt()
    enclave.resume(lp)
    with pytest.raises(Fault, match=r"ACCESS\.06"):
        lp.shadow_load(STACK)


def test_a_narrower_cached_translation_faults_once() -> None:
    """As for ordinary accesses: a stale entry without the right may fault although a walk would not
    (SDM 3A, 4.10.4.3 "Optional Invalidation")."""
    enclave = running()
    lp, space = inside(enclave), enclave.bare.processor.space
    space.set(STACK, space.lookup(STACK) & ~PTE_D)
    lp.load(STACK, 1)
    space.set(STACK, space.lookup(STACK) | PTE_D)
    with pytest.raises(Fault, match=r"ACCESS\.13") as caught:
        lp.shadow_load(STACK)
    assert caught.value.code == 0x45
    lp.shadow_load(STACK)


def test_a_load_outside_elrange_does_not_open_the_way_to_a_shadow_stack_there() -> None:
    lp, address = beside(MAPPED_SS)()
    lp.load(address, 8)
    with pytest.raises(Fault, match=r"ACCESS\.15"):
        lp.shadow_load(address)


# Outside enclave mode only paging decides.


def host() -> tuple[LogicalProcessor, BareEnclave]:
    enclave = machine().enclave(cet=SH_STK_EN)
    lp = inside(enclave)
    lp.u_cet = SH_STK_EN
    return lp, enclave


def test_a_host_reaches_its_own_shadow_stack() -> None:
    lp, enclave = host()
    space = enclave.bare.processor.space
    space.map(OUTSIDE, 0x800, write=False)
    with pytest.raises(Fault, match=r"PAGING\.07"):
        lp.shadow_load(OUTSIDE)
    space.set(OUTSIDE, space.lookup(OUTSIDE) | PTE_D)
    lp.shadow_store(OUTSIDE, 7)
    assert lp.shadow_load(OUTSIDE) == 7
    with pytest.raises(Fault, match=r"PAGING\.03"):
        lp.store(OUTSIDE, b"x")


def test_enclave_pages_are_the_abort_page_to_a_host() -> None:
    lp, enclave = host()
    assert lp.shadow_load(STACK) == MASK64
    lp.shadow_store(STACK, 1)
    assert lp.tlb.entries[STACK >> 12] & ABORT
    enclave.enter(lp)
    assert lp.shadow_load(STACK) == 0


@pytest.mark.parametrize("state", ["SH_STK_EN = 0", "CR4.CET = 0"])
def test_without_a_shadow_stack_there_is_no_such_access(state: str) -> None:
    lp, _ = host()
    if state == "CR4.CET = 0":
        lp.cr4 &= ~CR4_CET
    else:
        lp.u_cet = 0
    with pytest.raises(RuntimeError, match="no shadow stack is in use"):
        lp.shadow_load(STACK)


def test_cr4_cet_decides_what_a_dirty_read_only_page_is() -> None:
    lp, enclave = host()
    space = enclave.bare.processor.space
    space.map(OUTSIDE, 0x800, write=False)
    space.set(OUTSIDE, space.lookup(OUTSIDE) | PTE_D)
    lp.cr4 &= ~CR4_CET
    lp.load(OUTSIDE, 1)
    assert not lp.tlb.entries[OUTSIDE >> 12] & SHADOW


@pytest.mark.parametrize("address", [STACK + 4, SAVE + 1])
def test_a_shadow_stack_access_is_aligned(address: int) -> None:
    with pytest.raises(ValueError, match="is aligned"):
        inside(running()).shadow_load(address)


def test_leaves_refuse_shadow_stack_pages_as_operands() -> None:
    """SECINFO, KEYREQUEST and their like lie in PT_REG pages."""
    enclave = running()
    lp = inside(enclave)
    for leaf in (5, 6, 7):
        with pytest.raises(Fault) as caught:
            lp.enclu(leaf, STACK, DATA, DATA)
        assert caught.value.address == STACK
        assert caught.value.code == 0x8005
