"""Rows from cases, so that two spoilt conditions can be put together and the earlier one must win.

A case names what it spoils by keyword arguments of its leaf's builder. Two cases of different
keywords can be spoilt at once: the builder gets both, and the refusal must be that of the case
which stands first. Every case is a row of tests/cpu/table.py as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from softsgx.cpu import Fault, Status
from softsgx.cpu.epc import DEFAULT_EPC_BASE
from softsgx.mem.pagetable import direct
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS
from tests.cpu.table import Attempt, Expected, Row, execute

ENCLS_PFEC: Final = 0x8003  # what KVM injects: P, W, SGX
RAM: Final = direct(0x4000_0000)  # a kernel address that is not EPC

Spoilt = dict[str, Any]


class Case(NamedTuple):
    """A rule, its refusal, what the builder is to spoil; `note` tells cases of a rule apart."""

    rule: str
    expected: Expected
    note: str
    spoilt: Spoilt


def case(rule: str, expected: Expected, note: str = "", /, **spoilt: Any) -> Case:
    """A case; keyword arguments go to the builder."""
    return Case(rule, expected, note, spoilt)


def epc(page: int) -> int:
    """The kernel's address of an EPC page of a processor with one default section."""
    return direct(DEFAULT_EPC_BASE + page * PAGE_SIZE)


def rows(build: Callable[..., Attempt], cases: Sequence[Case]) -> list[Row]:
    """The table of a leaf."""
    return [Row(c.rule, partial(build, **c.spoilt), c.expected, c.note) for c in cases]


def case_id(c: Case) -> str:
    """The name of a case in pytest's output."""
    return f"{c.rule}-{c.note}" if c.note else c.rule


def later(
    first: Case, cases: Sequence[Case], unrelated: Sequence[tuple[str, str]] = ()
) -> Iterator[tuple[Case, Spoilt]]:
    """Every case after `first` that can be spoilt together with it, and both spoils.

    `unrelated` lists pairs of rules, by prefix, of which the second undoes the first.
    """
    for second in cases[cases.index(first) + 1 :]:
        skip = any(first.rule.endswith(a) and second.rule.endswith(b) for a, b in unrelated)
        both = _merged(first.spoilt, second.spoilt)
        if both is not None and second.rule != first.rule and not skip:
            yield second, both


def assert_first_wins(
    build: Callable[..., Attempt],
    first: Case,
    cases: Sequence[Case],
    unrelated: Sequence[tuple[str, str]] = (),
) -> None:
    """Spoil each later case as well: the refusal stays that of `first`."""
    for second, both in later(first, cases, unrelated):
        assert refusal(build(**both)) == first.rule, f"{case_id(first)} with {case_id(second)}"


def refusal(attempt: Attempt) -> str:
    """The rule that refuses an attempt; "" if none does."""
    try:
        status = execute(attempt)
    except Fault as fault:
        return fault.rule
    return "" if status is None else status.rule


def assert_writes_only_rax_and_flags(attempt: Attempt) -> Status:
    """Execute a leaf that ends with a code: nothing but RAX and the status flags may change."""
    lp = attempt.lp
    lp.regs[RAX], lp.regs[RBX], lp.regs[RCX], lp.regs[RDX] = attempt[2:]
    before, saved = lp.processor.fingerprint(), lp.regs[:]
    status = execute(attempt)
    assert status is not None
    assert lp.regs[RAX] == status
    lp.regs[RAX], lp.regs[RFLAGS] = saved[RAX], saved[RFLAGS]
    assert lp.processor.fingerprint() == before, f"{status!r} left a trace"
    return status


def _merged(a: Spoilt, b: Spoilt) -> Spoilt | None:
    """Both, if they spoil different things; dictionaries are merged by their keys."""
    both = dict(a)
    for key, value in b.items():
        if key not in both:
            both[key] = value
        elif both[key] == value and not isinstance(value, dict):
            continue  # the same setting, needed by both
        elif isinstance(value, dict) and not both[key].keys() & value.keys():
            both[key] = {**both[key], **value}
        else:
            return None
    return both
