"""Leaves in flight: which may overlap, in the words of the manual, and when a claim ends.

tests/cpu/test_concurrency.py verifies the table entry by entry; here stand its consequences, named
leaf by leaf, so that a change of the table has to be meant.
"""

from itertools import permutations

import pytest

from softsgx.cpu import Fault
from softsgx.sim import Execution, Follow, Point, Steps
from softsgx.spec import faults
from softsgx.spec.concurrency import CONCURRENCY, OWNER, PAGEINFO_SECS, RBX, RCX, RDX
from softsgx.spec.epcm import BLOCKED, PR, REG, TRIM, VALID, R
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PREV_TRK_INCMPL
from tests.cpu.everyleaf import ENCLS, EveryLeaf, every_leaf, steps_of
from tests.cpu.table import Attempt, execute

GROUP_M = ("EACCEPT", "EACCEPTCOPY", "EMODPE", "EMODPR", "EMODT")
# Leaves that take the page in RCX for themselves, and those that share it.
ALONE = (
    *("ECREATE", "EADD", "EAUG", "EPA", "EREMOVE", "EWB", "EMODT"),
    *("ELDB", "ELDU", "ELDBC", "ELDUC"),
)
SHARING = (
    *("EEXTEND", "EINIT", "EBLOCK", "ETRACK", "ETRACKC", "EMODPR", "EDBGRD", "EDBGWR"),
    *("ERDINFO", "EACCEPT"),
)
BY_CODE = ("EBLOCK", "ETRACKC", "ELDBC", "ELDUC", "EMODT", "ERDINFO")


@pytest.fixture
def machine() -> EveryLeaf:
    return every_leaf()


def result_of(attempt: Attempt) -> str | int:
    """RAX, 0 for a leaf without one, or the name of the fault."""
    try:
        status = execute(attempt)
    except Fault as fault:
        return faults.VECTOR_NAMES[fault.vector]
    return 0 if status is None else int(status)


def meets(machine: EveryLeaf, leaf: str, holder: str, operand: str, page: int) -> str | int:
    """The result of `leaf` while `holder` is in flight with `page` as its `operand`."""
    machine.reset()
    body, _ = machine.holding(holder, operand, page)
    next(body)
    result = result_of(machine.attempt(leaf))
    body.close()
    return result


def on_target(machine: EveryLeaf, leaf: str, holder: str) -> str | int:
    """The result of `leaf` while `holder` is in flight on the page in its RCX."""
    return meets(machine, leaf, holder, RCX, machine.claimed(leaf)[RCX])


def conflict(leaf: str) -> str | int:
    """The result of a base conflict."""
    return SGX_EPC_PAGE_CONFLICT if leaf in BY_CODE else "#GP"


@pytest.mark.parametrize("schedule", ["1:a", "1:b"])
def test_emodpr_and_eblock_may_overlap(machine: EveryLeaf, schedule: str) -> None:
    restrict = machine.attempt("EMODPR")
    block = machine.attempt("EBLOCK")._replace(lp=machine.processor.lps[2])
    execution = Execution(Follow(schedule))
    tasks = [execution.spawn(steps_of(a), f"cpu {a.lp.id}", a.lp.id) for a in (restrict, block)]
    execution.run()
    assert [task.result for task in tasks] == [0, 0]
    assert machine.bare.word(machine.plain) == VALID | REG | R | PR | BLOCKED


@pytest.mark.parametrize(("leaf", "holder"), [(a, b) for a in GROUP_M for b in GROUP_M])
def test_two_m_leaves_on_one_page_never_overlap(machine: EveryLeaf, leaf: str, holder: str) -> None:
    refusal = SGX_EPC_PAGE_CONFLICT if leaf in ("EMODPR", "EMODT") else "#GP"
    # EMODT takes the page for itself, too, and EMODPR looks at that first: both are #GP(0) there.
    if (leaf, holder) == ("EMODPR", "EMODT"):
        refusal = "#GP"
    assert on_target(machine, leaf, holder) == refusal


@pytest.mark.parametrize("alone", ALONE)
def test_who_takes_a_page_alone_overlaps_with_no_claim_on_it(
    machine: EveryLeaf, alone: str
) -> None:
    for other in (*ALONE, *SHARING):
        assert on_target(machine, alone, other) == conflict(alone), f"{alone}, {other} in flight"
        assert on_target(machine, other, alone) == conflict(other), f"{other}, {alone} in flight"


@pytest.mark.parametrize("alone", ALONE)
@pytest.mark.parametrize("entry", ["EENTER", "ERESUME"])
def test_nobody_enters_through_a_tcs_that_is_taken(
    machine: EveryLeaf, entry: str, alone: str
) -> None:
    assert meets(machine, entry, alone, RCX, machine.claimed(entry)[RBX]) == "#GP"


def test_sgx2_leaves_overlap_with_sgx1_leaves_that_share(machine: EveryLeaf) -> None:
    for leaf in ("EMODPR", "EACCEPT", "EACCEPTCOPY", "EMODPE"):
        for holder in ("EBLOCK", "EDBGRD", "EDBGWR", "ERDINFO", "EEXTEND"):
            assert on_target(machine, leaf, holder) == 0, f"{leaf}, {holder} in flight"


@pytest.mark.parametrize("holder", ["EWB", "EREMOVE"])
@pytest.mark.parametrize("leaf", ["EMODPE", "EACCEPTCOPY"])
def test_emodpe_and_eacceptcopy_do_not_exclude_eviction(
    machine: EveryLeaf, leaf: str, holder: str
) -> None:
    # They make no base claim on their destination; that they test it again protects them.
    assert on_target(machine, leaf, holder) == 0
    assert on_target(machine, "EMODPR", holder) == "#GP"


def test_what_emodpe_finds_after_an_eviction_is_its_own_business(machine: EveryLeaf) -> None:
    enclave, lp = machine.enclave, machine.processor.lps[1]
    address = next(a for a, page in enclave.pages.items() if page == machine.blocked)
    evict, extend = machine.attempt("EWB"), machine.attempt("EMODPE")._replace(rcx=address)
    bodies = [steps_of(evict), steps_of(extend)]
    for body in bodies:
        next(body)
    with pytest.raises(StopIteration) as stop:
        next(bodies[0])
    assert stop.value.value == 0
    with pytest.raises(Fault) as refusal:
        next(bodies[1])
    assert (refusal.value.vector, refusal.value.rule) == (faults.PF, "EMODPE.09")
    assert lp.interruptible()


@pytest.mark.parametrize("leaf", ["EACCEPT", "EACCEPTCOPY", "EMODPE"])
def test_secinfo_operands_are_no_claims(machine: EveryLeaf, leaf: str) -> None:
    secinfo = machine.enclave.pages[machine.enclave.scratch]
    for holder in ALONE:
        assert meets(machine, leaf, holder, RCX, secinfo) == 0, holder


def test_the_source_of_eacceptcopy_is_no_claim(machine: EveryLeaf) -> None:
    source = machine.enclave.pages[machine.enclave.data[4]]
    for holder in ALONE:
        assert meets(machine, "EACCEPTCOPY", holder, RCX, source) == 0, holder


def test_a_translation_in_a_tlb_is_no_conflict(machine: EveryLeaf) -> None:
    inside = machine.processor.lps[3]
    for leaf in ("EMODPR", "EMODT", "EBLOCK", "ETRACKC", "EDBGRD"):
        machine.reset()
        inside.load(machine.enclave.data[0], 1)
        assert inside.tlb.holds(machine.enclave.data[0])
        assert result_of(machine.attempt(leaf)) == 0


def test_building_is_serial_for_one_enclave(machine: EveryLeaf) -> None:
    measuring = {"EADD": PAGEINFO_SECS, "EEXTEND": RBX, "EINIT": RCX}
    for leaf, holder in permutations(measuring, 2):
        secs = machine.building.secs
        assert meets(machine, leaf, holder, measuring[holder], secs) == "#GP"
        # Another enclave is not concerned.
        other = machine.enclave.secs
        assert meets(machine, leaf, holder, measuring[holder], other) == 0


def test_tracking_is_serial_for_one_enclave(machine: EveryLeaf) -> None:
    tracking = {"ETRACK": RCX, "ETRACKC": OWNER}
    for holder, operand in tracking.items():
        ours, other = machine.enclave.secs, machine.building.secs
        assert meets(machine, "ETRACK", holder, operand, ours) == "#GP"
        assert meets(machine, "ETRACKC", holder, operand, ours) == SGX_EPC_PAGE_CONFLICT
        assert meets(machine, "ETRACK", holder, operand, other) == 0
        assert meets(machine, "ETRACKC", holder, operand, other) == 0


def test_eblock_of_an_secs_does_not_wait_for_its_tracking(machine: EveryLeaf) -> None:
    # Code 15 is for pages whose parent is tracked; an SECS page has none.
    secs = machine.enclave.secs
    body, _ = machine.holding("ETRACK", RCX, secs)
    next(body)
    status = machine.bare.eblock(secs)
    assert status is not None
    assert status.rule == "EBLOCK.06"
    body.close()


def test_eblock_in_flight_does_not_lock_the_entry_epoch(machine: EveryLeaf) -> None:
    assert meets(machine, "ETRACK", "EBLOCK", RCX, machine.plain) == 0


# When a claim ends


def finish(body: Steps[object]) -> object:
    """Take the one step after the point."""
    with pytest.raises(StopIteration) as stop:
        next(body)
    return stop.value.value


@pytest.mark.parametrize("leaf", CONCURRENCY)
def test_a_leaf_is_one_point_and_releases_all(machine: EveryLeaf, leaf: str) -> None:
    target = next(iter(machine.claimed(leaf).values()), -1)
    attempt = machine.attempt(leaf)
    body = steps_of(attempt)
    assert attempt.lp.interruptible()
    point: Point = next(body)
    assert point == (leaf, ("epc", target), True)
    assert not attempt.lp.interruptible()
    finish(body)
    assert attempt.lp.interruptible()
    assert not machine.processor.claims


@pytest.mark.parametrize("leaf", CONCURRENCY)
def test_a_leaf_closed_midway_releases_all_and_does_nothing(machine: EveryLeaf, leaf: str) -> None:
    attempt = machine.attempt(leaf)
    regs = attempt.lp.regs
    operands = (attempt.leaf, attempt.rcx, attempt.rdx, attempt.rbx)
    regs[:4] = operands  # RAX, RCX, RDX, RBX
    before = machine.processor.fingerprint()
    body = steps_of(attempt)
    next(body)
    assert machine.processor.fingerprint() != before or not machine.processor.claims
    body.close()
    assert not machine.processor.claims
    assert attempt.lp.interruptible()
    assert machine.processor.fingerprint() == before


def test_claims_end_with_a_refusal(machine: EveryLeaf) -> None:
    bare, secs = machine.bare, machine.enclave.secs
    assert bare.etrack(secs) == 0
    body = steps_of(machine.attempt("ETRACK"))
    next(body)
    assert machine.processor.claims
    assert finish(body) == SGX_PREV_TRK_INCMPL
    assert not machine.processor.claims


def test_claims_end_with_a_fault(machine: EveryLeaf) -> None:
    machine.processor.epcm.put(machine.plain, VALID | TRIM)
    attempt = machine.attempt("EMODPR")
    body = steps_of(attempt)
    next(body)
    assert machine.processor.claims
    with pytest.raises(Fault, match=r"EMODPR\.10"):
        next(body)
    assert not machine.processor.claims
    assert attempt.lp.interruptible()


def test_who_is_refused_by_a_conflict_held_nothing(machine: EveryLeaf) -> None:
    first, second = machine.attempt("EMODPR"), machine.attempt("EMODPR")
    second = second._replace(lp=machine.processor.lps[2])
    bodies = [steps_of(first), steps_of(second)]
    next(bodies[0])
    held = dict(machine.processor.claims)
    next(bodies[1])
    assert machine.processor.claims == held
    # The refusal stands although the page is free again by then: it was busy when the leaf began.
    assert finish(bodies[0]) == 0
    assert finish(bodies[1]) == SGX_EPC_PAGE_CONFLICT


def test_a_fault_in_front_of_the_leaf_claims_nothing(machine: EveryLeaf) -> None:
    kernel = machine.processor.lps[0]
    body = kernel.encls_steps(ENCLS["EMODPR"], 0, machine.bare.address(machine.plain), cpl=3)
    with pytest.raises(Fault, match=r"ENCLS\.02"):
        next(body)
    assert not machine.processor.claims
    assert kernel.interruptible()


@pytest.mark.parametrize("leaf", ["EWB", "ELDU", "EADD"])
def test_a_page_of_two_operands_is_claimed_once(machine: EveryLeaf, leaf: str) -> None:
    attempt = machine.attempt(leaf)
    page = machine.claimed(leaf)[RDX if leaf != "EADD" else PAGEINFO_SECS]
    body = steps_of(attempt._replace(rcx=machine.bare.address(page)))
    next(body)
    assert machine.processor.claims[page << 2] == -1
    with pytest.raises(Fault):
        next(body)
    assert not machine.processor.claims
