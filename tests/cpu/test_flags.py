"""RAX and RFLAGS after every leaf: "Flags Affected" of each leaf's page. SDM 3D."""

from collections.abc import Callable

import pytest

from softsgx.cpu import Fault, Status
from softsgx.spec.concurrency import CONCURRENCY
from softsgx.spec.msr import (
    RFLAGS_CF,
    RFLAGS_DF,
    RFLAGS_IF,
    RFLAGS_NT,
    RFLAGS_STATUS,
    RFLAGS_TF,
    RFLAGS_ZF,
)
from softsgx.spec.registers import RAX, RFLAGS
from softsgx.spec.status import SGX_BLKSTATE, SGX_PAGE_NOT_MODIFIABLE
from softsgx.spec.tcs import TCS_DBGOPTIN, TCS_OFF_FLAGS
from tests.cpu.everyleaf import MODE_CHANGES, SILENT, EveryLeaf, every_leaf, in_task
from tests.cpu.table import Attempt, execute

WITH_RESULT = [leaf for leaf in CONCURRENCY if leaf not in (*SILENT, *MODE_CHANGES)]
OTHERS = RFLAGS_DF | RFLAGS_NT  # flags that no leaf touches, beside IF
UPPER = 0xABCD << 32

Run = Callable[[Attempt], Status | None]


@pytest.fixture
def machine() -> EveryLeaf:
    return every_leaf()


def prepared(machine: EveryLeaf, leaf: str, status_flags: int = RFLAGS_STATUS) -> Attempt:
    """The attempt, with the given status flags and some others set, and bits above EAX."""
    attempt = machine.attempt(leaf)
    attempt.lp.regs[RFLAGS] = RFLAGS_IF | OTHERS | 2 | status_flags
    return attempt._replace(leaf=UPPER | attempt.leaf)


RUNS = pytest.mark.parametrize("run", [execute, in_task])


@RUNS
@pytest.mark.parametrize("leaf", WITH_RESULT)
def test_success_is_rax_zero_and_clear_status_flags(
    machine: EveryLeaf, leaf: str, run: Run
) -> None:
    attempt = prepared(machine, leaf)
    assert run(attempt) == 0
    assert attempt.lp.regs[RAX] == 0
    assert attempt.lp.regs[RFLAGS] == RFLAGS_IF | OTHERS | 2


@RUNS
@pytest.mark.parametrize("status_flags", [0, RFLAGS_STATUS])
@pytest.mark.parametrize("leaf", SILENT)
def test_a_leaf_without_result_touches_neither(
    machine: EveryLeaf, leaf: str, status_flags: int, run: Run
) -> None:
    attempt = prepared(machine, leaf, status_flags)
    assert run(attempt) is None
    assert attempt.lp.regs[RAX] == attempt.leaf
    assert attempt.lp.regs[RFLAGS] == RFLAGS_IF | OTHERS | 2 | status_flags


@RUNS
@pytest.mark.parametrize("status_flags", [0, RFLAGS_STATUS])
def test_an_error_is_zf_alone(machine: EveryLeaf, status_flags: int, run: Run) -> None:
    attempt = prepared(machine, "EMODPR", status_flags)
    pending = machine.bare.address(machine.enclave.pages[machine.pending])
    assert run(attempt._replace(rcx=pending)) == SGX_PAGE_NOT_MODIFIABLE
    assert attempt.lp.regs[RAX] == SGX_PAGE_NOT_MODIFIABLE
    assert attempt.lp.regs[RFLAGS] == RFLAGS_IF | OTHERS | 2 | RFLAGS_ZF


@RUNS
@pytest.mark.parametrize("status_flags", [0, RFLAGS_STATUS])
def test_an_information_is_cf_alone(machine: EveryLeaf, status_flags: int, run: Run) -> None:
    attempt = prepared(machine, "EBLOCK", status_flags)
    blocked = machine.bare.address(machine.blocked)
    assert run(attempt._replace(rcx=blocked)) == SGX_BLKSTATE
    assert attempt.lp.regs[RAX] == SGX_BLKSTATE
    assert attempt.lp.regs[RFLAGS] == RFLAGS_IF | OTHERS | 2 | RFLAGS_CF


@RUNS
@pytest.mark.parametrize(
    "leaf", [leaf for leaf in CONCURRENCY if leaf not in ("EDECCSSA", "EEXIT")]
)
def test_a_fault_touches_neither(machine: EveryLeaf, leaf: str, run: Run) -> None:
    attempt = prepared(machine, leaf)
    odd = attempt._replace(rbx=attempt.rbx | 1, rcx=attempt.rcx | 1, rdx=attempt.rdx | 1)
    with pytest.raises(Fault):
        run(odd)
    assert attempt.lp.regs[RAX] == attempt.leaf
    assert attempt.lp.regs[RFLAGS] == RFLAGS_IF | OTHERS | 2 | RFLAGS_STATUS


@RUNS
@pytest.mark.parametrize("opt_in", [False, True])
def test_eenter_changes_tf_alone(machine: EveryLeaf, opt_in: bool, run: Run) -> None:
    attempt = prepared(machine, "EENTER", RFLAGS_STATUS | RFLAGS_TF)
    processor, tcs = machine.processor, machine.enclave.pages[attempt.rbx]
    flags = TCS_DBGOPTIN if opt_in else 0
    processor.memory.write(processor.epc.physical(tcs) + TCS_OFF_FLAGS, bytes([flags]))
    assert run(attempt) is None
    assert attempt.lp.regs[RAX] == 0  # CSSA
    kept = RFLAGS_TF if opt_in else 0
    assert attempt.lp.regs[RFLAGS] == RFLAGS_IF | OTHERS | 2 | RFLAGS_STATUS | kept


@RUNS
def test_eexit_touches_neither_rax_nor_status_flags(machine: EveryLeaf, run: Run) -> None:
    attempt = prepared(machine, "EEXIT")
    assert run(attempt) is None
    assert attempt.lp.regs[RAX] == attempt.leaf
    assert attempt.lp.regs[RFLAGS] == RFLAGS_IF | OTHERS | 2 | RFLAGS_STATUS
