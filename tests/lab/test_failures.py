"""The matrix of failures: verdicts state what happened, and their schedules reproduce it."""

from functools import cache

import pytest

from softsgx.lab.designs import DESIGNS
from softsgx.lab.designs.fault_always import FaultAlways
from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.matrix import failure_named, matrix, verdicts
from softsgx.lab.failures.outcome import Outcome, play, story
from softsgx.lab.failures.stage import TARGET
from softsgx.linux.errno import EFAULT, EIO, ENOMEM
from softsgx.sim import Steps
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PAGE_NOT_MODIFIABLE
from softsgx.system import EnclaveFault, EnclaveThread, Machine, load

IOCTLS = ("ioctl", "ioctl-v2", "ioctl-batched")
MPROTECTS = ("mprotect-prot", "mprotect-read")
FAULTS = ("fault-once", "fault-always")


@cache
def everything() -> tuple[Outcome, ...]:
    return tuple(matrix(tuple(DESIGNS)))


def outcome(design: str, failure: str) -> Outcome:
    return next(o for o in everything() if (o.design, o.failure) == (design, failure))


def words(design: str, failure: str) -> list[str]:
    return verdicts(outcome(design, failure), everything())


@pytest.mark.parametrize("design", IOCTLS)
def test_the_ioctl_names_page_and_failure_and_is_repaired(design: str) -> None:
    for failure, code in (
        ("pending", SGX_PAGE_NOT_MODIFIABLE),
        ("in-use", SGX_EPC_PAGE_CONFLICT),
    ):
        o = outcome(design, failure)
        assert (o.errno, o.result, o.page, o.repair) == (-EFAULT, code, True, "yes")
        assert failure_named(o, everything())
        assert not o.bad


@pytest.mark.parametrize("design", MPROTECTS)
def test_mprotect_says_the_same_whatever_failed(design: str) -> None:
    found = [outcome(design, failure) for failure in ("pending", "in-use", "etrack")]
    assert {(o.errno, o.result, o.page) for o in found} == {(-EIO, 0, False)}
    assert not any(failure_named(o, everything()) for o in found)
    # Repeating the call helps only if the failure is temporary.
    assert [o.repair for o in found] == ["no", "yes", "yes"]


@pytest.mark.parametrize("design", FAULTS)
def test_a_fault_handler_has_nobody_to_tell(design: str) -> None:
    o = outcome(design, "pending")
    assert (o.errno, o.repair) == (0, "no")
    assert o.undeserved, "the enclave cannot even accept its page: SIGBUS"
    assert "second: a read of page 2 refused" in outcome(design, "etrack").evidence()
    assert not outcome(design, "in-use").arises


def test_etrack_failing_leaves_a_page_changed_that_is_not_counted() -> None:
    """L4: the page is named, though its EPCM entry has changed already."""
    o = outcome("ioctl", "etrack")
    assert o.page is True
    assert o.left.startswith("EPCM r-- PR, r-- PR, r-- PR, rw-")
    # Batched, nothing at all is counted: the page is not named.
    assert outcome("ioctl-batched", "etrack").page is False


def test_a_failed_split_stays_made() -> None:
    for design in DESIGNS:
        o = outcome(design, "vma-split")
        assert o.errno == -ENOMEM
        assert o.left.endswith("+1")


def test_reclaim_takes_rights_in_silence_only_where_every_fault_restricts() -> None:
    lost = {design: outcome(design, "reclaimed").lost for design in DESIGNS}
    assert lost == {**dict.fromkeys(DESIGNS, ()), "fault-always": (TARGET,)}
    assert "LOST in silence" in words("fault-always", "reclaimed")


def test_a_view_of_ones_own_stays_ones_own_only_with_the_ioctl() -> None:
    broken = [design for design in DESIGNS if outcome(design, "two-processes").undeserved]
    assert broken == [*FAULTS, *MPROTECTS]


def test_only_the_ioctl_works_without_a_mapping() -> None:
    succeeded = [design for design in DESIGNS if not outcome(design, "unmapped").errno]
    assert sorted(succeeded) == sorted(IOCTLS)


def test_rights_none_are_verified_by_two_designs_only() -> None:
    found = {design: outcome(design, "rights-none") for design in DESIGNS}
    fine = [design for design, o in found.items() if not o.bad and not o.unmodelled]
    assert fine == ["ioctl", "ioctl-batched"]
    assert "an entry with no rights" in outcome("ioctl-v2", "rights-none").unmodelled
    # mprotect() succeeded; the EPCM still has R, and EACCEPT cannot verify it.
    assert outcome("mprotect-read", "rights-none").wider_told == (0, 1, 2, 3)


def test_eaccept_tells_of_an_extension_in_between() -> None:
    for design in DESIGNS:
        o = outcome(design, "emodpe-between")
        assert "EACCEPT of page 2: SGX_PAGE_ATTRIBUTES_MISMATCH" in o.told
        assert not o.bad


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("design", DESIGNS)
def test_the_schedule_brings_the_outcome_back(design: str, failure: str) -> None:
    first = outcome(design, failure)
    assert play(design, failure, first.schedule) == first


def test_a_story_has_the_leaf_that_was_refused() -> None:
    o, lines = story("ioctl-v2", "in-use")
    assert o == outcome("ioctl-v2", "in-use")
    assert "cpu 0  EMODPR page 2 -> SGX_EPC_PAGE_CONFLICT" in lines
    assert lines.index("repair, with what was told:") < len(lines) - 1


def test_verdicts_end_at_what_is_not_modelled_in_one_cell_only() -> None:
    """A verdict must come from the design, not from what the model lacks."""
    for design in DESIGNS:
        for failure in FAILURES:
            if (design, failure) == ("ioctl-v2", "rights-none"):
                continue
            assert outcome(design, failure).unmodelled == ""


def test_fault_always_literally_lets_no_thread_enter() -> None:
    """EMODPR at every fault takes W from the SSA frame at its first touch: EENTER refuses."""
    machine = Machine()
    machine.kernel.design = FaultAlways(literally=True)
    host = machine.thread()
    enclave = machine.run(load(host))

    def program(t: EnclaveThread) -> Steps[None]:
        yield from t.load(enclave.data[0])

    with pytest.raises(EnclaveFault) as caught:
        machine.run(enclave.call(host, program))
    assert caught.value.run.exception_addr == enclave.tcs[0] + 0x1000
