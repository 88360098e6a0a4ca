"""The kernel's SGX selftests that run on SGX1, one test each.

Linux 6.12, tools/testing/selftests/sgx/main.c.

R0: the vDSO function returned 0 (asserted by `enter`); X: run.function is EEXIT; Z: no exception in
the run structure; U0: run.user_data is 0.
"""

from collections.abc import Iterator

import pytest

from softsgx.linux import uapi
from softsgx.linux.process import Thread
from softsgx.linux.uapi import PROT_READ, PROT_WRITE, SgxEnclaveRun
from softsgx.linux.vdso import Exit
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_TRIM
from softsgx.system import Machine
from tests.linux.selftest import (
    ACCEPT_TRIM,
    GET_FROM_BUFFER,
    HEAP,
    M1,
    M2,
    NOP,
    PUT_TO_ADDRESS,
    PUT_TO_BUFFER,
    SelfTest,
    total_epc,
)


@pytest.fixture
def t() -> Iterator[SelfTest]:
    test = SelfTest()
    yield test
    test.tear_down()


def write_and_read_buffer(t: SelfTest) -> None:
    """The checks of `unclobbered_vdso`."""
    t.enter(PUT_TO_BUFFER, M1)
    assert (t.run_.function, t.run_.user_data) == (4, 0)
    assert t.enter(GET_FROM_BUFFER, 0)[1] == M1
    assert (t.run_.function, t.run_.user_data) == (4, 0)


@pytest.mark.parametrize("call", ["unclobbered_vdso", "clobbered_vdso"])
def test_vdso(t: SelfTest, call: str) -> None:
    """Two ways to call that differ in the registers saved around; no Python caller has any."""
    write_and_read_buffer(t)


def test_unclobbered_vdso_oversubscribed() -> None:
    epc = total_epc(Machine(epc="1M"))
    assert epc == 1 << 20
    t = SelfTest(epc="1M", heap=epc)
    assert t.enclave_size == 2 * epc
    write_and_read_buffer(t)
    t.tear_down()


def test_unclobbered_vdso_oversubscribed_remove() -> None:
    heap = total_epc(Machine(epc="1M"))
    t = SelfTest(epc="1M", heap=heap)
    t.probe(uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES, uapi.SgxEnclaveModifyTypes)
    write_and_read_buffer(t)
    t.modify_types(HEAP, heap, PT_TRIM)
    for page in range(t.base + HEAP, t.base + HEAP + heap, PAGE_SIZE):
        t.accept(page, ACCEPT_TRIM)
    assert t.remove_pages(HEAP, heap) == (0, heap)
    t.tear_down()


def test_clobbered_vdso_and_user_function(t: SelfTest) -> None:
    seen = []

    def user_handler(current: Thread, run: SgxEnclaveRun, end: Exit) -> Steps[int]:
        seen.append((run.user_data, end.function))
        run.user_data = 0
        return 0
        yield

    t.run_.user_handler = 0x40_0000
    t.run_.user_data = 0xDEADBEEF
    t.enter(PUT_TO_BUFFER, M1, handler=user_handler)
    assert (t.run_.function, t.run_.user_data) == (4, 0)
    t.run_.user_data = 0xDEADBEEF
    assert t.enter(GET_FROM_BUFFER, 0, handler=user_handler)[1] == M1
    assert (t.run_.function, t.run_.user_data) == (4, 0)
    assert seen == [(0xDEADBEEF, 4)] * 2


def test_tcs_entry(t: SelfTest) -> None:
    t.enter_on(t.base, NOP)
    t.enter_on(t.base + PAGE_SIZE, NOP)


def test_pte_permissions(t: SelfTest) -> None:
    t.write(t.d2, M1)
    assert t.read(t.d2) == M1
    assert t.do(t.host.mprotect(t.d2, PAGE_SIZE, PROT_READ)) == 0
    t.faults_on(PUT_TO_ADDRESS, 0x7, t.d2)
    assert t.do(t.host.mprotect(t.d2, PAGE_SIZE, PROT_READ | PROT_WRITE)) == 0
    t.resume()
    assert t.read(t.d2) == M2
