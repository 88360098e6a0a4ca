"""The kernel's SGX selftests of SGX2, one test each.

Linux 6.12, tools/testing/selftests/sgx/main.c.

See `test_selftests` for R0, X, Z, U0. An ioctl that "does everything" returned 0 with result 0 and
count equal to the length; `SelfTest.modify_types` asserts that.
"""

from collections.abc import Iterator

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EINVAL, EPERM
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_TCS, PT_TRIM
from tests.linux.selftest import (
    ACCEPT_NEW,
    ACCEPT_RESTRICTED,
    ACCEPT_TCS,
    ACCEPT_TRIM,
    D2,
    DYNAMIC_ENTRY,
    EMODPE_PAGE,
    GET_FROM_ADDRESS,
    GET_FROM_BUFFER,
    INIT_TCS,
    M1,
    M2,
    PUT_TO_ADDRESS,
    PUT_TO_BUFFER,
    R,
    SelfTest,
    W,
    X,
)

RESTRICT = uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS
MODIFY_TYPES = uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES


@pytest.fixture
def t() -> Iterator[SelfTest]:
    test = SelfTest()
    yield test
    test.tear_down()


def tcs2(t: SelfTest) -> int:
    """The second thread."""
    return t.base + PAGE_SIZE


def has_sgx2(t: SelfTest) -> bool:
    """CPUID(12H,0).EAX[1]."""
    return bool(t.machine.processor.cpuid(0x12, 0).eax & 2)


def test_tcs_permissions(t: SelfTest) -> None:
    t.probe(RESTRICT, uapi.SgxEnclaveRestrictPermissions)
    assert t.restrict(0, PAGE_SIZE, R) == (-EINVAL, 0, 0)


def test_epcm_permissions(t: SelfTest) -> None:
    t.probe(RESTRICT, uapi.SgxEnclaveRestrictPermissions)
    t.write(t.d2, M1)
    assert t.read(t.d2) == M1
    assert t.restrict(D2, PAGE_SIZE, R) == (0, 0, PAGE_SIZE)
    t.accept(t.d2, ACCEPT_RESTRICTED)
    t.faults_on(PUT_TO_ADDRESS, 0x8007, t.d2)
    # TCS 1 is in the AEX state, and NSSA is 1: only the other thread can be entered.
    t.enter_on(tcs2(t), EMODPE_PAGE, t.d2, R | W)
    t.run_.tcs = t.base
    t.resume()  # the PTE is still writable
    assert t.read(t.d2) == M2
    assert t.run_.user_data == 0


def test_augment(t: SelfTest) -> None:
    assert has_sgx2(t)
    assert t.end + PAGE_SIZE < t.enclave_size
    t.map(t.hole, PAGE_SIZE, R | W | X)
    t.enter(PUT_TO_ADDRESS, M1, t.hole)
    t.faulted(0x8007, t.hole)
    t.run_.tcs = tcs2(t)
    t.accept(t.hole, ACCEPT_NEW)
    t.run_.tcs = t.base
    t.resume()
    assert t.read(t.hole) == M1
    assert t.do(t.host.munmap(t.hole, PAGE_SIZE)) == 0


def test_augment_via_eaccept(t: SelfTest) -> None:
    assert has_sgx2(t)
    assert t.end + PAGE_SIZE < t.enclave_size
    t.map(t.hole, PAGE_SIZE, R | W | X)
    t.accept(t.hole, ACCEPT_NEW)
    t.write(t.hole, M1)
    assert t.read(t.hole) == M1
    assert t.do(t.host.munmap(t.hole, PAGE_SIZE)) == 0


def test_tcs_create(t: SelfTest) -> None:
    t.probe(MODIFY_TYPES, uapi.SgxEnclaveModifyTypes)
    assert t.end + 3 * PAGE_SIZE < t.enclave_size
    t.map(t.hole, 3 * PAGE_SIZE, R | W)
    stack, tcs, ssa = (t.hole + n * PAGE_SIZE for n in range(3))
    for page in (stack, ssa, tcs):
        t.accept(page, ACCEPT_NEW)
    t.enter(INIT_TCS, tcs, ssa - t.base, DYNAMIC_ENTRY)
    t.left_by_eexit()
    t.modify_types(tcs - t.base, PAGE_SIZE, PT_TCS)
    t.accept(tcs, ACCEPT_TCS)

    t.enter_on(tcs, PUT_TO_BUFFER, M1)
    assert t.enter_on(tcs, GET_FROM_BUFFER, 0)[1] == M1

    t.modify_types(t.end, 3 * PAGE_SIZE, PT_TRIM)
    t.run_.tcs = t.base
    for page in (stack, tcs, ssa):
        t.accept(page, ACCEPT_TRIM)
    assert t.remove_pages(t.end, 3 * PAGE_SIZE) == (0, 3 * PAGE_SIZE)
    t.accept(tcs, ACCEPT_NEW)
    t.write(tcs, M1)
    assert t.read(tcs) == M1
    assert t.do(t.host.munmap(t.hole, 3 * PAGE_SIZE)) == 0


def test_tcs_create_enters_at_the_dynamic_entry(t: SelfTest) -> None:
    """OENTRY of the new thread differs from that of the others; what AEX saved proves it."""
    t.map(t.hole, 3 * PAGE_SIZE, R | W)
    _stack, tcs, ssa = (t.hole + n * PAGE_SIZE for n in range(3))
    t.accept(tcs, ACCEPT_NEW)
    t.accept(ssa, ACCEPT_NEW)
    t.enter(INIT_TCS, tcs, ssa - t.base, DYNAMIC_ENTRY)
    t.modify_types(tcs - t.base, PAGE_SIZE, PT_TCS)
    t.accept(tcs, ACCEPT_TCS)
    t.run_.tcs = tcs
    t.faults_on(PUT_TO_ADDRESS, 0x6, 0x1000)
    t.run_.tcs = t.base
    rip = ssa + PAGE_SIZE - 184 + 136
    assert t.read(rip) == t.base + DYNAMIC_ENTRY


def trim_d2(t: SelfTest) -> None:
    """The part that the three remove_added_page cases share."""
    t.probe(MODIFY_TYPES, uapi.SgxEnclaveModifyTypes)
    t.write(t.d2, M1)
    assert t.read(t.d2) == M1
    t.modify_types(D2, PAGE_SIZE, PT_TRIM)


def test_remove_added_page_no_eaccept(t: SelfTest) -> None:
    trim_d2(t)
    assert t.remove_pages(D2, PAGE_SIZE) == (-EPERM, 0)


def test_remove_added_page_invalid_access(t: SelfTest) -> None:
    """The thread is left in the AEX state, and the enclave torn down."""
    trim_d2(t)
    t.faults_on(GET_FROM_ADDRESS, 0x8005, t.d2)


def test_remove_added_page_invalid_access_after_eaccept(t: SelfTest) -> None:
    trim_d2(t)
    t.accept(t.d2, ACCEPT_TRIM)
    t.faults_on(GET_FROM_ADDRESS, 0x8005, t.d2)


def test_remove_untouched_page(t: SelfTest) -> None:
    t.probe(MODIFY_TYPES, uapi.SgxEnclaveModifyTypes)
    mm = t.host.thread.mm
    assert mm.space.lookup(t.d2) == 0, "the page was touched"
    t.modify_types(D2, PAGE_SIZE, PT_TRIM)
    t.accept(t.d2, ACCEPT_TRIM)
    assert t.remove_pages(D2, PAGE_SIZE) == (0, PAGE_SIZE)
