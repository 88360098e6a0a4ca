"""Page types and leaves, on a part with CET and on one without: the manual's listings as a table.

Each column says for every page type what the listing of the leaf says of it, restated here without
a look at the model: "" it is accepted, "gp" #GP(0), "pf" #PF, a number RAX. The listings: SDM 3D,
EADD, EAUG, EACCEPT, EACCEPTCOPY, EMODPE, EMODPR, EMODT, EEXTEND, EDBGRD, EDBGWR, EBLOCK, EWB and
ELDU, EREMOVE.
"""

import pytest

from softsgx.cpu import Bare, Fault, LogicalProcessor, Part, Readings
from softsgx.cpu.bare import BareEnclave
from softsgx.spec import faults
from softsgx.spec.bits import MASK64
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PT_SHIFT,
    REG,
    SECS,
    SS_FIRST,
    SS_REST,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
)
from softsgx.spec.leaves import (
    EACCEPT,
    EACCEPTCOPY,
    EADD,
    EAUG,
    EBLOCK,
    EDBGRD,
    EDBGWR,
    EEXTEND,
    ELDU,
    EMODPE,
    EMODPR,
    EMODT,
    EREMOVE,
)
from softsgx.spec.registers import RBX
from tests.cpu.cet_rig import (
    BOTH,
    CET,
    HEAP,
    SAVE,
    STACK,
    TOKEN_AT,
    inside,
    machine,
    running,
    token,
)

NO_CET = Part()
TYPES = (SECS, TCS, REG, VA, TRIM, SS_FIRST, SS_REST, 7 << PT_SHIFT)
NAMES = ("SECS", "TCS", "REG", "VA", "TRIM", "SS_FIRST", "SS_REST", "7")
MISMATCH, NOT_MODIFIABLE = 19, 20

# The type that SECINFO names, by leaf: SECS, TCS, REG, VA, TRIM, SS_FIRST, SS_REST, 7.
NAMED: dict[str, tuple[str | int, ...]] = {
    # PT_REG, PT_TCS, or with CET the two types of shadow stacks.
    "EADD": ("gp", "", "", "gp", "gp", "", "", "gp"),
    # A SECINFO is for shadow stacks only.
    "EAUG": ("gp", "gp", "gp", "gp", "gp", "", "", "gp"),
    # The page is PENDING, PT_REG, RW: of the legal SECINFOs only its own matches.
    "EACCEPT of a REG page": ("gp", "gp", "", "gp", "gp", MISMATCH, MISMATCH, "gp"),
    "EACCEPT of an SS_FIRST page": ("gp", "gp", MISMATCH, "gp", "gp", "", MISMATCH, "gp"),
    "EACCEPTCOPY": ("gp", "gp", "", "gp", "gp", "gp", "gp", "gp"),
    "EMODT": ("gp", "", "gp", "gp", "", "gp", "gp", "gp"),
}
# What is different without CET: the types do not exist.
NAMED_WITHOUT: dict[str, tuple[str | int, ...]] = {
    "EADD": ("gp", "", "", "gp", "gp", "gp", "gp", "gp"),
    "EAUG": ("gp",) * 8,
    "EACCEPT of a REG page": ("gp", "gp", "", "gp", "gp", "gp", "gp", "gp"),
    "EACCEPTCOPY": NAMED["EACCEPTCOPY"],
    "EMODT": NAMED["EMODT"],
}

# The type that the page has: TCS, REG, TRIM, SS_FIRST, SS_REST. Accepted, rights as they may be.
HELD_TYPES = (TCS, REG, TRIM, SS_FIRST, SS_REST)
HELD: dict[str, tuple[str | int, ...]] = {
    "EMODT to TRIM": ("", "", "pf", "", ""),
    "EMODT to TCS": ("pf", "", "pf", "pf", "pf"),
    "EMODPR": ("pf", "", "pf", "pf", "pf"),
    "EMODPE": ("pf", "", "pf", "pf", "pf"),
    # Not PENDING: a code, whatever the type.
    "EACCEPTCOPY to it": (MISMATCH,) * 5,
    "EACCEPTCOPY from it": ("pf", "", "pf", "pf", "pf"),
    "SECINFO in it": ("pf", "", "pf", "pf", "pf"),
    "EDBGRD": ("", "", "pf", "", ""),
    "EDBGWR": ("", "", "pf", "", ""),
    "EBLOCK": ("",) * 5,
    "EREMOVE": ("",) * 5,
    "EWB and ELDU": ("",) * 5,
    # Of an enclave that is being built; TRIM is tested before INIT.
    "EEXTEND": ("", "", "pf", "", ""),
}


def outcome(lp: LogicalProcessor, instruction: str, leaf: int, *operands: int) -> str | int:
    """ "" for success, "gp", "pf", or RAX."""
    run = lp.encls if instruction == "encls" else lp.enclu
    try:
        status = run(leaf, *operands)
    except Fault as fault:
        return {faults.GP: "gp", faults.PF: "pf"}[fault.vector]
    return "" if not status else int(status)


def named(leaf: str, pt: int, part: Part) -> str | int:
    """A leaf whose SECINFO names `pt`, everything else as that type needs it."""
    bare = Bare(64, part=part)
    enclave = bare.enclave(init=leaf != "EADD")
    lp, data, heap = bare.lp, enclave.data[0], enclave.heap
    secs = bare.address(enclave.secs)
    if leaf in ("EADD", "EAUG"):
        content = token(heap) if pt == SS_FIRST else b""
        source = bare.source(content) if leaf == "EADD" else 0
        secinfo = bare.secinfo(pt | R | W)
        info = bare.pageinfo(linaddr=heap, srcpge=source, secinfo=secinfo, secs=secs)
        number = EADD if leaf == "EADD" else EAUG
        return outcome(lp, "encls", number, info, bare.address(bare.free_page()))
    if leaf == "EMODT":
        page = bare.address(enclave.pages[data])
        return outcome(lp, "encls", EMODT, bare.secinfo(pt), page)
    enclave.eaug(heap, SS_FIRST | R | W if "SS_FIRST" in leaf else 0)
    enclave.enter()
    state = 0 if leaf == "EACCEPTCOPY" else MODIFIED if pt in (TCS, TRIM) else PENDING
    # A SECINFO of PT_TCS or PT_TRIM must say MODIFIED, and is refused here by the comparison.
    rbx = enclave.secinfo(pt | R | W | state)
    if leaf == "EACCEPTCOPY":
        return outcome(lp, "enclu", EACCEPTCOPY, rbx, heap, data)
    got = outcome(lp, "enclu", EACCEPT, rbx, heap)
    return "gp" if pt in (TCS, TRIM) and got == MISMATCH else got


@pytest.mark.parametrize("leaf", NAMED)
def test_types_that_a_secinfo_may_name(leaf: str) -> None:
    assert tuple(named(leaf, pt, CET) for pt in TYPES) == NAMED[leaf]


@pytest.mark.parametrize("leaf", NAMED_WITHOUT)
def test_types_that_a_secinfo_may_name_without_cet(leaf: str) -> None:
    assert tuple(named(leaf, pt, NO_CET) for pt in TYPES) == NAMED_WITHOUT[leaf]


def put(enclave: BareEnclave, address: int, pt: int) -> int:
    """Give the page this type, with the rights that such a page has."""
    rights = {TCS: 0, TRIM: 0, REG: R | W}.get(pt, R | W)
    page = enclave.pages[address]
    enclave.bare.processor.epcm.put(page, VALID | pt | rights)
    return page


def evicted(bare: Bare, enclave: BareEnclave, page: int) -> str | int:
    """EBLOCK, ETRACK, EWB, ELDU; the entry comes back as it was."""
    before, va, backing = bare.word(page), bare.epa(), bare.backing()
    assert bare.eblock(page) == 0
    assert bare.etrack(enclave.secs) == 0
    assert bare.ewb(page, va, 0, backing) == 0
    back, status = bare.eld(backing, va, 0, enclave.secs, leaf=ELDU)
    assert status is not None
    assert bare.word(back) == before
    return "" if status == 0 else int(status)


def held(leaf: str, pt: int) -> str | int:
    """A leaf on an accepted page of type `pt`."""
    bare = machine()
    enclave = bare.enclave(pages=3, init=leaf != "EEXTEND")
    kernel, thread = bare.lp, bare.processor.lps[1]
    target, other, _ = enclave.data
    kernel_names = {
        "EMODT to TRIM": (EMODT, TRIM),
        "EMODT to TCS": (EMODT, TCS),
        "EMODPR": (EMODPR, R),
    }
    if leaf in kernel_names:
        page = put(enclave, target, pt)
        number, flags = kernel_names[leaf]
        return outcome(kernel, "encls", number, bare.secinfo(flags), bare.address(page))
    if leaf in ("EDBGRD", "EDBGWR", "EBLOCK", "EREMOVE", "EEXTEND"):
        page = put(enclave, target, pt)
        number = {
            "EDBGRD": EDBGRD,
            "EDBGWR": EDBGWR,
            "EBLOCK": EBLOCK,
            "EREMOVE": EREMOVE,
            "EEXTEND": EEXTEND,
        }[leaf]
        rbx = bare.address(enclave.secs) if leaf == "EEXTEND" else 0
        # Byte 8 is TCS.FLAGS, the one quadword of a TCS that EDBGWR writes.
        offset = 8 if leaf.startswith("EDBG") else 0
        return outcome(kernel, "encls", number, rbx, bare.address(page) + offset)
    if leaf == "EWB and ELDU":
        return evicted(bare, enclave, put(enclave, target, pt))
    enclave.enter(thread)
    secinfo = enclave.secinfo(REG | R, thread)
    if leaf == "EACCEPTCOPY from it":
        enclave.eaug(HEAP + 0x4000)
    put(enclave, target, pt)
    if leaf == "EMODPE":
        return outcome(thread, "enclu", EMODPE, secinfo, target)
    if leaf == "EACCEPTCOPY to it":
        return outcome(thread, "enclu", EACCEPTCOPY, secinfo, target, other)
    if leaf == "EACCEPTCOPY from it":
        return outcome(thread, "enclu", EACCEPTCOPY, secinfo, HEAP + 0x4000, target)
    assert leaf == "SECINFO in it"
    return outcome(thread, "enclu", EMODPE, target, other)


@pytest.mark.parametrize("leaf", HELD)
def test_types_that_a_page_may_have(leaf: str) -> None:
    assert tuple(held(leaf, pt) for pt in HELD_TYPES) == HELD[leaf]


def test_a_pending_shadow_stack_page_cannot_change_its_type() -> None:
    enclave = running()
    page = enclave.eaug(HEAP, SS_FIRST | R | W)
    assert enclave.bare.emodt(page, TRIM) == NOT_MODIFIABLE


def test_a_shadow_stack_page_is_removed_only_with_nobody_inside() -> None:
    enclave = running()
    assert enclave.bare.eremove(enclave.pages[STACK]) == 14
    enclave.exit(inside(enclave))
    assert enclave.bare.eremove(enclave.pages[STACK]) == 0


# Eviction keeps everything


def test_a_thread_goes_on_after_its_save_area_its_stack_and_its_tcs_were_evicted() -> None:
    enclave = running()
    bare, lp = enclave.bare, inside(enclave)
    lp.ssp = STACK + 0x800
    lp.shadow_store(STACK + 0x7F8, 0x1234)
    lp.interrupt()
    va = bare.epa()
    for slot, address in enumerate((SAVE, STACK, enclave.tcs[0])):
        page, backing = enclave.pages[address], bare.backing()
        assert bare.eblock(page) == 0
        assert bare.etrack(enclave.secs) == 0
        assert bare.ewb(page, va, slot, backing) == 0
        back, status = bare.eld(backing, va, slot, enclave.secs)
        assert status == 0
        if address == enclave.tcs[0]:
            enclave.map(address, back)
        else:
            enclave.map_shadow_stack(address, back)
        enclave.pages[address] = back
    enclave.resume(lp)
    assert lp.ssp == STACK + 0x800
    assert lp.shadow_load(STACK + 0x7F8) == 0x1234


def test_the_secs_keeps_its_cet_fields_over_an_eviction() -> None:
    bare = machine()
    enclave = bare.enclave(pages=0, cet=BOTH, secs={"CET_LEG_BITMAP_OFFSET": 0x7000}, init=False)
    for page in enclave.pages.values():
        assert bare.eremove(page) == 0
    va, backing = bare.epa(), bare.backing()
    assert bare.ewb(enclave.secs, va, 0, backing) == 0
    back, status = bare.eld(backing, va, 0, None)
    assert status == 0
    secs = bare.processor.secs[back]
    assert (secs.CET_ATTRIBUTES, secs.CET_LEG_BITMAP_OFFSET) == (BOTH, 0x7000)


# EDBGRD


def test_edbgrd_reads_a_shadow_stack_of_a_debug_enclave() -> None:
    enclave = running()
    lp = enclave.bare.lp
    assert lp.encls(EDBGRD, 0, enclave.bare.address(enclave.pages[STACK]) + TOKEN_AT) == 0
    assert lp.regs[RBX] == STACK + 0x1000 | 1


def test_edbgrd_by_the_listing_as_printed_shows_a_used_slot() -> None:
    enclave = running(readings=Readings(edbgrd_shadow_stack_as_va=True), attributes=0b100)
    lp, at = enclave.bare.lp, enclave.bare.address(enclave.pages[STACK])
    assert lp.encls(EDBGRD, 0, at + TOKEN_AT) == 0
    assert lp.regs[RBX] == MASK64
    assert lp.encls(EDBGRD, 0, at) == 0
    assert lp.regs[RBX] == 0


@pytest.mark.parametrize("leaf", [EDBGRD, EDBGWR])
def test_a_shadow_stack_of_a_production_enclave_is_closed(leaf: int) -> None:
    enclave = running(attributes=0b100)
    with pytest.raises(Fault, match=r"EDBG(RD|WR)\.08"):
        enclave.bare.lp.encls(leaf, 0, enclave.bare.address(enclave.pages[STACK]))


@pytest.mark.parametrize(("part", "limit"), [(CET, 88), (NO_CET, 72)])
def test_edbgrd_reads_a_tcs_up_to_its_last_field(part: Part, limit: int) -> None:
    bare = Bare(16, part=part)
    enclave = bare.enclave()
    at = bare.address(enclave.pages[enclave.tcs[0]])
    assert bare.lp.encls(EDBGRD, 0, at + limit - 8) == 0
    with pytest.raises(Fault, match=r"EDBGRD\.07"):
        bare.lp.encls(EDBGRD, 0, at + limit)


def test_a_debugger_sees_ocetssa_and_prevssp() -> None:
    enclave = running()
    lp = inside(enclave)
    lp.ssp = STACK + 0x100
    enclave.exit(lp)
    at = enclave.bare.address(enclave.pages[enclave.tcs[0]])
    read = []
    for offset in (72, 80):
        assert enclave.bare.lp.encls(EDBGRD, 0, at + offset) == 0
        read.append(enclave.bare.lp.regs[RBX])
    assert read == [SAVE - enclave.base, STACK + 0x100]
