"""The form of a table test: one row per check of the model.

A row names the rule, builds the state in which exactly that check refuses, and says what the
refusal is. `run_row` executes the leaf and verifies the kind of refusal, its code, address and
rule, and that a fault left no trace: EPCM, SECS, TCS, contents, TLBs and flags unchanged.
tests/cpu/test_rules.py verifies that the rules of the code and the rows of all tables are the same
set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from softsgx.cpu import Fault, LogicalProcessor, Status
from softsgx.cpu.ring0 import Ring0
from softsgx.spec import faults
from softsgx.spec.msr import RFLAGS_CF, RFLAGS_STATUS, RFLAGS_ZF
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS


class Attempt(NamedTuple):
    """An instruction about to be executed: "encls" or "enclu", leaf number and operands."""

    lp: LogicalProcessor
    instruction: str
    leaf: int
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0


class Expected(NamedTuple):
    """A refusal: "fault" with vector, error code and address; or "code" with RAX and flag."""

    kind: str
    value: int
    code: int = 0
    address: str | int = ""


class Row(NamedTuple):
    """Rule id, the state builder, the refusal; `note` tells rows of one rule apart."""

    rule: str
    build: Callable[[], Attempt]
    expected: Expected
    note: str = ""


def gp() -> Expected:
    """#GP(0)."""
    return Expected("fault", faults.GP)


def pf(address: str | int, code: int) -> Expected:
    """#PF; `address` is the operand that faults, or a linear address.

    An operand is "rbx", "rcx", "rdx"; "rbx page" is the last byte of the page that RBX points at.
    """
    return Expected("fault", faults.PF, code, address)


def code(value: int) -> Expected:
    """RAX = value, ZF = 1."""
    return Expected("code", value, RFLAGS_ZF)


def info(value: int) -> Expected:
    """RAX = value, CF = 1."""
    return Expected("code", value, RFLAGS_CF)


def row_id(row: Row) -> str:
    """The name of a row in pytest's output."""
    return f"{row.rule}-{row.note}" if row.note else row.rule


def run_row(row: Row) -> None:
    """Execute the attempt of a row and verify the refusal."""
    attempt = row.build()
    lp = attempt.lp
    # As the program would: operands in registers, all status flags set, to see what is written.
    operands = {RAX: attempt.leaf, RBX: attempt.rbx, RCX: attempt.rcx, RDX: attempt.rdx}
    for number, value in operands.items():
        lp.regs[number] = value
    lp.regs[RFLAGS] |= RFLAGS_STATUS
    before = lp.processor.fingerprint()
    if row.expected.kind == "fault":
        fault = _fault_of(attempt)
        assert (fault.vector, fault.rule) == (row.expected.value, row.rule), str(fault)
        assert fault.code == row.expected.code, str(fault)
        if fault.vector == faults.PF:
            assert fault.address == _address(attempt, row.expected.address), str(fault)
        assert lp.processor.fingerprint() == before, "a fault left a trace"
        return
    status = execute(attempt)
    assert isinstance(status, Status)
    assert (int(status), status.rule) == (row.expected.value, row.rule)
    assert lp.regs[RAX] == row.expected.value
    assert lp.regs[RFLAGS] & RFLAGS_STATUS == row.expected.code


def execute(attempt: Attempt) -> Status | None:
    """Execute an attempt."""
    lp = attempt.lp
    run = lp.encls if attempt.instruction == "encls" else lp.enclu
    return run(attempt.leaf, attempt.rbx, attempt.rcx, attempt.rdx)


def _fault_of(attempt: Attempt) -> Fault:
    try:
        status = execute(attempt)
    except Fault as fault:
        return fault
    raise AssertionError(f"no fault, but {status!r}")


def _address(attempt: Attempt, address: str | int) -> int:
    if isinstance(address, int):
        return address
    operands = {"rbx": attempt.rbx, "rcx": attempt.rcx, "rdx": attempt.rdx}
    return operands[address] if address in operands else attempt.rbx | 0xFFF


def hold(bare: Ring0, page: int, kind: int, *, exclusive: bool = True) -> None:
    """Pretend that another leaf holds a resource: kind 0 base lock, 1 M, 2 B, 3 T (cpu.claims)."""
    bare.processor.claims[page << 2 | kind] = -1 if exclusive else 1
