"""Two pages at one address: what the processor permits, and what keeps an enclave safe.

Neither EADD nor EAUG tests whether the address already has a page (docs/invariants.md, I8).
"""

import pytest

from softsgx.cpu import Bare, Fault
from softsgx.cpu.bare import BareEnclave
from softsgx.spec.epcm import PENDING, REG, VALID, R, W
from softsgx.spec.faults import PFEC_P, PFEC_SGX, PFEC_U
from tests.property import invariants

BOTH_ACCEPTED = "both accepted at"


def added_twice() -> tuple[Bare, BareEnclave, int, int, int]:
    """An enclave whose heap address got two pages by EADD, with different contents."""
    bare = Bare(16)
    enclave = bare.enclave(init=False)
    first = enclave.add(enclave.heap, b"first")
    second = enclave.add(enclave.heap, b"second")
    assert bare.einit(enclave.secs, bare.sigstruct(enclave.secs)) == 0
    return bare, enclave, enclave.heap, first, second


def test_two_added_pages_at_one_address_are_both_usable() -> None:
    bare, enclave, address, first, second = added_twice()
    assert bare.word(first) == bare.word(second) == VALID | REG | R | W
    enclave.enter()
    assert bare.lp.load(address, 6) == b"second"
    bare.lp.interrupt()
    enclave.map(address, first)
    enclave.resume()
    assert bare.lp.load(address, 5) == b"first"


def test_duplicates_are_what_i8_reports() -> None:
    bare, enclave, address, _, _ = added_twice()
    (finding,) = invariants.accepted_pages_are_unique(bare.processor)
    assert BOTH_ACCEPTED in finding
    eid = bare.processor.secs[enclave.secs].EID
    assert list(invariants.accepted_pages_are_unique(bare.processor, {(eid, address)})) == []


def test_a_second_augmented_page_is_of_no_use_until_it_is_accepted_too() -> None:
    bare = Bare(16)
    enclave = bare.enclave()
    enclave.eaug(enclave.heap)
    enclave.enter()
    assert enclave.eaccept(enclave.heap, REG | PENDING | R | W) == 0
    bare.lp.store(enclave.heap, b"mine")
    bare.lp.interrupt()
    enclave.eaug(enclave.heap)  # a hostile kernel: a second, zeroed page at the address
    enclave.resume()
    with pytest.raises(Fault) as caught:
        bare.lp.load(enclave.heap, 4)
    assert (caught.value.code, caught.value.address) == (PFEC_P | PFEC_U | PFEC_SGX, enclave.heap)
    assert list(invariants.accepted_pages_are_unique(bare.processor)) == []
    # Only the enclave itself can lose its page, by accepting once more.
    assert enclave.eaccept(enclave.heap, REG | PENDING | R | W) == 0
    assert bare.lp.load(enclave.heap, 4) == bytes(4)
    assert len(list(invariants.accepted_pages_are_unique(bare.processor))) == 1
