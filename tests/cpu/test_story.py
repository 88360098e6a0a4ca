"""The whole story of restricting a page, on the processor alone.

Two threads of one enclave, A and B, each on a processor of its own, and a kernel on a third. They
grow a page, write it, extend it, and then the kernel takes W away. What makes this hard is B: the
EPCM changes at once, but B holds a translation from before, and nothing but B's leaving drops it.
That is why EACCEPT asks whether tracking is complete, and why A can rely on its answer.
"""

import pytest

from softsgx.cpu import Bare, Fault, LogicalProcessor
from softsgx.spec.epcm import PENDING, PR, REG, RWX, VALID, R, W, X
from softsgx.spec.status import (
    SGX_PAGE_NOT_TRACKED,
    SGX_PREV_TRK_INCMPL,
    SGX_SUCCESS,
)


def write(lp: LogicalProcessor, address: int, data: bytes) -> int:
    """Write; the error code of the page fault, or 0."""
    try:
        lp.store(address, data)
    except Fault as fault:
        return fault.code
    return 0


def test_restricting_a_page_while_another_processor_still_writes_it() -> None:
    bare = Bare(32, lps=3)
    enclave = bare.enclave(threads=2)
    kernel, a, b = bare.processor.lps
    enclave.enter(a, thread=0)
    enclave.enter(b, thread=1)
    heap = enclave.heap

    # The kernel adds a page. Until the enclave has accepted it, nobody can use it.
    page = enclave.eaug(heap)
    assert bare.word(page) == VALID | REG | PENDING | R | W
    assert write(a, heap, b"early") == 0x8007

    # A accepts it: no ETRACK, since no translation of it can exist.
    assert enclave.eaccept(heap, REG | PENDING | R | W, a) == SGX_SUCCESS
    assert bare.word(page) == VALID | REG | R | W
    assert write(a, heap, b"from A") == 0

    # A extends it by X, alone: no kernel, no acceptance. B, which had no translation yet, gets one
    # with all three rights.
    enclave.emodpe(heap, X, a)
    assert bare.word(page) == VALID | REG | RWX
    assert write(b, heap, b"from B") == 0
    assert b.fetch(heap, 6) == b"from B"

    # The kernel restricts it to R. At once in the EPCM, but B's translation still permits to write.
    assert bare.emodpr(page, R, kernel) == SGX_SUCCESS
    assert bare.word(page) == VALID | REG | PR | R
    assert write(b, heap, b"late B") == 0
    assert a.load(heap, 6) == b"late B"

    # A must not yet rely on the restriction: EACCEPT verifies, and finds no ETRACK at all.
    assert enclave.eaccept(heap, REG | PR | R, a) == SGX_PAGE_NOT_TRACKED

    # ETRACK: from now on the processor counts who of those inside has not left yet: A and B. A
    # leaves and comes back; as long as B stays, the answer does not change, and B still writes.
    assert bare.etrack(enclave.secs, kernel) == SGX_SUCCESS
    assert enclave.eaccept(heap, REG | PR | R, a) == SGX_PAGE_NOT_TRACKED
    enclave.exit(a)
    enclave.enter(a)
    assert enclave.eaccept(heap, REG | PR | R, a) == SGX_PAGE_NOT_TRACKED
    assert bare.etrack(enclave.secs, kernel) == SGX_PREV_TRK_INCMPL
    assert write(b, heap, b"last B") == 0

    # The kernel interrupts B: an AEX, which drops B's translations. Nothing old is left.
    assert b.interrupt().from_enclave
    enclave.resume(b, thread=1)
    assert enclave.eaccept(heap, REG | PR | R, a) == SGX_SUCCESS
    assert bare.word(page) == VALID | REG | R

    # From now on both are refused, by the EPCM: bit 15 of the error code. Reading goes on.
    assert write(b, heap, b"never") == write(a, heap, b"never") == 0x8007
    assert a.load(heap, 6) == b.load(heap, 6) == b"last B"


def test_the_refused_write_reaches_the_kernel_as_an_aex() -> None:
    """The last step of the story as the kernel sees it: the page, the code, the thread outside."""
    bare = Bare(32)
    enclave = bare.enclave()
    kernel, a = bare.processor.lps
    address = enclave.data[0]
    enclave.enter(a)
    assert bare.emodpr(enclave.pages[address], R, kernel) == SGX_SUCCESS
    assert bare.etrack(enclave.secs, kernel) == SGX_SUCCESS
    enclave.exit(a)
    enclave.enter(a)
    assert enclave.eaccept(address, REG | PR | R, a) == SGX_SUCCESS
    with pytest.raises(Fault) as caught:
        a.store(address + 0x42, b"after")
    seen = a.deliver_fault(caught.value)
    assert (seen.vector, seen.code, seen.cr2) == (14, 0x8007, address)
    assert not a.enclave_mode
