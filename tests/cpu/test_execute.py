"""ENCLS, ENCLU, ENCLV before a leaf: the checks, their order, and RAX as leaf number."""

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from softsgx.cpu import SGX1_PART, Bare, Fault, LogicalProcessor, Part, Processor
from softsgx.sim import Unmodelled
from softsgx.spec import faults, leaves
from softsgx.spec.epcm import PR, REG, VALID, R
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES, SGX1
from softsgx.spec.msr import (
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    FEATURE_LOCK,
    FEATURE_SGX_ENABLE,
    RFLAGS_STATUS,
)
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS

# Leaves that are not announced fault, as on a part without them, instead of raising Unmodelled.
LEGACY = Part(absent_leaves_fault=True)
TARGET = 0x40_2000

Call = Callable[[], object]


class State(NamedTuple):
    """A processor about to execute an instruction: what differs from one that would succeed.

    `clear` and `set` are bits of CR0, `control` is IA32_FEATURE_CONTROL; `leaf` and `cpl` are the
    instruction's own if None.
    """

    instruction: str
    clear: int = 0
    set: int = 0
    control: int = FEATURE_LOCK | FEATURE_SGX_ENABLE
    leaf: int | None = None
    cpl: int | None = None
    inside: bool | None = None
    part: Part = LEGACY


def start(state: State) -> tuple[LogicalProcessor, Call]:
    """The processor, and the instruction: ETRACK, EEXIT or EDECVIRTCHILD if no leaf is given."""
    bare = Bare(processor=Processor(16, part=state.part))
    enclave = bare.enclave()
    if state.instruction == "enclu" if state.inside is None else state.inside:
        enclave.enter()
    lp, secs = bare.lp, bare.address(enclave.secs)
    lp.cr0 = lp.cr0 & ~state.clear | state.set
    lp.feature_control = state.control
    leaf = state.leaf
    if state.instruction == "encls":
        leaf, cpl = leaves.ETRACK if leaf is None else leaf, state.cpl or 0
        return lp, lambda: lp.encls(leaf, 0, secs, cpl=cpl)
    if state.instruction == "enclu":
        leaf, cpl = leaves.EEXIT if leaf is None else leaf, 3 if state.cpl is None else state.cpl
        return lp, lambda: lp.enclu(leaf, TARGET, cpl=cpl)
    return lp, lambda: lp.enclv(leaves.EDECVIRTCHILD)


class Row(NamedTuple):
    """A rule, the state that it refuses, the vector; `note` tells rows of one rule apart."""

    rule: str
    state: State
    vector: int
    note: str = ""


def row_id(row: Row) -> str:
    """The name of a row in pytest's output."""
    return f"{row.rule}-{row.note}" if row.note else row.rule


def absent(instruction: str, rule: str) -> list[Row]:
    """Every leaf that a part with nothing but SGX1 lacks."""
    table = ENCLS_LEAVES if instruction == "encls" else ENCLU_LEAVES
    part = Part(
        sgx2=False, oversub=False, edeccssa=False, kss=False, aexnotify=False,
        absent_leaves_fault=True,
    )  # fmt: skip
    return [
        Row(rule, State(instruction, leaf=number, part=part), faults.GP, f"{name} on SGX1")
        for number, (name, extension) in table.items()
        if extension != SGX1
    ]


GP, UD, NM = faults.GP, faults.UD, faults.NM
S, U = State("encls"), State("enclu")
INSIDE_ONLY = [0, 1, 4, 5, 6, 7, 9]

ROWS: list[Row] = [
    Row("ENCLS.01", S._replace(clear=CR0_PE), UD),
    Row("ENCLS.02", S._replace(cpl=1), UD, "CPL 1"),
    Row("ENCLS.02", S._replace(cpl=3), UD, "CPL 3"),
    Row("ENCLS.02", S._replace(inside=True), UD, "inside an enclave"),
    Row("ENCLS.03", S._replace(control=FEATURE_SGX_ENABLE), GP, "not locked"),
    Row("ENCLS.03", S._replace(control=FEATURE_LOCK), GP, "not enabled"),
    Row("ENCLS.04", S._replace(leaf=0x14), GP, "no such leaf"),
    Row("ENCLS.04", S._replace(leaf=leaves.EUPDATESVN), GP, "EUPDATESVN"),
    Row("ENCLS.04", S._replace(leaf=0xFFFF_FFFF), GP, "largest number"),
    *absent("encls", "ENCLS.04"),
    Row("ENCLS.05", S._replace(clear=CR0_PG), GP),
    Row("ENCLU.01", U._replace(clear=CR0_PE), UD),
    Row("ENCLU.02", U._replace(set=CR0_TS), NM),
    Row("ENCLU.03", U._replace(cpl=0), UD, "CPL 0"),
    Row("ENCLU.03", U._replace(cpl=2), UD, "CPL 2"),
    Row("ENCLU.04", U._replace(control=FEATURE_SGX_ENABLE), GP, "not locked"),
    Row("ENCLU.04", U._replace(control=FEATURE_LOCK), GP, "not enabled"),
    Row("ENCLU.05", U._replace(leaf=0x0A), GP, "no such leaf"),
    Row("ENCLU.05", U._replace(leaf=leaves.EVERIFYREPORT2), GP, "EVERIFYREPORT2"),
    Row("ENCLU.05", U._replace(leaf=0x8000_0004), GP, "bit 31"),
    *absent("enclu", "ENCLU.05"),
    Row("ENCLU.06", U._replace(clear=CR0_PG), GP),
    Row("ENCLU.07", U._replace(clear=CR0_NE), GP),
    Row("ENCLU.08", U._replace(leaf=leaves.EENTER), GP, "EENTER"),
    Row("ENCLU.08", U._replace(leaf=leaves.ERESUME), GP, "ERESUME"),
    *(
        Row("ENCLU.09", U._replace(leaf=n, inside=False), GP, ENCLU_LEAVES[n][0])
        for n in INSIDE_ONLY
    ),
    Row("ENCLV.01", State("enclv"), UD),
]


def fault_of(call: Call) -> Fault:
    """The fault that a call must raise."""
    with pytest.raises(Fault) as refusal:
        call()
    return refusal.value


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_execute_refuses(row: Row) -> None:
    lp, call = start(row.state)
    lp.regs[RFLAGS] |= RFLAGS_STATUS
    flags, others = lp.regs[RFLAGS], lp.processor.lps[1].key()
    before = lp.processor.epcm.digest_bytes(), lp.processor.memory.digest(), lp.tlb.entries.copy()
    fault = fault_of(call)
    assert (fault.vector, fault.code, fault.rule) == (row.vector, 0, row.rule)
    after = lp.processor.epcm.digest_bytes(), lp.processor.memory.digest(), lp.tlb.entries
    assert (after, lp.regs[RFLAGS], lp.processor.lps[1].key()) == (before, flags, others)


@pytest.mark.parametrize("state", [S, U], ids=["encls", "enclu"])
def test_nothing_else_refuses(state: State) -> None:
    _, call = start(state)
    call()


# The order of the checks. States are merged field by field; each earlier rule must win.
ENCLS_ORDER = {
    "ENCLS.01": {"clear": CR0_PE},
    "ENCLS.02": {"cpl": 3},
    "ENCLS.03": {"control": 0},
    "ENCLS.04": {"leaf": 0x14},
    "ENCLS.05": {"clear": CR0_PG},
}
ENCLU_ORDER = {
    "ENCLU.01": {"clear": CR0_PE},
    "ENCLU.02": {"set": CR0_TS},
    "ENCLU.03": {"cpl": 0},
    "ENCLU.04": {"control": 0},
    "ENCLU.05": {"leaf": 0x0A},
    "ENCLU.06": {"clear": CR0_PG},
    "ENCLU.07": {"clear": CR0_NE},
    "ENCLU.08": {"leaf": leaves.EENTER},
}
ENCLU_ORDER_OUTSIDE = {**ENCLU_ORDER, "ENCLU.09": {"inside": False}}
del ENCLU_ORDER_OUTSIDE["ENCLU.08"]
PAIRS = [
    (state, order, first, second)
    for state, order in ((S, ENCLS_ORDER), (U, ENCLU_ORDER), (U, ENCLU_ORDER_OUTSIDE))
    for first, second in combinations(order, 2)
]


@pytest.mark.parametrize(
    ("state", "order", "first", "second"), PAIRS, ids=[f"{p[2]}-{p[3]}" for p in PAIRS]
)
def test_the_earlier_check_wins(
    state: State, order: dict[str, dict[str, Any]], first: str, second: str
) -> None:
    both = {**order[second], **order[first]}
    if "clear" in order[first] and "clear" in order[second]:
        both["clear"] = order[first]["clear"] | order[second]["clear"]
    assert fault_of(start(state._replace(**both))[1]).rule == first


def test_a_leaf_that_is_not_modelled_says_so() -> None:
    calls = {
        "ENCLS[EUPDATESVN]": start(State("encls", leaf=leaves.EUPDATESVN, part=Part())),
        "ENCLU[EVERIFYREPORT2]": start(State("enclu", leaf=leaves.EVERIFYREPORT2, part=Part())),
        "ENCLV[EDECVIRTCHILD]": start(State("enclv", part=Part())),
    }
    for name, (_, call) in calls.items():
        with pytest.raises(Unmodelled) as unmodelled:
            call()
        assert str(unmodelled.value) == name


@pytest.mark.parametrize("inside", [False, True])
def test_everifyreport2_may_be_executed_anywhere(inside: bool) -> None:
    # It passes the test of the mode; then the model has no body for it.
    state = State("enclu", leaf=leaves.EVERIFYREPORT2, inside=inside, part=Part())
    with pytest.raises(Unmodelled):
        start(state)[1]()


@pytest.mark.parametrize("leaf", [n for n in ENCLS_LEAVES if ENCLS_LEAVES[n][1] == SGX1])
def test_an_sgx1_part_has_the_sgx1_leaves(leaf: int) -> None:
    bare = Bare(processor=Processor(16, part=SGX1_PART))
    # Operands of zero: the leaf itself refuses, under its own rule, or ENCLS would have.
    family = "ELD" if ENCLS_LEAVES[leaf][0].startswith("ELD") else ENCLS_LEAVES[leaf][0]
    rule = fault_of(lambda: bare.lp.encls(leaf, 1, 1, 1)).rule
    assert rule == f"{family}.01"


# RAX


@pytest.mark.parametrize("upper", [0, 1 << 32, 0xFFFF_FFFF << 32])
def test_the_upper_half_of_rax_is_no_part_of_the_leaf_number(upper: int) -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    page = enclave.pages[enclave.data[0]]
    assert bare.lp.encls(upper | leaves.EMODPR, bare.secinfo(R), bare.address(page)) == 0
    assert bare.word(page) == VALID | REG | PR | R
    enclave.enter()
    bare.lp.enclu(upper | leaves.EEXIT, TARGET)
    assert not bare.lp.enclave_mode


def test_the_upper_half_is_ignored_in_tasks_too() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    page = enclave.pages[enclave.data[0]]
    body = bare.lp.encls_steps(0x1_0000_000E, bare.secinfo(R), bare.address(page))
    assert next(body)[0] == "EMODPR"
    with pytest.raises(StopIteration):
        next(body)
    enclave.enter()
    exit_body = bare.lp.enclu_steps(0x1_0000_0004, TARGET)
    assert next(exit_body)[0] == "EEXIT"
    exit_body.close()


def test_the_operands_are_in_the_registers_of_a_refused_program() -> None:
    bare = Bare(16)
    fault_of(lambda: bare.lp.encls(1 << 63 | 0x14, 11, 22, 33))
    assert [bare.lp.regs[r] for r in (RAX, RBX, RCX, RDX)] == [1 << 63 | 0x14, 11, 22, 33]


@pytest.mark.parametrize("value", [-1, 1 << 64])
@pytest.mark.parametrize("place", range(4))
def test_what_no_register_holds_is_no_operand(place: int, value: int) -> None:
    operands = [leaves.ETRACK, 0, 0, 0]
    operands[place] = value
    with pytest.raises(ValueError, match="is not a 64-bit register value"):
        Bare(16).lp.encls(*operands)
