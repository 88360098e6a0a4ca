"""CET at entry and exit: CET.20 to CET.28, and what the state becomes.

SDM 3D, EENTER, ERESUME, EEXIT, EDECCSSA, 40 "Enclave Exiting Events".
"""

from dataclasses import replace

import pytest

from softsgx.cpu import Fault, Readings
from softsgx.cpu.bare import AEP, ENCLAVE_BASE, EXIT
from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_W
from softsgx.sim import Unmodelled
from softsgx.spec import faults
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_DEBUG, ATTR_MODE64BIT, MISC_EXINFO
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.cet import (
    CETSSA_FRAME,
    ENDBR_EN,
    IB_SUPPRESS,
    IB_TRACKER,
    LEG_IW_EN,
    NO_TRACK_EN,
    SH_STK_EN,
    SUPPRESS_DIS,
    U_CET_SUPPRESS,
    U_CET_TRACKER,
    WR_SHSTK_EN,
)
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PT_MASK,
    REG,
    SS_FIRST,
    SS_REST,
    VALID,
    R,
    W,
)
from softsgx.spec.leaves import EDECCSSA, EENTER, EEXIT, ERESUME
from softsgx.spec.msr import CR0_TS, CR4_CET
from softsgx.spec.registers import RAX, RIP
from softsgx.spec.secs import SECS
from softsgx.spec.ssa import EXINFO, EXIT_HARDWARE, EXIT_TYPE_SHIFT, EXIT_VALID, GPRSGX
from softsgx.spec.tcs import TCS_ACTIVE, TCS_AEXNOTIFY
from tests.cpu.cet_rig import BOTH, CET, SAVE, STACK, machine
from tests.cpu.entry_spoils import BASES, FRAME_LEAVES, gp_at, tcs_or, trials, word
from tests.cpu.spoil import Spoil, spoil_id
from tests.cpu.table import Attempt, Expected, Row, pf, row_id, run_row
from tests.cpu.thread import DEBUG_64, NON_CANONICAL, Thread, before, name, outside

ENTRIES = (EENTER, ERESUME)
SSP = STACK + 0xF80
SHADOW_PF = 0x8047  # P, W, U, SS, SGX
ORDINARY_PF = 0x8007


def thread(cet: int = BOTH, *, readings: Readings | None = None, **options: object) -> Thread:
    """A thread of an enclave with a shadow stack, outside."""
    bare = machine(readings)
    enclave = bare.enclave(cet=cet, **options)  # type: ignore[arg-type]
    # Another enclave at the same place, so that only ENCLAVESECS tells its page apart.
    rival = SECS(SIZE_=1 << 20, BASEADDR=ENCLAVE_BASE, SSAFRAMESIZE=1, ATTRIBUTES=DEBUG_64, XFRM=3)
    foreign = bare.eadd(bare.ecreate(rival), SAVE, flags=SS_REST | R | W)
    t = Thread(bare, enclave, foreign=foreign)
    t.lp.regs[RIP] = 0x40_0FF0
    return t


def frame(t: Thread, index: int = 0) -> CETSSA_FRAME:
    """Frame `index` of the CET state save area."""
    raw = t._page(SAVE)[16 * index : 16 * index + 16]
    return CETSSA_FRAME.unpack(raw)


def set_frame(t: Thread, ssp: int = SSP, track: int = 0, index: int = 0) -> None:
    t._write(SAVE, 16 * index, CETSSA_FRAME(SSP=ssp, IB_TRACK_STATE=track).pack())


def save_page(t: Thread) -> int:
    return t.enclave.pages[SAVE]


def pte(t: Thread, *, put: int = 0, drop: int = 0) -> None:
    space = t.bare.processor.space
    space.set(SAVE, space.lookup(SAVE) & ~drop | put)


def lead_to(t: Thread, page: int) -> None:
    """The address of the save area leads to another page, mapped as a shadow-stack page."""
    processor = t.bare.processor
    processor.space.map(SAVE, processor.epc.pfn(page), write=False)
    pte(t, put=PTE_D | PTE_A)


def moved(t: Thread) -> None:
    t.bare.processor.epcm.address[save_page(t)] = STACK


def not_epc(t: Thread) -> None:
    t.bare.processor.space.map(SAVE, t.bare.processor.memory.alloc(), write=False)
    pte(t, put=PTE_D | PTE_A)


def no_cr4(t: Thread) -> None:
    t.lp.cr4 &= ~CR4_CET


def off(t: Thread) -> None:
    """The enclave uses no tracking and no shadow stack, but it may say more."""
    t.bare.processor.secs[t.enclave.secs].CET_ATTRIBUTES = WR_SHSTK_EN
    no_cr4(t)


SAVE_PF = pf(SAVE, SHADOW_PF)
ENTRY_SPOILS = [
    gp_at("CET.21", "cr4", no_cr4),
    gp_at("CET.22", "ocetssa", tcs_or("OCETSSA", 8)),
]
SAVE_SPOILS: list[Spoil[Thread]] = [
    Spoil("CET.23", "map", not_epc, SAVE_PF),
    *(
        Spoil("CET.24", aspect, word(save_page, put=put, drop=drop), SAVE_PF, note)
        for aspect, note, put, drop in (
            ("valid", "VALID", 0, VALID),
            ("pending", "PENDING", PENDING, 0),
            ("modified", "MODIFIED", MODIFIED, 0),
            ("blocked", "BLOCKED", BLOCKED, 0),
            ("rights", "R", 0, R),
            ("rights", "W", 0, W),
            ("type", "SS_FIRST", SS_FIRST, PT_MASK),
            ("type", "REG", REG, PT_MASK),
        )
    ),
    Spoil("CET.24", "map", lambda t: lead_to(t, t.enclave.pages[STACK]), SAVE_PF, "stack"),
    Spoil("CET.24", "address", moved, SAVE_PF, "address"),
    Spoil("CET.24", "map", lambda t: lead_to(t, t.foreign), SAVE_PF, "enclave"),
    Spoil(
        "PAGING.07", "map", lambda t: pte(t, put=PTE_W), pf(SAVE, 0x45), "mapped as ordinary page"
    ),
    Spoil("PAGING.07", "map", lambda t: pte(t, drop=PTE_D), pf(SAVE, 0x45), "not dirty"),
]
FRAME_SPOILS = [
    gp_at("CET.25", "ssp", lambda t: set_frame(t, NON_CANONICAL)),
    gp_at("CET.26", "ssp", lambda t: set_frame(t, SSP + 2)),
    gp_at("CET.27", "ssp", lambda t: set_frame(t, SSP, IB_TRACKER | IB_SUPPRESS)),
    gp_at("CET.28", "ssp", lambda t: set_frame(t, SSP, 4), "bit 2"),
    gp_at("CET.28", "ssp", lambda t: set_frame(t, SSP, 1 << 63 | IB_TRACKER), "bit 63"),
]


def waiting(*, leaf: int = EENTER, host: bool = True, cr0: int = 0) -> Attempt:
    """ENCLU while the tracker waits for ENDBRANCH, of the host or of the enclave."""
    t = before(leaf if host else EENTER, thread)
    if not host:
        t.enter()
        t.rbx, t.rcx = EXIT, 0
    t.leaf = leaf
    t.lp.u_cet = t.lp.u_cet | ENDBR_EN if not host else ENDBR_EN
    t.lp.indirect_branch()
    t.lp.cr0 |= cr0
    return t.attempt()


ROWS = [
    Row("CET.20", waiting, Expected("fault", faults.CP, 3), "EENTER"),
    Row(
        "CET.20", lambda: waiting(leaf=EEXIT, host=False), Expected("fault", faults.CP, 3), "EEXIT"
    ),
    Row(
        "CET.20",
        lambda: waiting(leaf=ERESUME, cr0=CR0_TS),
        Expected("fault", faults.CP, 3),
        "ERESUME, CR0.TS",
    ),
    *(row for leaf in ENTRIES for row in trials(leaf, thread).rows(ENTRY_SPOILS, name(leaf))),
    *(
        row
        for leaf in FRAME_LEAVES
        for row in trials(leaf, thread).rows(SAVE_SPOILS, name(leaf))
        if row.rule != "PAGING.07"
    ),
    *trials(ERESUME, thread).rows(FRAME_SPOILS, "ERESUME"),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_cet_entry_refuses(row: Row) -> None:
    run_row(row)


@pytest.mark.parametrize("leaf", FRAME_LEAVES, ids=name)
@pytest.mark.parametrize("spoil", SAVE_SPOILS[-2:], ids=spoil_id)
def test_the_save_area_is_reached_by_shadow_stack_accesses(spoil: Spoil[Thread], leaf: int) -> None:
    (row,) = trials(leaf, thread).rows([spoil])
    t = row.build()
    # `attempt` sets D in every entry; what is to be missing is taken away after it.
    if spoil.note == "not dirty":
        space = t.lp.space
        space.set(SAVE, space.lookup(SAVE) & ~PTE_D)
    with pytest.raises(Fault) as caught:
        t.lp.enclu(t.leaf, t.rbx, t.rcx)
    assert (caught.value.rule, caught.value.code) == ("PAGING.07", 0x45)
    assert caught.value.address == SAVE


def test_by_the_other_reading_the_save_area_is_an_ordinary_page() -> None:
    t = thread(readings=Readings(cet_save_area_shadow_access=False))
    with pytest.raises(Fault, match=r"PAGING\.03"):
        t.enter()
    pte(t, put=PTE_W)
    t.enter()
    t.exit()
    not_epc(t)
    pte(t, put=PTE_W)
    with pytest.raises(Fault) as caught:
        t.enter()
    assert (caught.value.rule, caught.value.code) == ("CET.23", ORDINARY_PF)


LISTING = {
    EENTER: [*BASES[EENTER][-1:], *ENTRY_SPOILS, *SAVE_SPOILS[:2]],
    ERESUME: [*BASES[ERESUME][-1:], *ENTRY_SPOILS, *SAVE_SPOILS[:2], FRAME_SPOILS[0]],
}


@pytest.mark.parametrize("leaf", ENTRIES, ids=name)
def test_cet_tests_come_after_the_state_of_the_tcs_in_this_order(leaf: int) -> None:
    order = LISTING[leaf]
    assert sum(trials(leaf, thread).verify_order(order, first) for first in order) > 5


def test_cet_tests_come_before_xrstor() -> None:
    t = before(ERESUME, thread)
    t.set_ssa(512 + 8, b"\x01")  # XCOMP_BV
    with pytest.raises(Fault, match=r"ERESUME\.11"):
        t.lp.enclu(ERESUME, t.rbx, AEP)
    set_frame(t, NON_CANONICAL)
    with pytest.raises(Fault, match=r"CET\.25"):
        t.lp.enclu(ERESUME, t.rbx, AEP)


# What EENTER loads


@pytest.mark.parametrize(
    ("attributes", "u_cet", "ssp"),
    [
        (SH_STK_EN, SH_STK_EN, SSP),
        (SH_STK_EN | WR_SHSTK_EN, SH_STK_EN | WR_SHSTK_EN, SSP),
        (ENDBR_EN, ENDBR_EN, 0),
        (ENDBR_EN | NO_TRACK_EN | SUPPRESS_DIS, ENDBR_EN | NO_TRACK_EN | SUPPRESS_DIS, 0),
        (BOTH, BOTH, SSP),
        (WR_SHSTK_EN, 0, 0),  # neither is enabled, so nothing is loaded
        (NO_TRACK_EN, 0, 0),
        (SH_STK_EN | LEG_IW_EN, SH_STK_EN | LEG_IW_EN, SSP),  # no tracking, no bitmap
    ],
)
def test_eenter_loads_the_state_of_the_enclave(attributes: int, u_cet: int, ssp: int) -> None:
    t = thread(attributes)
    t.set_tcs(PREVSSP=SSP)
    t.lp.u_cet, t.lp.ssp = SH_STK_EN | ENDBR_EN, 0x7000_1000
    t.enter()
    assert (t.lp.u_cet, t.lp.ssp) == (u_cet, ssp)
    assert bool(t.lp.cet_save_area) is bool(u_cet)


def test_eenter_loads_the_base_of_the_legacy_bitmap() -> None:
    t = thread(ENDBR_EN | LEG_IW_EN, secs={"CET_LEG_BITMAP_OFFSET": 0x9000})
    t.enter()
    assert t.lp.u_cet == ENDBR_EN | LEG_IW_EN | ENCLAVE_BASE + 0x9000


def test_a_first_entry_has_no_shadow_stack_yet() -> None:
    """SSP is 0 until the enclave executes RSTORSSP on the token of its PT_SS_FIRST page."""
    t = thread()
    t.enter()
    assert t.lp.ssp == 0
    assert t.lp.shadow_load(STACK + PAGE_SIZE - 8) == STACK + PAGE_SIZE | 1


def test_an_enclave_without_cet_attributes_enters_with_cr4_cet_clear() -> None:
    bare = machine()
    t = Thread(bare, bare.enclave())
    t.lp.cr4 &= ~CR4_CET
    t.lp.u_cet = 0
    t.enter()
    assert (t.lp.u_cet, t.lp.ssp, t.lp.cet_save_area) == (0, 0, 0)


def test_any_cet_attribute_needs_cr4_cet() -> None:
    t = thread()
    off(t)
    with pytest.raises(Fault, match=r"CET\.21"):
        t.enter()


# What exits leave


def test_eexit_records_the_ssp_and_the_next_entry_takes_it_up() -> None:
    t = thread()
    t.enter()
    t.lp.ssp = SSP
    t.exit()
    assert (t.tcs.PREVSSP, t.lp.ssp) == (SSP, 0)
    t.enter()
    assert t.lp.ssp == SSP


def test_eexit_without_a_shadow_stack_keeps_prevssp() -> None:
    t = thread(ENDBR_EN)
    t.enter()
    t.lp.ssp = SSP
    t.exit()
    assert t.tcs.PREVSSP == 0


@pytest.mark.parametrize(
    ("host", "after"),
    [
        (0, 0),
        (SH_STK_EN, SH_STK_EN),
        (SH_STK_EN | ENDBR_EN, SH_STK_EN | ENDBR_EN | U_CET_TRACKER),
        (ENDBR_EN | U_CET_SUPPRESS, ENDBR_EN | U_CET_TRACKER),
    ],
)
def test_eexit_returns_to_an_endbranch_of_the_host(host: int, after: int) -> None:
    t = thread()
    t.lp.u_cet, t.lp.ssp = host, 0x7000_1000
    t.enter()
    t.exit()
    assert (t.lp.u_cet, t.lp.ssp) == (after, 0x7000_1000)
    assert t.lp.cet_save_area == 0
    t.lp.endbranch()
    assert t.lp.u_cet == host & ~U_CET_SUPPRESS
    t.enter()


@pytest.mark.parametrize("host", [0, SH_STK_EN | ENDBR_EN, ENDBR_EN | U_CET_SUPPRESS])
def test_aex_gives_the_host_its_state_back_as_it_was(host: int) -> None:
    t = thread()
    t.lp.u_cet, t.lp.ssp = host, 0x7000_1000
    t.enter()
    t.lp.interrupt()
    assert (t.lp.u_cet, t.lp.ssp, t.lp.cet_save_area) == (host, 0x7000_1000, 0)


@pytest.mark.parametrize(
    ("state", "track"),
    [(0, 0), (U_CET_TRACKER, IB_TRACKER), (U_CET_SUPPRESS, IB_SUPPRESS)],
    ids=["idle", "waiting", "suppressed"],
)
def test_aex_saves_and_eresume_restores_ssp_and_tracker(state: int, track: int) -> None:
    t = thread()
    t.enter()
    t.lp.ssp = SSP
    t.lp.u_cet |= state
    t.lp.interrupt()
    assert frame(t) == CETSSA_FRAME(SSP=SSP, IB_TRACK_STATE=track)
    assert t.tcs.PREVSSP == SSP
    t.resume()
    assert (t.lp.ssp, t.lp.u_cet) == (SSP, BOTH | state)


def test_aex_saves_the_tracker_of_an_enclave_without_a_shadow_stack() -> None:
    t = thread(ENDBR_EN)
    set_frame(t, SSP, IB_SUPPRESS)  # left by an earlier exit
    t.enter()
    t.lp.indirect_branch()
    t.lp.interrupt()
    assert frame(t) == CETSSA_FRAME(SSP=0, IB_TRACK_STATE=IB_TRACKER)
    assert t.tcs.PREVSSP == 0
    t.resume()
    assert t.lp.u_cet == ENDBR_EN | U_CET_TRACKER


def test_by_the_other_reading_aex_leaves_prevssp_alone() -> None:
    t = thread(readings=Readings(aex_records_prevssp=False))
    t.enter()
    t.lp.ssp = SSP
    t.lp.interrupt()
    assert (t.tcs.PREVSSP, frame(t).SSP) == (0, SSP)


def test_a_handler_starts_below_what_was_interrupted_and_both_come_back() -> None:
    t = thread()
    t.enter()
    t.lp.ssp = SSP
    t.lp.interrupt()
    t.enter()
    assert (t.lp.regs[RAX], t.lp.ssp) == (1, SSP)
    t.lp.ssp = SSP - 0x40
    t.lp.interrupt()
    assert (frame(t, 0).SSP, frame(t, 1).SSP) == (SSP, SSP - 0x40)
    t.resume()
    assert t.lp.ssp == SSP - 0x40
    t.exit()
    t.resume()
    assert t.lp.ssp == SSP


def test_edeccssa_moves_to_the_frame_below() -> None:
    t = before(EDECCSSA, thread)
    assert t.lp.cet_save_area % PAGE_SIZE == 16
    t.lp.enclu(EDECCSSA)
    assert t.lp.cet_save_area % PAGE_SIZE == 0
    t.lp.ssp = SSP - 8
    t.lp.interrupt()
    assert frame(t, 0).SSP == SSP - 8


def test_an_aex_never_faults_whatever_became_of_the_save_area() -> None:
    t = thread()
    t.enter()
    t.lp.ssp = SSP
    t.bare.processor.space.unmap(SAVE)
    t.lp.interrupt()
    assert frame(t).SSP == SSP


def test_aex_notify_enters_like_eenter_on_the_next_frame() -> None:
    attributes = ATTR_MODE64BIT | ATTR_DEBUG | ATTR_AEXNOTIFY
    t = thread(attributes=attributes, tcs={"FLAGS": TCS_AEXNOTIFY})
    t.enter()
    t.lp.ssp = SSP
    t.lp.u_cet |= U_CET_TRACKER
    t.lp.interrupt()
    t.set_gpr(AEXNOTIFY=1)
    t.resume()
    # PREVSSP, the tracker idle, frame 1: the interrupted state stays in frame 0.
    assert (t.lp.ssp, t.lp.u_cet) == (SSP, BOTH)
    assert t.lp.cet_save_area % PAGE_SIZE == 16
    assert frame(t, 0) == CETSSA_FRAME(SSP=SSP, IB_TRACK_STATE=IB_TRACKER)
    assert t.tcs.STATE == TCS_ACTIVE


# The tracker


def test_eresume_may_stand_where_the_tracker_waits() -> None:
    t = before(ERESUME, thread)
    t.lp.u_cet = ENDBR_EN | U_CET_TRACKER
    t.resume()
    assert t.lp.u_cet == BOTH
    t.lp.interrupt()
    assert t.lp.u_cet == ENDBR_EN | U_CET_TRACKER


@pytest.mark.parametrize(
    "state", [ENDBR_EN | U_CET_SUPPRESS | U_CET_TRACKER, U_CET_TRACKER], ids=["suppressed", "off"]
)
def test_a_tracker_that_is_off_waits_for_nothing(state: int) -> None:
    t = thread()
    t.lp.u_cet = state
    t.enter()


def test_a_tracker_waits_only_with_cr4_cet() -> None:
    enclave = machine().enclave()
    lp = enclave.bare.lp
    lp.u_cet = ENDBR_EN | U_CET_TRACKER
    lp.cr4 &= ~CR4_CET
    enclave.enter()


def test_a_suppressed_tracker_does_not_begin_to_wait() -> None:
    lp = machine().lp
    lp.u_cet = ENDBR_EN | U_CET_SUPPRESS
    lp.indirect_branch()
    assert lp.u_cet == ENDBR_EN | U_CET_SUPPRESS
    lp.endbranch()
    lp.indirect_branch()
    assert lp.u_cet == ENDBR_EN | U_CET_TRACKER


def test_the_legacy_bitmap_of_a_host_is_not_modelled() -> None:
    t = thread()
    t.lp.u_cet = ENDBR_EN | LEG_IW_EN | U_CET_TRACKER
    with pytest.raises(Unmodelled, match="legacy code page bitmap"):
        t.enter()


@pytest.mark.parametrize("leave", ["EEXIT", "AEX"])
def test_a_host_without_cet_is_never_touched(leave: str) -> None:
    t = thread()
    outside(t.lp)
    t.enter()
    t.lp.ssp = SSP
    if leave == "EEXIT":
        t.exit()
    else:
        t.lp.interrupt()
    assert (t.lp.u_cet, t.lp.ssp, t.lp.outside_cet) == (0, 0, (0, 0))


# #CP inside


@pytest.mark.parametrize(
    ("miscselect", "reported"), [(0, False), (MISC_EXINFO, False), (2, True), (3, True)]
)
def test_cp_is_reported_with_cpinfo(miscselect: int, reported: bool) -> None:
    bare = machine(part=replace(CET, cpinfo=True))
    enclave = bare.enclave(cet=BOTH, miscselect=miscselect)
    t = Thread(bare, enclave)
    t.set_ssa(-GPRSGX.SIZE - EXINFO.SIZE, b"\xa5" * 16)
    t.enter()
    t.lp.deliver(faults.CP, 3)
    info = EXIT_VALID | EXIT_HARDWARE << EXIT_TYPE_SHIFT | faults.CP
    assert (info if reported else 0) == t.gpr().EXITINFO
    old = EXINFO.unpack(b"\xa5" * 16)
    assert t.exinfo() == (EXINFO(MADDR=0, ERRCD=3) if reported else old)


def test_cpinfo_alone_reports_no_page_fault() -> None:
    bare = machine(part=replace(CET, cpinfo=True))
    t = Thread(bare, bare.enclave(cet=BOTH, miscselect=2))
    t.enter()
    t.lp.deliver(faults.PF, 0x8004, SAVE)
    assert t.gpr().EXITINFO == 0


@pytest.mark.parametrize("field", ["u_cet", "ssp", "cet_save_area", "outside_cet"])
def test_the_state_is_in_fingerprint_and_snapshot(field: str) -> None:
    t = thread()
    t.enter()
    processor = t.bare.processor
    image, before_ = processor.snapshot(), processor.fingerprint()
    old = getattr(t.lp, field)
    setattr(t.lp, field, (1, 2) if field == "outside_cet" else old ^ 64)
    assert processor.fingerprint() != before_
    processor.restore(image)
    assert (getattr(t.lp, field), processor.fingerprint()) == (old, before_)
