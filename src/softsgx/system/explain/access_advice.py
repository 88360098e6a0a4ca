"""Advice for refused accesses and instructions: the steps after which they succeed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.report.steps import Advice, Again, Canonical, Say, Step
from softsgx.spec.epcm import R, W, X
from softsgx.spec.translation import FETCH, READ, SHADOW, SHADOW_READ, SHADOW_WRITE, WRITE
from softsgx.system.explain.plans import nothing_left, usable

if TYPE_CHECKING:
    from softsgx.system.explain.facts import Facts

_VERBS: Final = {
    READ: "read",
    WRITE: "write",
    FETCH: "execute",
    SHADOW_READ: "pop",
    SHADOW_WRITE: "push",
}
# What an access needs of VMA and PTE; a shadow stack is mapped without W.
_RIGHTS: Final = {READ: R, WRITE: W, FETCH: X, SHADOW_READ: R, SHADOW_WRITE: R}
_LEAVE: Final = "leave by EEXIT first: code outside ELRANGE never runs in enclave mode"

# Advice that does not depend on the state.
_ACCESSES: Final[dict[str, Step]] = {
    "ACCESS.01": Say(_LEAVE),
    "ACCESS.02": Canonical("the address", "as every linear address"),
    "ACCESS.03": Say(_LEAVE),
    "ACCESS.13": Again("only the old translation refused, and the exit has dropped it"),
    "ACCESS.14": Say("end the code before the end of ELRANGE: no instruction may cross it"),
    "ACCESS.15": Say("set SSP by RSTORSSP: a shadow stack of the enclave lies in ELRANGE"),
    "ACCESS.16": Say("a shadow stack is made of PT_SS_FIRST and PT_SS_REST pages (EADD or EAUG)"),
    "ACCESS.17": Say("by CALL or WRSS: only shadow-stack accesses change a shadow stack"),
    "PAGING.02": Say("use an address of user space"),
    "PAGING.07": Say("the page table must map a shadow stack with R/W = 0 and D = 1"),
}
_INSTRUCTIONS: Final[dict[str, str]] = {
    "CODE.01": "leave it out, or let a handler, in the enclave or the host, skip it",
    "CODE.02": "move it out of the enclave: EEXIT, or let the exception handler emulate it",
    "CODE.03": "INT3 in an enclave entered with DBGOPTIN: for the debugger",
    "CODE.04": "an exception of the program itself: a handler, in the enclave or the host, decides",
    "CODE.05": "--engine native executes what this processor has, and XFRM allows",
}


def advice_for_access(facts: Facts, access: int, rule: str) -> Advice:
    """Advice for a refused access."""
    goal = f"to {_VERBS[access]} again"
    if rule in _ACCESSES:
        return Advice.of(goal, _ACCESSES[rule])
    steps, note = usable(facts, _RIGHTS[access], 0 if access & SHADOW else None)
    if not steps:
        steps = nothing_left(facts, rule, "the page permits it now")
    elif rule == "ACCESS.12" and all(step.where for step in steps):
        note += "; VMA and PTE already allow it"
    if facts.secs is None and not note and facts.encl is not None:
        note = " (from outside it reads as ones, and writes are dropped: it is EPC)"
    return Advice.of(goal, *steps, note=note)


def advice_for_instruction(rule: str) -> Advice:
    """Advice for an instruction that was refused or raised an exception."""
    return Advice.of("to go on", Say(_INSTRUCTIONS[rule]))
