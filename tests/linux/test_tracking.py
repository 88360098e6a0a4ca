"""ETRACK, interrupts and direct reclaim, page by page; what is left after a failure in between.

Linux 6.12, sgx/ioctl.c (sgx_enclave_etrack and the loops around it).
"""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.events.cpu import LeafDone
from softsgx.linux.errno import EFAULT, EPERM
from softsgx.sim import Steps
from softsgx.sim.events import IpiSent
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_REG, RWX, R, W
from softsgx.spec.leaves import EMODPR, EMODT, ETRACK
from softsgx.system import EnclaveThread, Machine
from tests.linux.failing import GP, PF, failing
from tests.linux.world import World, unmapped, world


def recorded(w: World, call: str, pages: int) -> tuple[list[str], list[tuple[int, ...]]]:
    """The leaves of the kernel and the interrupts of one ioctl."""
    e, length = w.enclave, pages * PAGE_SIZE
    body: Any = e.trim(w.host, e.data[0], length)
    if call == "restrict":
        body = e.restrict(w.host, e.data[0], length, R)
    w.machine.settle()
    with w.machine.processor.log.record() as events:
        ret, block = w.do(body)
    assert (ret, block.count) == (0, length)
    leaves = [event.leaf for event in events if isinstance(event, LeafDone)]
    return leaves, [event.cpus for event in events if isinstance(event, IpiSent)]


@pytest.mark.parametrize(("call", "leaf"), [("restrict", "EMODPR"), ("trim", "EMODT")])
def test_one_etrack_and_one_round_of_interrupts_per_page(call: str, leaf: str) -> None:
    """No batching, whether or not a thread is inside."""
    w = world(pages=3)
    w.machine.thread(w.host.process, 2)
    leaves, sent = recorded(w, call, 3)
    assert leaves == [leaf, "ETRACK"] * 3
    assert [cpus for cpus in sent if cpus == (0, 2)][:3] == [(0, 2)] * 3


def test_interrupts_go_to_every_address_space_once_registered() -> None:
    """Also to one that has unmapped the enclave since: munmap does not unregister it."""
    w = world(pages=1)
    child = w.do(w.host.fork("child", 3))
    assert w.do(child.munmap(w.enclave.base, w.enclave.size)) == 0
    stranger = w.machine.thread(cpu=1)
    _leaves, sent = recorded(w, "restrict", 1)
    assert sent[0] == (0, 3)
    w.do(child.exit())
    again, sent = recorded(w, "trim", 1)
    assert again == ["EMODT", "ETRACK"]
    assert sent[0] == (0,)
    assert stranger.thread.mm not in [entry.mm for entry in w.encl.mm_list]


def test_no_address_space_no_interrupt() -> None:
    w = unmapped()
    leaves, sent = recorded(w, "restrict", 1)
    assert leaves == ["EMODPR", "ETRACK"]
    assert [cpus for cpus in sent if cpus != (0,)] == []


def test_failed_etrack_costs_a_second_round(monkeypatch: pytest.MonkeyPatch) -> None:
    w = world(pages=1)
    child = w.do(w.host.fork("child", 3))
    assert child.thread.cpu == 3
    failing(monkeypatch, ETRACK, {1: 17})
    leaves, sent = recorded(w, "restrict", 1)
    assert leaves == ["EMODPR", "ETRACK"]
    assert sent[:2] == [(0, 3), (0, 3)]
    assert (0, 3) not in sent[2:]


def test_failed_tracking_of_a_new_tcs_keeps_the_narrow_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMODT has changed the EPCM; the record still says REG, and the cap has lost X for good."""
    w = unmapped(rights=RWX, pages=1)
    page = w.encl.page(w.enclave.data[0])
    assert page is not None
    failing(monkeypatch, ETRACK, {1: GP, 2: GP})
    ret, block = w.do(w.enclave.make_tcs(w.host, page.address))
    assert (ret, block.result, block.count) == (-EFAULT, 0, 0)
    assert (page.type, page.vm_max_prot_bits) == (PT_REG, R | W)
    monkeypatch.undo()
    # EMODT of what is a TCS already is #PF, and to PT_TRIM a page that was not accepted.
    ret, block = w.do(w.enclave.make_tcs(w.host, page.address))
    assert (ret, block.result, block.count) == (-EFAULT, 0, 0)
    ret, block = w.do(w.enclave.trim(w.host, page.address, PAGE_SIZE))
    assert (ret, block.result, block.count) == (-EFAULT, 20, 0)
    assert (page.type, page.vm_max_prot_bits) == (PT_REG, R | W)


@pytest.mark.parametrize("vector", [13, 14])
def test_faults_of_the_leaves_are_logged_once(vector: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w = world(pages=2)
    code = 0x4000_0000 | vector
    for leaf, name in ((EMODPR, "EMODPR"), (EMODT, "EMODT")):
        with monkeypatch.context() as patch:
            failing(patch, leaf, {1: code, 2: PF})
            for _ in range(2):
                body: Any = w.enclave.trim(w.host, w.enclave.data[0], PAGE_SIZE)
                if leaf == EMODPR:
                    body = w.enclave.restrict(w.host, w.enclave.data[0], PAGE_SIZE, R)
                assert w.do(body)[0] == -EFAULT
        what = f"{name} encountered exception"
        assert w.kernel.printed[what] == f"sgx: {what} {vector}"
    assert w.kernel.warnings == []


# REMOVE_PAGES: the probe


@pytest.mark.parametrize("end", [0, 7, 20, GP, 0x40000006])
def test_only_a_page_fault_proves_acceptance(end: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Success, any status and any other exception are -EPERM, though the page could be removed."""
    w = world(pages=1)
    page = w.enclave.data[0]
    assert w.do(w.enclave.trim(w.host, page, PAGE_SIZE))[0] == 0
    assert w.call(lambda t: t.accept_trim(page)) == 0
    failing(monkeypatch, EMODPR, {1: end})
    ret, block = w.do(w.enclave.remove(w.host, page, PAGE_SIZE))
    assert (ret, block.count) == (-EPERM, 0)
    assert w.do(w.enclave.remove(w.host, page, PAGE_SIZE))[0] == 0


def test_removal_neither_tracks_nor_blocks() -> None:
    w = world(pages=2)
    data = w.enclave.data

    def accept(t: EnclaveThread) -> Steps[None]:
        for address in data:
            assert (yield from t.accept_trim(address)) == 0

    assert w.do(w.enclave.trim(w.host, data[0], 2 * PAGE_SIZE))[0] == 0
    w.call(accept)
    w.machine.settle()
    with w.machine.processor.log.record() as events:
        assert w.do(w.enclave.remove(w.host, data[0], 2 * PAGE_SIZE))[0] == 0
    # The probe faults, so it is not among the leaves that were done.
    assert [e.leaf for e in events if isinstance(e, LeafDone)] == ["EREMOVE", "EREMOVE"]


def test_a_page_removed_and_added_across_512_takes_a_va_page_each_time() -> None:
    """The page count goes down, but no VA page is freed before the enclave is released."""
    w = world(Machine(cpus=4, epc="4M"), pages=507)
    hole = w.enclave.heap
    assert (w.encl.page_cnt, len(w.encl.va_pages)) == (512, 1)
    for turn in range(1, 4):
        assert w.call(lambda t: t.accept_new(hole)) == 0
        assert (w.encl.page_cnt, len(w.encl.va_pages)) == (513, 1 + turn)
        assert w.do(w.enclave.trim(w.host, hole, PAGE_SIZE))[0] == 0
        assert w.call(lambda t: t.accept_trim(hole)) == 0
        assert w.do(w.enclave.remove(w.host, hole, PAGE_SIZE))[0] == 0
        assert w.encl.page_cnt == 512
    w.do(w.host.exit())
    assert w.all_epc_free()


# Direct reclaim before each page


@pytest.mark.parametrize(("free", "evicted"), [(32, 0), (31, 16), (14, 32)])
def test_each_page_reclaims_once_below_the_low_watermark(free: int, evicted: int) -> None:
    """One pass of 16 pages before the mutex is taken; the daemon does not run."""
    w = world(pages=60)
    for index in w.encl.page_array:
        w.mm.space.test_and_clear_accessed(index * PAGE_SIZE)
    w.kernel.high_watermark = 0  # the daemon has nothing to do
    w.kernel.nr_free = free
    leaves, _sent = recorded(w, "restrict", 2)
    assert leaves.count("EBLOCK") == evicted
    if evicted:
        assert leaves[: leaves.index("EMODPR")].count("EBLOCK") == 16
    assert leaves.count("EMODPR") == 2
