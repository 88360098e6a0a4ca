"""Runs of lies: the three orders survive them; without one of its checks a manager is broken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from softsgx.cpu import Status, access
from softsgx.explore import Kind, Outcome, Plan, explore
from softsgx.linux.errno import EFAULT
from softsgx.linux.version import EXPLORED, NO_RACES, VERSION_DEFAULT
from softsgx.mem.tlb import READ, WRITE
from softsgx.sim import Mutex, Steps
from softsgx.sim.locks import Guard
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.status import SGX_NOT_TRACKED, SGX_PAGE_NOT_MODIFIABLE
from softsgx.system.enclave import EnclaveThread
from softsgx.system.runtimes import ORDERS, TrustedManager
from softsgx.system.runtimes.untrusted import Answer
from softsgx.system.scenarios.hostile_runs import HostileRuns
from tools.documents import all_blocks

# Managers without one of their checks


class RestrictionBelieved(TrustedManager):
    """No EACCEPT after RESTRICT_PERMISSIONS."""

    def accept_restricted(self, t: EnclaveThread, pages: list[int], rights: int) -> Steps[None]:
        return
        yield


class TrackingIgnored(TrustedManager):
    """SGX_NOT_TRACKED from EACCEPT is taken for success."""

    def _verified(self, what: str, page: int, status: Status | None) -> None:
        if status != SGX_NOT_TRACKED:
            super()._verified(what, page, status)


class TrimBelieved(TrustedManager):
    """What EACCEPT says of a trimmed page is ignored."""

    def _verified(self, what: str, page: int, status: Status | None) -> None:
        if what != "EACCEPT of TRIM":
            super()._verified(what, page, status)


class NewBelieved(TrustedManager):
    """What EACCEPT says of a new page is ignored."""

    def _verified(self, what: str, page: int, status: Status | None) -> None:
        if what != "EACCEPT of a new page":
            super()._verified(what, page, status)


class RepairsAnyPage(TrustedManager):
    """A page that an ioctl finds PENDING or missing is accepted, committed or not."""

    def _repaired(self, t: EnclaveThread, page: int, answer: Answer) -> Steps[bool]:
        missing = answer.errno == -EFAULT and not answer.result
        if answer.result != SGX_PAGE_NOT_MODIFIABLE and not missing:
            return False
        yield from self._accept_new(t, page)
        return True


class CommitsTwice(TrustedManager):
    """The record is not asked before a page is committed."""

    def commit(self, t: EnclaveThread, address: int, length: int) -> Steps[None]:
        with (yield from self.lock.acquire()):
            for page in range(address, address + length, PAGE_SIZE):
                yield from self._accept_new(t, page)


class _Open(Mutex):
    """Excludes nobody."""

    def acquire(self) -> Steps[Guard]:
        return self
        yield

    def release(self) -> None:
        pass


class Unlocked(TrustedManager):
    """Threads change pages at the same time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lock = _Open("emm")


class GoesOn(TrustedManager):
    """An abort is forgotten: the next call is served."""

    def _expect(self, page: int, *states: str) -> tuple[str, int]:
        self.aborted = ""
        return super()._expect(page, *states)


# Searches

ALL = ("protect", "uncommit", "commit")


def search(
    manager: type[TrustedManager],
    lies: int,
    others: Sequence[str] = (),
    calls: Sequence[str] = ALL,
    order: str = "gramine",
    executions: int = 3000,
    linux: str = VERSION_DEFAULT,
) -> Outcome:
    """Every step from every state: the owner's calls beside other tasks, with so many lies."""
    members = {
        "cpus": 2 + len(others),
        "manager": manager,
        "lies": lies,
        "others": others,
        "calls": calls,
    }
    scenario = type("Runs", (HostileRuns,), members)(linux, NO_RACES, order=order)
    return explore(scenario, Plan(strategy="states", executions=executions, minimise=False))


def decided_clean(outcome: Outcome) -> bool:
    """Nothing was found, and nothing was left out."""
    return outcome.failure is None and outcome.exhausted and not outcome.left_out


class Broken(NamedTuple):
    """The fewest lies that break a manager, by which rule, and where they are searched."""

    manager: type[TrustedManager]
    lies: int
    rule: str
    others: tuple[str, ...] = ()
    calls: tuple[str, ...] = ALL


BROKEN = [
    Broken(RestrictionBelieved, 1, "wider right", (), ("protect",)),
    Broken(TrackingIgnored, 2, "wider right", ("writer",), ("protect",)),
    Broken(TrimBelieved, 1, "wider right"),
    Broken(RepairsAnyPage, 1, "wrong data", ("kernel",), ("protect",)),
    Broken(CommitsTwice, 2, "wrong data", ("kernel",), ()),
    Broken(Unlocked, 1, "wider right", ("kernel",)),
]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.manager.__name__)
def test_a_manager_without_a_check_is_broken_by_the_shortest_lie(case: Broken) -> None:
    outcome = search(case.manager, case.lies, case.others, case.calls)
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.rule) == (Kind.VIOLATION, case.rule)
    assert decided_clean(search(case.manager, case.lies - 1, case.others, case.calls))


@pytest.mark.parametrize("manager", [NewBelieved, GoesOn], ids=lambda kind: kind.__name__)
def test_what_the_processor_and_the_other_checks_answer_as_well(
    manager: type[TrustedManager],
) -> None:
    """A page that is not accepted cannot be used, and a call after a lie is checked like any."""
    assert decided_clean(search(manager, 3))


@pytest.mark.parametrize("order", sorted(ORDERS))
def test_the_published_orders_survive_runs_of_lies(order: str) -> None:
    for linux in EXPLORED:
        assert decided_clean(search(TrustedManager, 3, order=order, linux=linux)), linux
    assert decided_clean(search(TrustedManager, 1, ("kernel",), ("protect",), order))


def test_lies_between_calls_do_not_add_up() -> None:
    """No runtime's order is at work here: the page was committed before."""
    assert decided_clean(search(TrustedManager, 2, ("kernel",), ()))


# Without checks of the processor


def test_without_the_address_in_the_epcm_two_pages_share_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked = access._epcm_rights

    def anywhere(lp: Any, number: int, _address: int, kind: int) -> int:
        return checked(lp, number, lp.processor.epcm.address[number], kind)

    monkeypatch.setattr(access, "_epcm_rights", anywhere)
    outcome = search(TrustedManager, 1, ("kernel",), ())
    assert outcome.failure is not None
    assert outcome.failure.rule == "wrong data"
    assert decided_clean(search(TrustedManager, 0, ("kernel",), ()))


def test_without_the_rights_in_the_epcm_a_stale_pte_gives_back_a_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked = access._epcm_rights

    def any_right(lp: Any, number: int, address: int, _kind: int) -> int:
        return checked(lp, number, address, READ) | WRITE

    monkeypatch.setattr(access, "_epcm_rights", any_right)
    outcome = search(TrustedManager, 1, ("kernel",), ("protect",))
    assert outcome.failure is not None
    assert outcome.failure.rule == "wider right"
    assert decided_clean(search(TrustedManager, 0, ("kernel",), ("protect",)))


def test_the_table_of_the_text_has_the_checks() -> None:
    (block,) = (b for b in all_blocks() if b.mark.endswith("the_table_of_the_text_has_the_checks"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.lines[2:]]
    told = [(re.findall(r"`(\w+)`", without)[0], int(lies), rule) for _, _, without, lies, rule in
            rows if without.startswith("`")]  # fmt: skip
    broken = [(case.manager.__name__, case.lies, case.rule) for case in BROKEN]
    none = [(kind.__name__, 3, "none") for kind in (NewBelieved, GoesOn)]
    assert told == broken + none


def test_the_scenario_of_the_text_is_clean_as_far_as_it_is_searched() -> None:
    (block,) = (b for b in all_blocks() if "test_the_scenario_of_the_text_is_clean" in b.mark)
    names: dict[str, Any] = {}
    exec(block.text, names)
    scenario = names["TwoLies"](races=NO_RACES)
    assert scenario.lies == 2
    outcome = explore(scenario, Plan(strategy="states", executions=30))
    assert outcome.failure is None
    assert outcome.states > 100
