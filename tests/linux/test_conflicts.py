"""A leaf of the enclave is in flight on the page that the kernel is about to change.

SDM 3D, 41.1.5 "Concurrent Operation Restrictions": EACCEPT, EACCEPTCOPY, EMODPE, EMODPR and EMODT
exclude each other on one page. The kernel does not try again: SGX_EPC_PAGE_CONFLICT is 7 in
`result`, -EFAULT, and `count` names the page. Linux 6.12, sgx/ioctl.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from softsgx.events.cpu import LeafDone
from softsgx.linux.errno import EFAULT, EPERM
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.uapi import SgxEnclaveRestrictPermissions
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import MODIFIED, PT_TCS, PT_TRIM, RWX, TRIM, R, W
from softsgx.spec.faults import GP
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PAGE_NOT_MODIFIABLE
from softsgx.system import EnclaveFault, EnclaveThread, Machine
from tests.linux.held import Until, at, at_lock, at_retry, to_the_end
from tests.linux.test_races import alone, scheduled, second
from tests.linux.world import World, world

THIRD = 2  # of four pages, the one with the conflict
CONFLICT = int(SGX_EPC_PAGE_CONFLICT)


def in_flight(leaf: str) -> Until:
    """The leaf has found its page and holds it; without a PTE it would hold nothing yet."""
    return lambda point: point[0] == leaf and point[1] != ("epc", -1)


class Scene:
    """Four pages at `first`; the third is ready for the leaf that the enclave will execute."""

    def __init__(self, leaf: str, races: dict[str, bool] | None = None) -> None:
        self.w = world(Machine(cpus=4, epc="1M", races=races), pages=4, nssa=8)
        self.leaf = leaf
        self.first = self.w.enclave.data[0]
        if leaf == "EACCEPTCOPY":
            self._pending_third()
        self.page = self.first + THIRD * PAGE_SIZE
        if leaf == "EACCEPT":
            ret, _ = self.w.do(self.w.enclave.restrict(self.w.host, self.page, PAGE_SIZE, R))
            assert ret == 0
        if leaf == "EACCEPT of TRIM":
            self.trim(self.page)
        for index in list(self.w.encl.page_array):
            self.w.do(self.w.host.load(index * PAGE_SIZE, 1))  # every page has its PTE

    def trim(self, address: int) -> None:
        """Make a page PT_TRIM; it is not accepted."""
        assert self.w.do(self.w.enclave.trim(self.w.host, address, PAGE_SIZE))[0] == 0

    def accept_trim(self, address: int) -> None:
        """Accept such a page."""
        assert self.w.call(lambda t: t.accept_trim(address)) == 0

    def accept_new(self, address: int) -> None:
        """Touch a hole and accept what EAUG added."""
        self.w.do(self.w.host.load(address, 1))
        assert self.w.call(lambda t: t.accept_new(address)) == 0

    def _pending_third(self) -> None:
        """Four pages after the image; all but the third are accepted."""
        self.first = self.w.enclave.heap
        assert self.w.protect(self.first, R | W, 4 * PAGE_SIZE) == 0  # a TCS could not be mapped X
        for number in range(4):
            address = self.first + number * PAGE_SIZE
            if number == THIRD:
                self.w.do(self.w.host.load(address, 1))
            else:
                self.accept_new(address)

    def program(self, t: EnclaveThread) -> Steps[Any]:
        """The leaf in question, on the third page."""
        if self.leaf == "EACCEPT":
            return (yield from t.accept_restricted(self.page, R))
        if self.leaf == "EACCEPT of TRIM":
            return (yield from t.accept_trim(self.page))
        if self.leaf == "EMODPE":
            return (yield from t.emodpe(self.page, RWX))
        return (yield from t.eacceptcopy(self.page, self.page + PAGE_SIZE, R | W))

    def against(
        self, ioctl: Callable[[World, Any], Steps[Any]], turn: int = THIRD + 1
    ) -> dict[str, Any]:
        """The ioctl up to its turn for the page, the leaf until it is in flight, the ioctl."""
        w = self.w
        ended = scheduled(
            w,
            [
                ("ioctl", at_lock("encl->lock", turn)),
                ("inside", in_flight(self.leaf.split()[0])),
                ("ioctl", to_the_end),
            ],
            ioctl=ioctl(w, second(w, 1)),
            inside=w.enclave.call(second(w, 2), self.program),
        )
        return dict(ended)

    def cap(self) -> int:
        page = self.w.encl.page(self.page)
        assert page is not None
        return page.vm_max_prot_bits

    def changed(self, answer: tuple[int, Any]) -> tuple[int, int, int]:
        """errno, result, count in pages."""
        ret, block = answer
        return ret, getattr(block, "result", 0), block.count // PAGE_SIZE


LEAVES = ["EACCEPT", "EMODPE", "EACCEPTCOPY"]


@pytest.mark.parametrize("leaf", LEAVES)
def test_restrict(leaf: str) -> None:
    s = Scene(leaf)
    w = s.w
    ended = s.against(lambda w, h: w.enclave.restrict(h, s.first, 4 * PAGE_SIZE, R))
    assert s.changed(ended["ioctl"]) == (-EFAULT, CONFLICT, 2)
    assert not ended["inside"], "the leaf of the enclave has succeeded"
    rest = w.do(w.enclave.restrict(w.host, s.page, 2 * PAGE_SIZE, R))
    assert s.changed(rest) == (0, 0, 2)
    assert w.call(lambda t: t.accept_restricted(s.page, R)) == 0
    assert w.kernel.warnings == []


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("page_type", [PT_TRIM, PT_TCS])
def test_modify_types(leaf: str, page_type: int) -> None:
    """The cap that a new TCS narrows is restored."""
    s = Scene(leaf)
    w, cap = s.w, s.cap()
    # For a TCS the mutex is taken twice a page: the PTEs are zapped in between.
    turn = THIRD * 2 + 2 if page_type == PT_TCS else THIRD + 1
    if page_type == PT_TCS:
        # The PTE is zapped by then; the fault that maps it again is K3.
        assert w.kernel.races.modify_vs_fault
    ended = s.against(
        lambda w, h: w.enclave.modify_types(h, s.first, 4 * PAGE_SIZE, page_type), turn
    )
    assert s.changed(ended["ioctl"]) == (-EFAULT, CONFLICT, 2)
    assert not ended["inside"]
    assert s.cap() == cap
    rest = w.do(w.enclave.modify_types(w.host, s.page, 2 * PAGE_SIZE, page_type))
    assert s.changed(rest) == (0, 0, 2)
    assert w.kernel.warnings == []


@pytest.mark.parametrize("leaf", LEAVES)
def test_new_tcs_without_k3_meets_no_leaf(leaf: str) -> None:
    """A leaf in flight has ended, by a fault perhaps, when its PTE is zapped; no other can begin.

    So 7 is impossible. 20 remains: EACCEPTCOPY found no PTE and did not accept.
    """
    s = Scene(leaf, races={"modify_vs_fault": False})

    def enclave() -> Steps[Any]:
        try:
            return (yield from s.w.enclave.call(second(s.w, 2), s.program))
        except EnclaveFault:
            return None

    ended = scheduled(
        s.w,
        [("inside", in_flight(leaf)), ("ioctl", to_the_end)],
        ioctl=s.w.enclave.make_tcs(second(s.w, 1), s.page),
        inside=enclave(),
    )
    pending = (-EFAULT, int(SGX_PAGE_NOT_MODIFIABLE), 0)
    expected = pending if leaf == "EACCEPTCOPY" else (0, 0, 1)
    assert s.changed(dict(ended)["ioctl"]) == expected


def test_source_of_eacceptcopy_is_not_held() -> None:
    """The leaf holds its destination only: the source is restricted while it is in flight."""
    s = Scene("EACCEPTCOPY")
    ended = scheduled(
        s.w,
        [("inside", in_flight("EACCEPTCOPY")), ("ioctl", to_the_end)],
        ioctl=s.w.enclave.restrict(second(s.w, 1), s.page + PAGE_SIZE, PAGE_SIZE, R),
        inside=s.w.enclave.call(second(s.w, 2), s.program),
    )
    assert s.changed(dict(ended)["ioctl"]) == (0, 0, 1)
    assert dict(ended)["inside"] == 0


def test_other_pages_do_not_matter() -> None:
    """A leaf on the third page only delays the interrupt of the others' tracking."""
    s = Scene("EMODPE")
    ended = scheduled(
        s.w,
        [("inside", in_flight("EMODPE")), ("ioctl", to_the_end)],
        ioctl=s.w.enclave.restrict(second(s.w, 1), s.first, 2 * PAGE_SIZE, R),
        inside=s.w.enclave.call(second(s.w, 2), s.program),
    )
    assert s.changed(dict(ended)["ioctl"]) == (0, 0, 2)


@pytest.mark.parametrize("leaf", ["EMODPR", "EMODT"])
@pytest.mark.parametrize("inside", LEAVES)
def test_the_leaf_of_the_enclave_meets_that_of_the_kernel(leaf: str, inside: str) -> None:
    """The other way round the enclave is refused: #GP(0), and it may try again."""
    s = Scene(inside)
    w = s.w
    refused: list[tuple[int, int]] = []

    def enclave() -> Steps[None]:
        try:
            yield from w.enclave.call(second(w, 2), s.program)
        except EnclaveFault as fault:
            refused.append((fault.run.function, fault.run.exception_vector))

    def body() -> Steps[tuple[int, Any]]:
        host = second(w, 1)
        if leaf == "EMODPR":
            return (yield from w.enclave.restrict(host, s.page, PAGE_SIZE, R))
        return (yield from w.enclave.trim(host, s.page, PAGE_SIZE))

    scheduled(w, [("ioctl", at(leaf)), ("inside", to_the_end)], ioctl=body(), inside=enclave())
    assert refused == [(3, GP)]


# REMOVE_PAGES


def trimmed(races: dict[str, bool] | None = None) -> Scene:
    """All four pages are PT_TRIM; the third is not accepted."""
    s = Scene("EACCEPT of TRIM", races)
    for number in (0, 1, 3):
        s.trim(s.first + number * PAGE_SIZE)
        s.accept_trim(s.first + number * PAGE_SIZE)
    return s


def test_remove_while_the_page_is_being_accepted() -> None:
    """The probe gets 7 and not #PF: -EPERM, as for a page that is not accepted."""
    s = trimmed()
    w = s.w
    # The mutex is taken twice a page: the PTEs are zapped in between.
    ended = s.against(lambda w, h: w.enclave.remove(h, s.first, 4 * PAGE_SIZE), THIRD * 2 + 1)
    assert s.changed(ended["ioctl"]) == (-EPERM, 0, 2)
    assert ended["inside"] == 0
    assert s.changed(w.do(w.enclave.remove(w.host, s.page, 2 * PAGE_SIZE))) == (0, 0, 2)
    assert w.kernel.warnings == []


@pytest.mark.parametrize("raced", [True, False])
def test_k2_and_a_leaf_in_flight_leak_the_page(raced: bool) -> None:
    """A fault maps the page again after the zap, and EACCEPT holds it: EREMOVE gets #GP.

    The kernel warns, counts the page as removed and loses its EPC. Not with K2 fixed.
    """
    s = trimmed({"remove_vs_fault": raced})
    w, free = s.w, s.w.kernel.nr_free
    s.accept_trim(s.page)
    s.leaf = "EACCEPT"

    def again(t: EnclaveThread) -> Steps[Any]:
        return (yield from t.eaccept(s.page, TRIM | MODIFIED))

    def enclave() -> Steps[Any]:
        try:
            return (yield from w.enclave.call(second(w, 2), again))
        except EnclaveFault as fault:
            return fault.run.exception_error_code

    ended = scheduled(
        w,
        [
            ("ioctl", at_lock("encl->lock", 2)),
            ("inside", in_flight("EACCEPT") if raced else at_retry),
            ("ioctl", to_the_end),
        ],
        ioctl=w.enclave.remove(second(w, 1), s.page, PAGE_SIZE),
        inside=enclave(),
    )
    assert s.changed(dict(ended)["ioctl"]) == (0, 0, 1)
    assert w.encl.page(s.page) is None or not raced
    leaked = ["leaked" in text for text in w.kernel.warnings]
    assert leaked == ([True] if raced else [])
    if raced:
        assert w.kernel.nr_free == free


# Eviction


@pytest.mark.parametrize("leaf", LEAVES)
def test_eviction_waits_for_the_leaf(leaf: str) -> None:
    """No EWB can meet a leaf: the PTE is zapped first, and its interrupt waits for the leaf.

    The leaf finds its PTE gone, faults, and succeeds when the page is back.
    """
    s = Scene(leaf)
    w = s.w
    alone(w, s.page)

    def reclaim() -> Steps[None]:
        yield ("test", "age", True)
        w.mm.space.test_and_clear_accessed(s.page)
        yield from sgx_reclaim_pages(second(w, 1).thread)

    with w.machine.processor.log.record() as events:
        ended = scheduled(
            w,
            [("inside", in_flight(leaf)), ("reclaim", to_the_end)],
            reclaim=reclaim(),
            inside=w.enclave.call(second(w, 2), s.program),
        )
    assert not dict(ended)["inside"]
    done = [event.leaf for event in events if isinstance(event, LeafDone)]
    assert [name for name in done if name in ("EWB", "ELDU", leaf)] == ["EWB", "EWB", "ELDU", leaf]
    assert w.kernel.warnings == []


def test_block_of_the_answer_names_the_page() -> None:
    """What a runtime needs to go on: offset + count is the page that was busy."""
    s = Scene("EMODPE")
    ended = s.against(lambda w, h: w.enclave.restrict(h, s.first, 4 * PAGE_SIZE, R))
    block = ended["ioctl"][1]
    assert isinstance(block, SgxEnclaveRestrictPermissions)
    assert s.w.enclave.base + block.offset + block.count == s.page
    assert block.length == 4 * PAGE_SIZE
