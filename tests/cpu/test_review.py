"""What a review against the manual found; each test tells its story."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from softsgx.cpu import Bare, Fault, Processor
from softsgx.spec import leaves
from softsgx.spec.epcm import PENDING, REG, R, W
from softsgx.spec.faults import GP


def test_a_leaf_works_on_the_page_that_is_claimed_when_its_body_runs() -> None:
    """Operands were resolved once for the claims, before the point, and again by the body.

    A PTE set between led the body to a page that another leaf held exclusively.
    """
    bare = Bare(64, lps=3)
    enclave = bare.enclave(pages=2)
    user, other, third = bare.processor.lps
    page = bare.eaug(enclave.secs, enclave.heap)
    enclave.enter(user)
    removal = third.encls_steps(leaves.EREMOVE, 0, bare.address(page))
    next(removal)
    info = enclave.secinfo(REG | PENDING | R | W, user)
    accept = user.enclu_steps(leaves.EACCEPT, info, enclave.heap)
    next(accept)  # the address is not mapped: nothing to claim
    enclave.map(enclave.heap, page)
    with pytest.raises(Fault) as caught:
        next(accept)
    assert (caught.value.vector, caught.value.rule) == (GP, "EACCEPT.18")
    removal.close()
    assert not bare.processor.claims
    assert other.interruptible()


def test_a_huge_ssa_frame_costs_no_more_than_its_tested_pages() -> None:
    """EENTER walked over every page of the frame, and ECREATE accepts 2^32 - 1 of them."""
    bare = Bare(64)
    frame = 0x80_0000
    enclave = bare.enclave(
        pages=0, nssa=1, base=0, size=1 << 45, init=False, secs={"SSAFRAMESIZE": frame}
    )
    last = enclave.tcs[0] + 4096 + (frame - 1) * 4096
    enclave.add(last)
    assert bare.einit(enclave.secs, bare.sigstruct(enclave.secs)) == 0
    enclave.enter()
    assert len(bare.lp.ssa_frame) == 2
    bare.lp.interrupt()
    enclave.resume()
    assert bare.lp.enclave_mode


def test_a_load_of_many_pages_is_no_deeper_than_one() -> None:
    """`load` called itself once per page."""
    bare = Bare(16)
    for number in range(2048):
        bare.processor.space.map(0x1000_0000 + number * 4096, 100 + number)
    assert bare.lp.load(0x1000_0000, 8 << 20) == bytes(8 << 20)


@pytest.mark.parametrize("what", ["interrupt", "leaf", "snapshot"])
def test_a_processor_in_the_middle_of_a_leaf_refuses(what: str) -> None:
    """An interrupt in the middle of EEXIT ended in a nonsense error of the model."""
    bare = Bare(16)
    enclave = bare.enclave()
    enclave.enter()
    lp = bare.lp
    body = lp.enclu_steps(leaves.EEXIT, 0x1000)
    next(body)
    calls: dict[str, Callable[[], object]] = {
        "interrupt": lp.interrupt,
        "leaf": lambda: lp.enclu(leaves.EEXIT, 0x1000),
        "snapshot": bare.processor.snapshot,
    }
    with pytest.raises(RuntimeError, match="in the middle of a leaf"):
        calls[what]()
    body.close()


def test_a_leaf_in_flight_at_a_restore_does_nothing() -> None:
    """Its generator went on and blocked a page of the restored machine."""
    bare = Bare(16)
    enclave = bare.enclave()
    page = enclave.pages[enclave.data[0]]
    image = bare.processor.snapshot()
    body = bare.lp.encls_steps(leaves.EBLOCK, 0, bare.address(page))
    next(body)
    bare.processor.restore(image)
    before = bare.processor.fingerprint()
    with pytest.raises(RuntimeError, match="restored while the leaf was in flight"):
        next(body)
    assert bare.processor.fingerprint() == before


def test_a_snapshot_of_another_processor_is_refused() -> None:
    with pytest.raises(ValueError, match="another EPC"):
        Processor(16).restore(Processor(32).snapshot())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda lp, at: lp.load(at, -1), "size"),
        (lambda lp, at: lp.translate(at, 3), "access"),
        (lambda lp, at: lp.store(at, "text"), "data"),
        (lambda lp, _: lp.deliver("x"), "vector"),
        (lambda lp, _: lp.deliver(14, 4, 1 << 65), "address"),
        (lambda lp, _: lp.load_cr3(5), "space"),
        (lambda lp, _: lp.rdmsr("x"), "msr"),
        (lambda lp, _: lp.encls(0, cpl=5), "cpl"),
    ],
)
def test_a_callers_mistake_is_named(call: object, says: str) -> None:
    """Each of these gave a wrong result, or an error that did not name the argument."""
    bare = Bare(16)
    bare.processor.space.map(0x1000, 5)
    with pytest.raises((TypeError, ValueError), match=says):
        call(bare.lp, 0x1000)  # type: ignore[operator]
