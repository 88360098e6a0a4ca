"""Which right of the page tables every memory operand of every leaf needs.

The table restates "Memory Parameter Semantics" of SDM 3D for each leaf: r is read, w is written
(or read and written), rw is touched as a read first. The TCS operand is as measured on silicon.
"""

from typing import Final, NamedTuple

import pytest

from softsgx.cpu import Fault
from softsgx.mem.pagetable import DIRECT_MAP, PTE_D, PTE_W
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.concurrency import CONCURRENCY
from softsgx.spec.faults import PF
from softsgx.spec.paging import PAGEINFO
from tests.cpu.everyleaf import ENCLS, EveryLeaf, every_leaf
from tests.cpu.table import Attempt, execute

_ELD: Final = {"RBX": "r", "RCX": "w", "RDX": "w", "SRCPGE": "r", "SECINFO": "r", "SECS": "w"}
OPERANDS: Final[dict[str, dict[str, str]]] = {
    "ECREATE": {"RBX": "r", "RCX": "w", "SRCPGE": "r", "SECINFO": "r"},
    "EADD": {"RBX": "r", "RCX": "w", "SRCPGE": "r", "SECINFO": "r", "SECS": "w"},
    "EINIT": {"RBX": "r", "RCX": "w", "RDX": "r"},
    "EREMOVE": {"RCX": "w"},
    "EDBGRD": {"RCX": "r"},
    "EDBGWR": {"RCX": "w"},
    "EEXTEND": {"RBX": "w", "RCX": "r"},
    **dict.fromkeys(("ELDB", "ELDU", "ELDBC", "ELDUC"), _ELD),
    "EBLOCK": {"RCX": "w"},
    "EPA": {"RCX": "w"},
    "EWB": {"RBX": "rw", "RCX": "w", "RDX": "w", "SRCPGE": "w", "SECINFO": "w"},  # the PCMD
    "ETRACK": {"RCX": "w"},
    "ETRACKC": {"RCX": "w"},
    "EAUG": {"RBX": "r", "RCX": "w", "SECS": "w"},
    "EMODPR": {"RBX": "r", "RCX": "w"},
    "EMODT": {"RBX": "r", "RCX": "w"},
    "ERDINFO": {"RBX": "w", "RCX": "r"},
    "EREPORT": {"RBX": "r", "RCX": "r", "RDX": "w"},
    "EGETKEY": {"RBX": "r", "RCX": "w"},
    "EENTER": {"RBX": "w", "frame": "rw"},
    "ERESUME": {"RBX": "w", "frame": "rw"},
    "EACCEPT": {"RBX": "r", "RCX": "r"},
    "EMODPE": {"RBX": "r", "RCX": "r"},
    "EACCEPTCOPY": {"RBX": "r", "RCX": "w", "RDX": "r"},
    "EDECCSSA": {"frame": "rw"},
    "EEXIT": {},
}
CASES: Final = [(leaf, name, kind) for leaf, row in OPERANDS.items() for name, kind in row.items()]
ELSEWHERE: Final = 0x6000_0000_0000  # user pages to which operands of ENCLS are moved


class Moved(NamedTuple):
    """An attempt whose operand lies at a user address; `at` is where a fault is reported."""

    attempt: Attempt
    address: int
    at: int


def moved(m: EveryLeaf, leaf: str, operand: str) -> Moved:
    """The attempt of `every_leaf`; the page of its operand has a mapping of its own, writable."""
    attempt = m.attempt(leaf)
    if attempt.instruction == "enclu":
        return _in_enclave(m, attempt, operand)
    registers = {"RBX": attempt.rbx, "RCX": attempt.rcx, "RDX": attempt.rdx}
    field = DIRECT_MAP + _offset(attempt, operand) if operand not in registers else 0
    address = registers.get(operand) or m.bare.lp.system_read_int(field, 8)
    linear = ELSEWHERE | address % PAGE_SIZE
    m.processor.space.map(ELSEWHERE, (address - DIRECT_MAP) >> PAGE_SHIFT)
    if operand in registers:
        registers[operand] = linear
        rbx, rcx, rdx = registers.values()
        return Moved(attempt._replace(rbx=rbx, rcx=rcx, rdx=rdx), linear, linear)
    m.processor.memory.write(field - DIRECT_MAP, linear.to_bytes(8, "little"))
    return Moved(attempt, linear, linear)


def _offset(attempt: Attempt, field: str) -> int:
    """Physical address of a field of the PAGEINFO."""
    fields = ("LINADDR", "SRCPGE", "SECINFO", "SECS")
    assert 8 * len(fields) == PAGEINFO.SIZE
    return attempt.rbx - DIRECT_MAP + 8 * fields.index(field)


def _in_enclave(m: EveryLeaf, attempt: Attempt, operand: str) -> Moved:
    if operand == "frame":
        thread = {2: 2, 3: 3}.get(attempt.leaf, 0)  # EENTER, ERESUME, and who is inside
        linear = m.enclave.tcs[thread] + PAGE_SIZE
        return Moved(attempt, linear, linear)
    linear = {"RBX": attempt.rbx, "RCX": attempt.rcx, "RDX": attempt.rdx}[operand]
    tcs = attempt.leaf in (2, 3)
    return Moved(attempt, linear, linear | 0xFFF if tcs else linear)


def refused(attempt: Attempt) -> tuple[int, int, int]:
    with pytest.raises(Fault) as caught:
        execute(attempt)
    return caught.value.vector, caught.value.code, caught.value.address


def test_the_table_has_every_leaf_and_register() -> None:
    assert set(OPERANDS) == set(CONCURRENCY)


@pytest.mark.parametrize(("leaf", "operand", "kind"), CASES)
def test_an_operand_needs_the_right_of_its_kind(leaf: str, operand: str, kind: str) -> None:
    """Mapped with W the leaf goes through; without W only if it reads; not at all without a page.

    A write sets D, a read leaves it.
    """
    user = 0 if leaf in ENCLS else 4
    m = every_leaf()
    space = m.processor.space
    case = moved(m, leaf, operand)
    space.set(case.address & -PAGE_SIZE, space.lookup(case.address) & ~PTE_D)
    assert execute(case.attempt) in (0, None)
    assert bool(space.lookup(case.address) & PTE_D) is ("w" in kind)

    m = every_leaf()
    case = moved(m, leaf, operand)
    space.set(case.address & -PAGE_SIZE, space.lookup(case.address) & ~PTE_W)
    if "w" in kind:
        assert refused(case.attempt) == (PF, user | 3, case.at)
    else:
        assert execute(case.attempt) in (0, None)

    m = every_leaf()
    case = moved(m, leaf, operand)
    space.unmap(case.address & -PAGE_SIZE)
    assert refused(case.attempt) == (PF, user | (2 if kind == "w" else 0), case.at)
