"""What can be wrong when a thread enters: on the TCS, the machine, the SSA frame, the bases.

Each list is in the order of the operation listings. The leaves differ only in the tests on the
EPCM entry of the TCS, where ERESUME looks at PENDING and MODIFIED before address and type.
"""

from collections.abc import Callable

from softsgx.cpu.bare import ENCLAVE_BASE
from softsgx.spec.attributes import ATTR_INIT, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import BLOCKED, MODIFIED, PENDING, PT_MASK, REG, TRIM, VALID, R, W
from softsgx.spec.leaves import EDECCSSA, EENTER, ERESUME
from softsgx.spec.msr import CR4_OSFXSR, CR4_OSXSAVE
from softsgx.spec.tcs import TCS_ACTIVE, TCS_AEXNOTIFY
from tests.cpu.spoil import Spoil, Trials
from tests.cpu.table import Expected, gp, hold, pf
from tests.cpu.thread import ENCLU_PFEC_W, NON_CANONICAL, Thread, kept, name, thread

ThreadSpoil = Spoil[Thread]
Change = Callable[[Thread], None]
UNALIGNED = 0x800


def trials(leaf: int, make: Callable[[], Thread] = thread) -> Trials[Thread]:
    """Trials of one leaf, each on a fresh copy of the same thread."""
    return Trials(lambda: kept(leaf, make), lambda t: t.attempt())


def gp_at(rule: str, aspects: str, change: Change, note: str = "") -> ThreadSpoil:
    """A change that makes `rule` refuse with #GP(0)."""
    return Spoil(rule, aspects, change, gp(), note)


def tcs_or(field: str, bits: int) -> Change:
    """Set bits of a field of the TCS."""
    return lambda t: t.set_tcs(**{field: getattr(t.tcs, field) | bits})


def word(page: Callable[[Thread], int], *, put: int = 0, drop: int = 0) -> Change:
    """Set and clear bits of the EPCM word of a page."""
    return lambda t: t.bare.processor.epcm.put(page(t), t.bare.word(page(t)) & ~drop | put)


def _tcs_page(t: Thread) -> int:
    return t.tcs_page


def _misalign(t: Thread) -> None:
    t.rbx += 8


def _bad_aep(t: Thread) -> None:
    t.rcx = NON_CANONICAL


def _alias(t: Thread) -> None:
    t.rbx = t.enclave.heap
    t.map(t.rbx, t.tcs_page)


def tcs_spoils(leaf: int) -> list[ThreadSpoil]:
    """Operands and the EPCM entry of the TCS."""
    own, at_rbx = name(leaf), pf("rbx page", ENCLU_PFEC_W)
    differs, pending = ("07", "08") if leaf == EENTER else ("08", "07")
    retyped = word(_tcs_page, drop=PT_MASK, put=REG)
    kind = [
        Spoil(f"{own}.{differs}", "tcs-type rbx", _alias, at_rbx, "address"),
        Spoil(f"{own}.{differs}", "tcs-type", retyped, at_rbx, "type"),
    ]
    state = [
        Spoil(f"{own}.{pending}", "tcs-pending", word(_tcs_page, put=PENDING), at_rbx, "PENDING"),
        Spoil(
            f"{own}.{pending}", "tcs-modified", word(_tcs_page, put=MODIFIED), at_rbx, "MODIFIED"
        ),
    ]
    return [
        gp_at(f"{own}.01", "rbx", _misalign),
        gp_at(f"{own}.02", "rcx", _bad_aep),
        Spoil(f"{own}.03", "tcs-map", lambda t: t.map_ram(t.rbx), at_rbx),
        gp_at(f"{own}.04", "claims", lambda t: hold(t.bare, t.tcs_page, 0)),
        Spoil(f"{own}.05", "tcs-valid", word(_tcs_page, drop=VALID), at_rbx),
        Spoil(f"{own}.06", "tcs-blocked", word(_tcs_page, put=BLOCKED), at_rbx),
        *(kind + state if leaf == EENTER else state + kind),
    ]


def _attributes(t: Thread, drop: int) -> None:
    t.bare.processor.secs[t.enclave.secs].ATTRIBUTES &= ~drop


def _no_fxsr(t: Thread) -> None:
    t.lp.cr4 &= ~CR4_OSFXSR


def _no_xsave(t: Thread) -> None:
    t.lp.cr4 &= ~CR4_OSXSAVE
    t.bare.processor.secs[t.enclave.secs].XFRM = 7  # AVX


def _no_avx(t: Thread) -> None:
    t.lp.xcr0 = 3
    t.bare.processor.secs[t.enclave.secs].XFRM = 7


MACHINE: list[ThreadSpoil] = [
    gp_at("ENTRY.01", "ossa", tcs_or("OSSA", UNALIGNED)),
    gp_at("ENTRY.02", "fs", tcs_or("OFSBASGX", UNALIGNED)),
    gp_at("ENTRY.03", "gs", tcs_or("OGSBASGX", UNALIGNED)),
    gp_at("ENTRY.04", "flags-reserved", tcs_or("FLAGS", 1 << 2), "bit 2"),
    gp_at("ENTRY.04", "flags-reserved", tcs_or("FLAGS", 1 << 63), "bit 63"),
    gp_at("ENTRY.05", "init", lambda t: _attributes(t, ATTR_INIT)),
    gp_at("ENTRY.06", "mode", lambda t: _attributes(t, ATTR_MODE64BIT)),
    gp_at("ENTRY.07", "fxsr", _no_fxsr),
    gp_at("ENTRY.08", "xfrm", _no_xsave),
    gp_at("ENTRY.09", "xfrm", _no_avx),
    gp_at("ENTRY.10", "notify", tcs_or("FLAGS", TCS_AEXNOTIFY), "only the TCS notifies"),
]


def frame_spoils(
    index: int = 0, *, page: int = 0, of: int = 1, at: int | None = None
) -> list[ThreadSpoil]:
    """One page of an SSA frame of `of` pages; `at` is the address of the fault, else the page's."""
    linear = ENCLAVE_BASE + PAGE_SIZE * (1 + of * index + page)
    refused: Expected = pf(linear if at is None else at, ENCLU_PFEC_W)

    def ssa(t: Thread) -> int:
        return t.frame_page(index, page)

    def spoil(rule: str, aspects: str, change: Change, note: str) -> ThreadSpoil:
        own = " ".join(f"{aspect}-{index}-{page}" for aspect in aspects.split())
        return Spoil(rule, own, change, refused, note)

    def elsewhere(t: Thread) -> None:
        t.map(linear, t.enclave.pages[t.enclave.data[0]])

    # The page tables lead to another page, of which the EPCM word is as it should be.
    another = "map valid blocked pending modified rights type"
    retyped = word(ssa, drop=PT_MASK, put=TRIM)
    spoils = [
        spoil("FRAME.01", "map", lambda t: t.map_ram(linear), ""),
        spoil("FRAME.02", "valid", word(ssa, drop=VALID), ""),
        spoil("FRAME.03", "blocked", word(ssa, put=BLOCKED), ""),
        spoil("FRAME.04", "pending", word(ssa, put=PENDING), "PENDING"),
        spoil("FRAME.04", "modified", word(ssa, put=MODIFIED), "MODIFIED"),
        spoil("FRAME.05", another, elsewhere, "address"),
        spoil("FRAME.05", "type", retyped, "type"),
        spoil("FRAME.06", "rights", word(ssa, drop=R | W), "R"),
        spoil("FRAME.06", "rights", word(ssa, drop=W), "W"),
    ]
    if index == page == 0:
        foreign = spoil("FRAME.05", another, lambda t: t.map(linear, t.foreign), "enclave")
        spoils.insert(7, foreign)
    return spoils


ACTIVE = gp_at("ENTRY.14", "state", lambda t: t.set_tcs(STATE=TCS_ACTIVE))

# Where execution starts, and FS and GS: from the TCS, or for ERESUME from the SSA frame.
BASES_OF_TCS: list[ThreadSpoil] = [
    gp_at("ENTRY.11", "oentry", tcs_or("OENTRY", NON_CANONICAL)),
    gp_at("ENTRY.12", "fs", tcs_or("OFSBASGX", NON_CANONICAL)),
    gp_at("ENTRY.13", "gs", tcs_or("OGSBASGX", NON_CANONICAL)),
    ACTIVE,
]
BASES_OF_SSA: list[ThreadSpoil] = [
    gp_at("ENTRY.11", "rip", lambda t: t.set_gpr(RIP=NON_CANONICAL)),
    gp_at("ENTRY.12", "fsbase", lambda t: t.set_gpr(FSBASE=NON_CANONICAL)),
    gp_at("ENTRY.13", "gsbase", lambda t: t.set_gpr(GSBASE=NON_CANONICAL)),
    ACTIVE,
]
BASES = {EENTER: BASES_OF_TCS, ERESUME: BASES_OF_SSA}
FRAME_LEAVES = (EENTER, ERESUME, EDECCSSA)
