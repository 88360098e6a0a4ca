"""The concurrency tables, driven by their data: every claim against every leaf that could hold it.

A leaf is put in flight on the resource, then the leaf that claims it is executed, as a task and at
once. What must follow is computed from the table by the manual's own sentence: two holders conflict
unless both are shared, and a group restricts only against its own members.
"""

import pytest

from softsgx.cpu import Fault
from softsgx.sim import Execution, Follow, Steps
from softsgx.spec import faults
from softsgx.spec.concurrency import BASE, CONCURRENCY, EXCLUSIVE, GP, REFUSED, SHARED, B, Claim, M
from softsgx.spec.msr import RFLAGS_STATUS, RFLAGS_ZF
from softsgx.spec.registers import RFLAGS
from tests.cpu.everyleaf import EveryLeaf, every_leaf, steps_of
from tests.cpu.table import Attempt, execute

# The check that reports a conflict, per claim of the table.
RULES = {
    "ECREATE": ("ECREATE.09",),
    "EADD": ("EADD.11", "EADD.13", "EADD.20"),
    "EEXTEND": ("EEXTEND.05", "EEXTEND.09"),
    "EINIT": ("EINIT.08", "EINIT.11"),
    "EAUG": ("EAUG.09", "EAUG.13"),
    "EBLOCK": ("EBLOCK.03", "EBLOCK.04"),
    "ETRACK": ("ETRACK.03", "ETRACK.03"),
    "ETRACKC": ("ETRACKC.03", "ETRACKC.06"),
    "EWB": ("EWB.10", "EWB.11"),
    "ELDB": ("ELD.08", "ELD.09", "ELD.14"),
    "ELDU": ("ELD.08", "ELD.09", "ELD.14"),
    "ELDBC": ("ELD.08", "ELD.09", "ELD.14"),
    "ELDUC": ("ELD.08", "ELD.09", "ELD.14"),
    "EPA": ("EPA.04",),
    "EREMOVE": ("EREMOVE.03",),
    "EMODPR": ("EMODPR.06", "EMODPR.08"),
    "EMODT": ("EMODT.06", "EMODT.08"),
    "EDBGRD": ("EDBGRD.03",),
    "EDBGWR": ("EDBGWR.03",),
    "ERDINFO": ("ERDINFO.04",),
    "EACCEPT": ("EACCEPT.18", "EACCEPT.18"),
    "EACCEPTCOPY": ("EACCEPTCOPY.15",),
    "EMODPE": ("EMODPE.14",),
    "EENTER": ("EENTER.04",),
    "ERESUME": ("ERESUME.04",),
    "EDECCSSA": ("EDECCSSA.01",),
    "EEXIT": (),
    "EGETKEY": (),
    "EREPORT": (),
}
CLAIMS = [(leaf, index) for leaf, claims in CONCURRENCY.items() for index in range(len(claims))]
# Every leaf that holds anything of a kind, and by which operand.
HOLDERS = [
    (leaf, held) for leaf, claims in CONCURRENCY.items() for held in claims if held.mode != REFUSED
]

Outcome = tuple[str | int, str]
THROUGH: Outcome = (0, "")


@pytest.fixture
def machine() -> EveryLeaf:
    return every_leaf()


def outcome_of(attempt: Attempt) -> Outcome:
    """The result of an attempt, executed at once."""
    try:
        status = execute(attempt)
    except Fault as fault:
        return refused(fault)
    return THROUGH if status is None else (int(status), status.rule)


def refused(fault: Fault) -> Outcome:
    """A conflict faults as #GP(0) only."""
    assert (fault.vector, fault.code) == (faults.GP, 0), str(fault)
    return GP, fault.rule


def task_of(attempt: Attempt) -> Steps[Outcome]:
    """Its result as a task."""
    try:
        status = yield from steps_of(attempt)
    except Fault as fault:
        return refused(fault)
    return THROUGH if status is None else (int(status), status.rule)


def conflicting(
    leaf: str, given: dict[str, int], holder: str, held: dict[str, int]
) -> tuple[int, Claim] | None:
    """The first claim of `leaf` that conflicts with one of `holder`, and its place."""
    for index, claim in enumerate(CONCURRENCY[leaf]):
        for other in CONCURRENCY[holder]:
            same = held.get(other.operand, -1) == given[claim.operand] and other.kind == claim.kind
            both_shared = claim.mode == other.mode == SHARED
            if same and other.mode != REFUSED and not both_shared:
                return index, claim
    return None


def expected(leaf: str, conflict: tuple[int, Claim] | None) -> Outcome:
    """The result in the table, under the leaf's own rule."""
    return THROUGH if conflict is None else (conflict[1].result, RULES[leaf][conflict[0]])


def verify(machine: EveryLeaf, leaf: str, holder: str, operand: str, page: int) -> int:
    """Execute `leaf` while `holder` is in flight on a page; the place of the claim that refused."""
    machine.reset()
    processor = machine.processor
    execution = Execution(Follow("1:b"), log=processor.log)
    body, held = machine.holding(holder, operand, page)
    execution.spawn(body, holder, cpu=2, daemon=True)
    taken = dict(processor.claims)
    conflict = conflicting(leaf, machine.claimed(leaf), holder, held.claimed)
    what = f"{leaf} while {holder} is in flight on {operand}"

    task = execution.spawn(task_of(machine.attempt(leaf)), leaf, cpu=0)
    execution.run()
    assert task.result == expected(leaf, conflict), what
    assert processor.claims == taken, what
    execution.close()
    assert not processor.claims, what

    machine.reset()
    body, _ = machine.holding(holder, operand, page)
    next(body)
    assert outcome_of(machine.attempt(leaf)) == expected(leaf, conflict), f"{what}, at once"
    body.close()
    return -1 if conflict is None else conflict[0]


@pytest.mark.parametrize("leaf", CONCURRENCY)
def test_a_leaf_goes_through_alone(machine: EveryLeaf, leaf: str) -> None:
    assert outcome_of(machine.attempt(leaf)) == THROUGH
    machine.reset()
    execution = Execution(Follow("1:"))
    task = execution.spawn(task_of(machine.attempt(leaf)), leaf)
    execution.run()
    assert task.result == THROUGH


@pytest.mark.parametrize("leaf", CONCURRENCY)
def test_a_leaf_in_flight_holds_what_the_table_lists(machine: EveryLeaf, leaf: str) -> None:
    given = machine.claimed(leaf)
    assert set(given) == {claim.operand for claim in CONCURRENCY[leaf]}
    body = steps_of(machine.attempt(leaf))
    next(body)
    kinds = {BASE: 0, M: 1, B: 2}
    assert machine.processor.claims == {
        given[c.operand] << 2 | kinds.get(c.kind, 3): -1 if c.mode == EXCLUSIVE else 1
        for c in CONCURRENCY[leaf]
        if c.mode != REFUSED
    }
    body.close()


@pytest.mark.parametrize(
    ("leaf", "index"), CLAIMS, ids=[f"{leaf}-{CONCURRENCY[leaf][i].busy}" for leaf, i in CLAIMS]
)
def test_a_claim_meets_every_holder(machine: EveryLeaf, leaf: str, index: int) -> None:
    claim = CONCURRENCY[leaf][index]
    page = machine.claimed(leaf)[claim.operand]
    places = [
        verify(machine, leaf, holder, held.operand, page)
        for holder, held in HOLDERS
        if held.kind == claim.kind
    ]
    # Some holder is refused by this very claim, and a shared one lets some other through.
    assert index in places
    if claim.mode == SHARED:
        assert -1 in places


@pytest.mark.parametrize("leaf", ["EEXIT", "EGETKEY", "EREPORT"])
def test_a_leaf_without_claims_conflicts_with_nothing(machine: EveryLeaf, leaf: str) -> None:
    enclave = machine.enclave
    touched = [enclave.pages[address] for address in (enclave.tcs[0], *enclave.data[3:])]
    for holder, held in HOLDERS:
        for page in touched:
            assert verify(machine, leaf, holder, held.operand, page) == -1


def test_a_refusal_by_code_sets_zf_and_no_other_flag(machine: EveryLeaf) -> None:
    for leaf, claims in CONCURRENCY.items():
        for claim in claims:
            machine.reset()
            page = machine.claimed(leaf)[claim.operand]
            holder, held = next(
                (holder, held)
                for holder, held in HOLDERS
                if held.kind == claim.kind
                and conflicting(leaf, machine.claimed(leaf), holder, {held.operand: page})
            )
            body, _ = machine.holding(holder, held.operand, page)
            next(body)
            attempt = machine.attempt(leaf)
            attempt.lp.regs[RFLAGS] |= RFLAGS_STATUS
            code, _rule = outcome_of(attempt)
            flags = attempt.lp.regs[RFLAGS] & RFLAGS_STATUS
            assert flags == (RFLAGS_STATUS if code == GP else RFLAGS_ZF), f"{leaf}, {holder}"
            body.close()


def test_the_second_entry_on_a_busy_tcs_is_stopped_by_its_state(machine: EveryLeaf) -> None:
    first = machine.attempt("EENTER")
    second = first._replace(lp=machine.processor.lps[2])
    execution = Execution(Follow("1:a"))
    tasks = [execution.spawn(task_of(a), f"cpu {a.lp.id}", a.lp.id) for a in (first, second)]
    execution.run()
    # Both are in flight on the TCS at once, shared; what decides is TCS.STATE.
    assert [task.result for task in tasks] == [THROUGH, (GP, "ENTRY.14")]
