"""Advice for refused ENCLU leaves: what must be done to their operands and pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.cpu.tracking import tracked
from softsgx.report.steps import (
    Accept,
    Advice,
    Again,
    Aligned,
    Canonical,
    Extend,
    Leave,
    OtherTcs,
    Say,
    Secinfo,
    Skip,
    Step,
    Wait,
    Within,
)
from softsgx.spec.bits import PAGE_SIZE, canonical
from softsgx.spec.epcm import (
    BLOCKED,
    EACCEPT_COMPARED,
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    REG,
    RWX,
    TCS,
    TRIM,
    VALID,
    R,
    W,
    shadow_stack_type,
    word_text,
)
from softsgx.system.explain.facts import DUE, tcs_in
from softsgx.system.explain.leaf_texts import CONTENTS, TCS_CONTENTS, WORDS
from softsgx.system.explain.plans import (
    EVICTED_NEXT,
    FRESH,
    GONE,
    STUCK,
    Page,
    Plan,
    area,
    epcm,
    final,
    nothing_left,
    page_of,
    renewed,
    usable,
)

if TYPE_CHECKING:
    from softsgx.cpu.secs import Secs
    from softsgx.system.explain.facts import Facts

_SECINFO: Final = "the SECINFO"
_PAGE: Final = "the page"

# Operands, what they are, and what they are multiples of.
_OPERANDS: Final[dict[tuple[str, str], tuple[str, int]]] = {
    ("EACCEPT", "RBX"): (_SECINFO, 64),
    ("EACCEPT", "RCX"): (_PAGE, PAGE_SIZE),
    ("EMODPE", "RBX"): (_SECINFO, 64),
    ("EMODPE", "RCX"): (_PAGE, PAGE_SIZE),
    ("EACCEPTCOPY", "RBX"): (_SECINFO, 64),
    ("EACCEPTCOPY", "RCX"): (_PAGE, PAGE_SIZE),
    ("EACCEPTCOPY", "RDX"): ("the source", PAGE_SIZE),
    ("EGETKEY", "RBX"): ("the KEYREQUEST", 512),
    ("EGETKEY", "RCX"): ("the key", 16),
    ("EREPORT", "RBX"): ("the TARGETINFO", 512),
    ("EREPORT", "RCX"): ("the REPORTDATA", 128),
    ("EREPORT", "RDX"): ("the REPORT", 512),
    ("EENTER", "RBX"): ("the TCS", PAGE_SIZE),
    ("ERESUME", "RBX"): ("the TCS", PAGE_SIZE),
}
_WRITTEN: Final = frozenset({("EGETKEY", "RCX"), ("EREPORT", "RDX")})
_ALIGNMENT: Final = frozenset(
    {
        *("EACCEPT.01", "EACCEPT.06", "EMODPE.01", "EMODPE.02", "EACCEPTCOPY.01", "EACCEPTCOPY.02"),
        *("EGETKEY.01", "EGETKEY.05", "EREPORT.01", "EREPORT.06", "EREPORT.10"),
        *("EENTER.01", "ERESUME.01"),
    }
)
_RANGE: Final = frozenset(
    {
        *("EACCEPT.02", "EACCEPT.07", "EMODPE.03", "EMODPE.04", "EACCEPTCOPY.03"),
        *("EGETKEY.02", "EGETKEY.06", "EREPORT.02", "EREPORT.07", "EREPORT.11"),
    }
)
_BUSY: Final = frozenset(
    {
        *("EACCEPT.18", "EMODPE.14", "EACCEPTCOPY.15", "EENTER.04", "ERESUME.04"),
        "EDECCSSA.01",
    }
)
_NO_FRAMES: Final = (
    "NSSA of this TCS is 0, and it can no longer be written: make another page a TCS, with NSSA and"
    " OSSA set while it is PT_REG"
)
_NO_OSSA: Final = "OSSA of the TCS must lead to pages of the enclave"
_AEP: Final = frozenset({"EENTER.02", "ERESUME.02", "ENTRY.15"})


class Call(NamedTuple):
    """A leaf and its operands; `secinfo` is SECINFO.FLAGS at RBX, None if unreadable."""

    leaf: str
    rbx: int
    rcx: int
    rdx: int
    secinfo: int | None

    def operand(self, name: str) -> int:
        """The value of RBX, RCX or RDX."""
        return {"RBX": self.rbx, "RCX": self.rcx, "RDX": self.rdx}[name]


def advice_for_leaf(facts: Facts, call: Call, rule: str, operand: str) -> Advice:
    """Advice for a refused ENCLU leaf; `operand` is the one whose page the facts are about."""
    goal = f"for {call.leaf} to succeed"
    if rule in WORDS:
        return Advice.of(goal, Say(WORDS[rule]))
    if rule == "ACCESS.02" and canonical(call.rbx):
        return Advice.of(goal, Say(_NO_OSSA))
    if rule in CONTENTS:
        return Advice.of(goal, Say(CONTENTS[rule]))
    if rule in TCS_CONTENTS:
        return Advice.of(goal, Say(_tcs_contents(TCS_CONTENTS[rule])))
    if rule in _ALIGNMENT:
        return Advice.of(goal, *_aligned(call))
    if rule in _RANGE:
        return Advice.of(goal, *_within(facts, call))
    if rule in _BUSY:
        return Advice.of(goal, Again("another processor executes a leaf on this page"))
    if rule in _AEP:
        return Advice.of(goal, Canonical("RCX", "the AEP"))
    if rule == "EEXIT.01":
        return Advice.of(goal, Canonical("RBX", "the target"))
    if rule in ("ENTRY.14", "EENTER.09"):
        return _of_tcs_state(facts, goal, rule)
    steps, note = _page_plan(facts, call, operand)
    if not steps:
        steps = nothing_left(facts, rule, "the page is now as the leaf needs it")
    return Advice.of(goal, *steps, note=note)


# Operands


def _aligned(call: Call) -> list[Step]:
    """The operands that are not aligned."""
    return [
        Aligned(name, what, size)
        for (leaf, name), (what, size) in _OPERANDS.items()
        if leaf == call.leaf and call.operand(name) % size
    ]


def _within(facts: Facts, call: Call) -> list[Step]:
    """The operands outside ELRANGE."""
    assert facts.secs is not None
    start, end = facts.secs.BASEADDR, facts.secs.elrange_end
    return [
        Within(name, what, start, end)
        for (leaf, name), (what, _) in _OPERANDS.items()
        if leaf == call.leaf and not start <= call.operand(name) < end
    ]


def _tcs_contents(what: str) -> str:
    return (
        f"{what} while the page is PT_REG: this one can no longer be changed, because EMODT refuses"
        " what is MODIFIED. Make another page a TCS"
    )


# The pages that operands lie in


def _page_plan(facts: Facts, call: Call, operand: str) -> Plan:
    """What the page of an operand needs, depending on what the leaf does to it."""
    leaf = call.leaf
    if operand == "SSA":
        return _frame(facts)
    if leaf in ("EENTER", "ERESUME"):
        return _tcs(facts)
    target = _TARGETS.get(leaf) if operand == "RCX" else None
    if target is None:
        return usable(facts, W if (leaf, operand) in _WRITTEN else R)
    steps, note = area(facts, W if leaf == "EACCEPTCOPY" else R)
    page = page_of(facts)
    if page is None or final(steps):
        return steps, note
    return [*steps, *_unblocked(facts, call, page, target)], note


_Target = Callable[["Facts", Call, Page], list[Step]]


def _unblocked(facts: Facts, call: Call, page: Page, target: _Target) -> list[Step]:
    """The plan for a target page; first what every leaf needs of it."""
    if page.entry is not None and not page.word & VALID:
        return [Say(GONE)]
    if page.word & BLOCKED:
        return [Again(EVICTED_NEXT), *target(facts, call, page._replace(word=page.word & ~BLOCKED))]
    return target(facts, call, page if page.entry is not None else page._replace(word=FRESH))


def _to_accept(facts: Facts, call: Call, page: Page) -> list[Step]:
    """EACCEPT: SECINFO must match the EPCM, and tracking must be complete."""
    word, readings = page.word, facts.lp.processor.readings
    if not word & DUE:
        return [Skip(f"nothing to accept: the page is {word_text(word)} already")]
    if word & PT_MASK == REG and word & MODIFIED:
        return [Say(STUCK)]
    steps: list[Step] = []
    if word & PT_MASK == REG and not word & R and readings.eaccept_needs_read:
        if readings.emodpe_needs_read:
            steps += renewed(facts, page)
            word = FRESH
        else:
            steps.append(Extend(facts.page, R))
            word |= R
    if not _names(call.secinfo, word):
        wanted = word & (EACCEPT_COMPARED | PR)
        if word & PT_MASK != REG:
            wanted &= ~PR
        steps.append(Secinfo(wanted, "that is what the EPCM has"))
    return steps if word == FRESH else [*steps, *_untracked(facts, page)]


def _names(secinfo: int | None, word: int) -> bool:
    """Whether EACCEPT takes this SECINFO for a page with this word."""
    if secinfo is None or (secinfo ^ word) & EACCEPT_COMPARED:
        return False
    if word & PT_MASK == REG:
        return bool(secinfo & (PR | PENDING))
    return not secinfo & PR


def _to_extend(facts: Facts, call: Call, page: Page) -> list[Step]:
    """EMODPE: an accepted PT_REG page, and W only with R."""
    word, readings = page.word, facts.lp.processor.readings
    steps: list[Step] = []
    kind = word & PT_MASK
    if shadow_stack_type(word):
        return [Say("RCX must be the address of a PT_REG page")]
    if kind in (TCS, TRIM):
        steps, word = [*renewed(facts, page), Accept(facts.page, FRESH)], FRESH & ~PENDING
    elif word & MODIFIED:
        return [Say(STUCK)]
    elif word & PENDING:
        steps, word = [Accept(facts.page, word)], word & ~PENDING
    elif not word & R and readings.emodpe_needs_read:
        steps, word = [*renewed(facts, page), Accept(facts.page, FRESH)], FRESH & ~PENDING
    asked = (call.secinfo or 0) & RWX
    if not word & R and asked & (R | W) == W:
        steps.append(Secinfo(REG | asked | R, "W without R does not exist"))
    return steps


def _to_copy(facts: Facts, call: Call, page: Page) -> list[Step]:
    """EACCEPTCOPY: a page as EAUG makes it."""
    steps: list[Step] = []
    if page.word & ~PR != FRESH:
        if shadow_stack_type(page.word) or (page.word & PT_MASK == REG and page.word & MODIFIED):
            return [Say(STUCK)]
        steps = renewed(facts, page)
    asked = (call.secinfo or 0) & (RWX | PT_MASK)
    if asked & (R | W) == W or asked & PT_MASK != REG:
        rights = asked & RWX | (R if asked & W else 0)
        steps.append(Secinfo(REG | rights, "PT_REG, and W not without R"))
    return steps


_TARGETS: Final[dict[str, _Target]] = {
    "EACCEPT": _to_accept,
    "EMODPE": _to_extend,
    "EACCEPTCOPY": _to_copy,
}


# Entry


def _tcs(facts: Facts) -> Plan:
    """RBX of EENTER and ERESUME: an accepted TCS page, mapped writable."""
    page = page_of(facts)
    if page is None or not page.word & VALID:
        return [OtherTcs("RBX must be the address of a TCS page of an enclave")], ""
    word = page.word
    if word & PT_MASK != TCS:
        made = "; a REG page becomes one by MODIFY_TYPES(PT_TCS) and EACCEPT(TCS MODIFIED)"
        return [OtherTcs("RBX must be the ENCLAVEADDRESS of a TCS page")], made
    steps, note = area(facts, W)
    if final(steps):
        return steps, note
    if word & BLOCKED:
        steps.append(Again(EVICTED_NEXT))
    if word & (PENDING | MODIFIED):
        steps.append(Accept(facts.page, word & ~BLOCKED))
        if page.entry is not None and page.entry.epc_page is not None:
            tcs = tcs_in(facts.lp.processor, page.entry.epc_page.number)
            if tcs.CSSA >= tcs.NSSA:
                return [Say(_NO_FRAMES)], ""
    return steps, note


def _frame(facts: Facts) -> Plan:
    """A page of the SSA frame."""
    steps, note = area(facts, W)
    page = page_of(facts)
    if page is None:
        return [Say(_NO_OSSA)], ""
    if final(steps):
        return steps, note
    more, further = epcm(facts, page, R | W)
    return [*steps, *more], note + further


def _of_tcs_state(facts: Facts, goal: str, rule: str) -> Advice:
    """The TCS is in use, or has no free SSA frame."""
    if rule == "ENTRY.14":
        return Advice(goal, ((OtherTcs("another TCS"),), (_holder(facts),)))
    if not tcs_in(facts.lp.processor, facts.number).NSSA:
        return Advice.of(goal, Say(_NO_FRAMES))
    resume = Say("no SSA frame is free: ERESUME what was interrupted")
    return Advice(goal, ((resume,), (OtherTcs("another TCS"),), (Say("build with more NSSA"),)))


def _holder(facts: Facts) -> Step:
    for lp in facts.lp.processor.lps:
        if lp.secs is not None and lp.tcs_address == facts.page:
            who = facts.history.who(lp.id)
            since = _since(facts, lp.id)
            return Wait((lp.id,), f"{who} is inside on this one since event {since}")
    return Wait((), "")


# Tracking


def _inside(facts: Facts, secs: Secs, before: int) -> list[int]:
    """The processors that entered in epoch `before` or earlier and are still inside."""
    lps = facts.lp.processor.lps
    return [lp.id for lp in lps if lp.secs is secs and lp.epoch <= before]


def _untracked(facts: Facts, page: Page) -> list[Step]:
    """The step for the processors that must leave before the change can be accepted."""
    processor, secs = facts.lp.processor, facts.secs
    resident = page.entry.epc_page if page.entry is not None else None
    if secs is None or resident is None or tracked(processor, secs, resident.number):
        return []
    number = resident.number
    stamped = processor.epcm.stamp[number]
    history = facts.history
    lps = _inside(facts, secs, stamped - 1)
    names = [f"{history.who(n)} (inside since event {_since(facts, n)})" for n in lps]
    return [Leave(tuple(lps), ", ".join(names), stamped > secs.EPOCH)]


def _since(facts: Facts, lp: int) -> int:
    seq, _ = facts.history.entered.get(lp, (0, None))
    return seq
