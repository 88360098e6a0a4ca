"""What a layer says about where its state comes from, read from the facts."""

from __future__ import annotations

import pytest

from softsgx.linux.sgx.driver import encl_of
from softsgx.linux.sgx.encls import encls
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.spec.leaves import EBLOCK
from softsgx.system import Machine, load
from softsgx.system.explain.facts import Facts, look
from softsgx.system.explain.plans import enclave_at
from softsgx.system.loader import default_image
from tests.linux.world import World, world


def explained() -> World:
    return world(Machine(cpus=4, epc="1M", explain=True), pages=2)


def seen(w: World, address: int, cpu: int = 0) -> Facts:
    assert w.machine.explainer is not None
    return look(w.machine.explainer.history, w.machine.processor.lps[cpu], address)


def test_a_tlb_that_nothing_flushed_is_empty_and_names_no_event() -> None:
    """A processor that ran no thread, and one whose last flush is in the log."""
    w = explained()
    page = w.enclave.data[0]
    w.call(lambda t: t.load(page, 1))
    assert seen(w, page, cpu=2).tlb_layer().details == "empty"
    assert seen(w, page).tlb_layer().details.startswith("flushed by EEXIT, event ")


def test_only_an_accept_accepts() -> None:
    """After EMODPR the last change is named as well if it is an EACCEPT of the enclave."""
    w = explained()
    page = w.enclave.data[0]

    def why() -> str:
        return seen(w, page).epcm_layer(missing=W).details

    w.do(w.host.load(page, 1))
    assert w.do(w.enclave.restrict(w.host, page, PAGE_SIZE, R))[0] == 0
    assert " since EMODPR" in why()
    assert "accepted" not in why()
    entry = w.encl.page(page)
    assert entry is not None
    assert entry.epc_page is not None
    w.do(encls(w.host.thread, EBLOCK, 0, entry.epc_page.address))
    assert "BLOCKED" in why()
    assert " since EMODPR" in why()
    assert "accepted" not in why(), "EBLOCK is no answer of the enclave"


def test_an_accepted_restriction_says_who_and_when() -> None:
    w = explained()
    page = w.enclave.data[0]
    w.do(w.host.load(page, 1))
    assert w.do(w.enclave.restrict(w.host, page, PAGE_SIZE, R))[0] == 0
    w.call(lambda t: t.accept_restricted(page, R))
    assert ", accepted by thread " in seen(w, page).epcm_layer(missing=W).details


@pytest.mark.parametrize("first", [False, True])
def test_the_enclave_of_a_hole_is_the_one_that_the_thread_is_in(first: bool) -> None:
    """Of two enclaves in one process, where no area says which one it is."""
    w = explained()
    other = w.do(load(w.host, default_image(pages=2)))
    inside = w.enclave if first else other
    encl = encl_of(w.host.process.files[inside.fd])
    hole = inside.base + inside.size - PAGE_SIZE
    assert w.do(w.host.munmap(hole, PAGE_SIZE)) == 0
    facts = seen(w, hole)
    assert facts.encl is None
    facts.secs = next(s for s in w.machine.processor.secs.values() if inside.base == s.BASEADDR)
    assert enclave_at(facts) is encl
