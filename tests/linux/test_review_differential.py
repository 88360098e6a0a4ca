"""What the kernel's own driver showed to be otherwise: the order in which records are filled in.

Found by tests/differential; the C code is right. Linux 6.12, sgx/encl.c and sgx/ioctl.c.
"""

from __future__ import annotations

import pytest

from softsgx.events.cpu import LeafDone
from softsgx.linux.errno import EIO
from softsgx.spec.bits import PAGE_SHIFT
from softsgx.spec.epcm import PT_REG
from softsgx.spec.leaves import EADD, EAUG, ECREATE, ENCLS_LEAVES
from softsgx.system import Machine
from tests.linux.building import Building, created
from tests.linux.failing import PF, failing
from tests.linux.world import world

NAMES = {number: ENCLS_LEAVES[number][0] for number in (EADD, EAUG, ECREATE)}


def test_a_page_has_no_type_until_it_was_added() -> None:
    """Neither during EADD nor during EAUG; afterwards it has."""
    b = created()
    types: list[int] = []

    def look(event: LeafDone) -> None:
        if event.leaf == NAMES[EADD]:
            types.append(b.encl.page_array[b.encl.base >> PAGE_SHIFT].type)

    b.machine.processor.log.subscribe_to({LeafDone: look})
    assert b.add(0, 1)[0] == 0
    assert types == [0]
    assert b.encl.page_array[b.encl.base >> PAGE_SHIFT].type == PT_REG


def test_a_page_that_a_fault_adds_has_no_type_until_then() -> None:
    w = world()
    types: list[int] = []

    def look(event: LeafDone) -> None:
        if event.leaf == NAMES[EAUG]:
            types.append(w.encl.page_array[w.enclave.heap >> PAGE_SHIFT].type)

    w.machine.processor.log.subscribe_to({LeafDone: look})
    w.do(w.host.load(w.enclave.heap, 1))
    assert types == [0]
    assert w.encl.page_array[w.enclave.heap >> PAGE_SHIFT].type == PT_REG


def test_the_secs_page_is_known_before_ecreate(monkeypatch: pytest.MonkeyPatch) -> None:
    """And forgotten again if that fails."""
    b = Building(Machine(epc="1M"))
    known: list[bool] = []

    def look(event: LeafDone) -> None:
        if event.leaf == NAMES[ECREATE]:
            known.append(b.encl.secs.epc_page is not None)

    b.machine.processor.log.subscribe_to({LeafDone: look})
    with monkeypatch.context() as patch:
        failing(patch, ECREATE, {1: PF})
        assert b.create() == -EIO
    assert b.encl.secs.epc_page is None
    assert b.create() == 0
    assert known == [True]
