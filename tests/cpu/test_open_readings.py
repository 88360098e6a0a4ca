"""Readings that no single leaf's test shows: both sides of each switch."""

from __future__ import annotations

import pytest

from softsgx.cpu import Bare, Fault, Readings
from softsgx.spec import leaves
from softsgx.spec.epcm import BLOCKED, PENDING, REG, VALID, R, W
from softsgx.spec.faults import GP, PF
from softsgx.spec.status import (
    SGX_EPC_PAGE_CONFLICT,
    SGX_NOT_TRACKED,
    SGX_PAGE_ATTRIBUTES_MISMATCH,
)
from tests.cpu.table import hold


@pytest.mark.parametrize(("code", "expected"), [(0x8003, 0x8003), (0x8001, 0x8001)])
def test_encls_pf_code(code: int, expected: int) -> None:
    bare = Bare(16, readings=Readings(encls_pf_code=code))
    with pytest.raises(Fault) as caught:
        bare.lp.encls(leaves.ETRACK, 0, bare.source(b""))
    assert (caught.value.vector, caught.value.code) == (PF, expected)


@pytest.mark.parametrize(("bit", "expected"), [(True, 0x8007), (False, 0x8005)])
def test_enclu_pf_write_bit(bit: bool, expected: int) -> None:
    bare = Bare(32, readings=Readings(enclu_pf_write_bit=bit))
    enclave = bare.enclave(pages=2)
    enclave.enter()
    bare.processor.epcm.put(enclave.pages[enclave.data[0]], VALID | REG | R)
    with pytest.raises(Fault) as caught:
        bare.lp.enclu(leaves.EGETKEY, enclave.data[1], enclave.data[0])
    assert (caught.value.rule, caught.value.code) == ("EGETKEY.08", expected)


@pytest.mark.parametrize(("tests", "status"), [(True, SGX_PAGE_ATTRIBUTES_MISMATCH), (False, 0)])
def test_eacceptcopy_tests_blocked(tests: bool, status: int) -> None:
    bare = Bare(32, readings=Readings(eacceptcopy_tests_blocked=tests))
    enclave = bare.enclave()
    page = enclave.eaug(enclave.heap)
    assert bare.eblock(page) == 0
    enclave.enter()
    assert enclave.eacceptcopy(enclave.heap, enclave.data[0], REG | R) == status
    assert bare.word(page) & BLOCKED
    assert bool(bare.word(page) & PENDING) is tests


@pytest.mark.parametrize(("as_pf", "vector"), [(False, GP), (True, PF)])
def test_einit_initialised_is_pf(as_pf: bool, vector: int) -> None:
    bare = Bare(32, readings=Readings(einit_initialised_is_pf=as_pf))
    enclave = bare.enclave(init=False)
    sig = bare.sigstruct(enclave.secs)
    assert bare.einit(enclave.secs, sig) == 0
    with pytest.raises(Fault) as caught:
        bare.einit(enclave.secs, sig)
    assert (caught.value.vector, caught.value.rule) == (vector, "EINIT.12")


def test_etrack_conflict_is_code() -> None:
    for as_code in (False, True):
        bare = Bare(32, readings=Readings(etrack_conflict_is_code=as_code))
        enclave = bare.enclave()
        hold(bare, enclave.secs, 3)
        if as_code:
            assert bare.etrack(enclave.secs) == SGX_EPC_PAGE_CONFLICT
        else:
            with pytest.raises(Fault, match=r"ETRACK\.03"):
                bare.etrack(enclave.secs)


@pytest.mark.parametrize(("tracked", "status"), [(True, 0), (False, SGX_NOT_TRACKED)])
def test_reloaded_blocked_tracked(tracked: bool, status: int) -> None:
    bare = Bare(32, readings=Readings(reloaded_blocked_tracked=tracked))
    enclave = bare.enclave()
    page = enclave.pages[enclave.data[0]]
    va, backing = bare.epa(), bare.backing()
    assert (bare.eblock(page), bare.etrack(enclave.secs)) == (0, 0)
    assert bare.ewb(page, va, 0, backing) == 0
    loaded, done = bare.eld(backing, va, 0, enclave.secs, leaf=leaves.ELDB)
    assert done == 0
    assert bare.word(loaded) & (BLOCKED | W) == BLOCKED | W
    assert bare.ewb(loaded, va, 1, backing) == status
