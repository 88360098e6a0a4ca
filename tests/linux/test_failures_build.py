"""Each place where building an enclave can fail: errno, count, what is left, and that retry works.

A row names what fails, at which use, and how. Nothing may leak, and after the failure the same call
succeeds. Linux 6.12, sgx/ioctl.c (sgx_encl_create, sgx_encl_add_page, sgx_encl_init).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from softsgx.linux.errno import EBUSY, EFAULT, EINTR, EIO, ENOMEM
from softsgx.linux.sgx.encl import SGX_ENCL_CREATED, SGX_ENCL_INITIALIZED
from softsgx.linux.uapi import SGX_PAGE_MEASURE
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.leaves import EADD, ECREATE, EEXTEND, EINIT, EPA
from softsgx.spec.status import SGX_UNMASKED_EVENT
from softsgx.system import Machine, load
from tests.linux.building import Building, created, filled
from tests.linux.failing import GP, PF, failing, nth

Patch = pytest.MonkeyPatch
Fail = Callable[[Building, Patch], None]


def site(name: str, number: int = 1) -> Fail:
    """The kernel fails there."""

    def fail(b: Building, _patch: Patch) -> None:
        b.machine.kernel.inject = nth(name, number)

    return fail


def signal_at(name: str, number: int) -> Fail:
    """EPC is exhausted there, other pages could be reclaimed, and just then a signal arrives."""

    def fail(b: Building, _patch: Patch) -> None:
        def arrive() -> None:
            b.host.thread.pending_signals = 1

        b.machine.kernel.inject = nth(name, number, arrive)

    return fail


def leaf(number: int, *ends: int, use: int = 1) -> Fail:
    """The leaf ends with this result."""
    return lambda b, patch: failing(patch, number, {use + n: end for n, end in enumerate(ends)})


def over(b: Building, patch: Patch) -> None:
    """From now on nothing fails."""
    patch.undo()
    b.machine.kernel.inject = None
    b.host.thread.pending_signals = 0


def with_a_neighbour() -> Building:
    """Another enclave is there, whose pages the reclaimer could take."""
    b = Building(Machine(epc="1M"))
    b.machine.run(load(b.machine.thread(b.host.process, 1), pages=8), cpu=1)
    return b


CREATE: list[tuple[str, Fail, int, int]] = [
    ("page buffer", site("create_buffer"), -ENOMEM, 0),
    ("record of the VA page", site("sgx_encl_grow"), -ENOMEM, 0),
    ("EPC page of the VA page, signal", signal_at("sgx_alloc_epc_page", 1), -EINTR, 0),
    ("EPA, #GP", leaf(EPA, GP), -EFAULT, 1),
    ("EPA, #PF", leaf(EPA, PF), -EFAULT, 1),
    ("backing file", site("shmem_file_setup"), -ENOMEM, 0),
    ("EPC page of the SECS, signal", signal_at("sgx_alloc_epc_page", 2), -EINTR, 0),
    ("ECREATE, #GP", leaf(ECREATE, GP), -EIO, 0),
    ("ECREATE, #PF", leaf(ECREATE, PF), -EIO, 0),
]


@pytest.mark.parametrize(
    ("fail", "errno", "warnings"), [row[1:] for row in CREATE], ids=[row[0] for row in CREATE]
)
def test_create(fail: Fail, errno: int, warnings: int, monkeypatch: Patch) -> None:
    b = with_a_neighbour()
    used = b.epc_used()
    fail(b, monkeypatch)
    assert b.create() == errno
    assert b.epc_used() == used
    assert (b.encl.page_cnt, b.encl.va_pages, b.encl.secs.epc_page) == (0, [], None)
    assert not b.encl.flags & SGX_ENCL_CREATED
    assert len(b.machine.kernel.warnings) == warnings
    over(b, monkeypatch)
    assert b.create() == 0
    assert b.close() == used


# ADD_PAGES of four pages, the third of which is page 512 of the enclave and needs a VA page.

ADD: list[tuple[str, Fail, int, int]] = [
    ("descriptor", site("sgx_encl_page_alloc", 3), -ENOMEM, 0),
    ("EPC page, signal", signal_at("sgx_alloc_epc_page", 3), -EINTR, 0),
    ("record of the VA page", site("sgx_encl_grow"), -ENOMEM, 0),
    ("EPC page of the VA page, signal", signal_at("sgx_alloc_epc_page", 4), -EINTR, 0),
    ("EPA, #GP", leaf(EPA, GP), -EFAULT, 1),
    ("EPA, #PF", leaf(EPA, PF), -EFAULT, 1),
    ("page array", site("xa_insert", 3), -ENOMEM, 0),
    ("EADD, #GP", leaf(EADD, GP, use=3), -EIO, 0),
    ("EADD, #PF", leaf(EADD, PF, use=3), -EIO, 0),
]


@pytest.mark.parametrize(
    ("fail", "errno", "warnings"), [row[1:] for row in ADD], ids=[row[0] for row in ADD]
)
def test_add_pages(fail: Fail, errno: int, warnings: int, monkeypatch: Patch) -> None:
    b = created(Machine(epc="4M"), size=1 << 22)
    assert b.add(0, 509) == (0, 509 * PAGE_SIZE)
    used, first = b.epc_used(), 509 * PAGE_SIZE
    fail(b, monkeypatch)
    assert b.add(first, 4) == (errno, 2 * PAGE_SIZE)
    assert (b.epc_used(), b.encl.page_cnt, len(b.encl.va_pages)) == (used + 2, 512, 1)
    assert (b.encl.secs_child_cnt, len(b.encl.page_array)) == (511, 511)
    assert len(b.machine.kernel.warnings) == warnings
    over(b, monkeypatch)
    # A restart of the whole call, as after a signal, meets the pages that it has added.
    assert b.add(first, 4) == (-EBUSY, 0)
    assert b.add(first + 2 * PAGE_SIZE, 2) == (0, 2 * PAGE_SIZE)
    assert len(b.encl.va_pages) == 2
    assert b.close() == 0


@pytest.mark.parametrize(("end", "warned"), [(GP, True), (PF, False)])
@pytest.mark.parametrize("chunk", [1, 16])
def test_eextend_leaves_the_child_count_and_leaks_the_secs(
    end: int, warned: bool, chunk: int, monkeypatch: Patch
) -> None:
    """The third page is unwound, but the count of children is not: the SECS stays for ever."""
    b = created()
    failing(monkeypatch, EEXTEND, {32 + chunk: end})
    assert b.add(0, 4, flags=SGX_PAGE_MEASURE) == (-EIO, 2 * PAGE_SIZE)
    assert (len(b.encl.page_array), b.encl.page_cnt, b.encl.secs_child_cnt) == (2, 3, 3)
    over(b, monkeypatch)
    kernel = b.machine.kernel
    assert len(kernel.warnings) == warned
    assert b.add(2 * PAGE_SIZE, 2, flags=SGX_PAGE_MEASURE) == (0, 2 * PAGE_SIZE)
    assert b.close() == 1
    assert "1 children left" in kernel.warnings[-2]  # two WARN_ON_ONCE
    assert "the SECS is left" in kernel.warnings[-1]


# INIT


def test_no_page_for_the_operands_of_einit() -> None:
    b = filled()
    site("init_page")(b, Patch())
    assert b.init() == -ENOMEM
    assert not b.encl.flags & SGX_ENCL_INITIALIZED
    b.machine.kernel.inject = None
    assert b.init() == 0
    assert b.close() == 0


@pytest.mark.parametrize("rounds", [1, 2, 50])
def test_signal_while_einit_sleeps(rounds: int, monkeypatch: Patch) -> None:
    """SGX_UNMASKED_EVENT 20 times, a sleep of 20 ms, a look for signals; 50 such rounds at most."""
    b, tries = filled(), 0
    from softsgx.linux.sgx.encls import encls as real

    def encls(current: object, number: int, *operands: int) -> Steps[int]:
        nonlocal tries
        if number != EINIT:
            return (yield from real(current, number, *operands))  # type: ignore[arg-type]
        tries += 1
        if tries > 20 * (rounds - 1):
            b.host.thread.pending_signals = 1
        return int(SGX_UNMASKED_EVENT)

    with monkeypatch.context() as patch:
        patch.setattr("softsgx.linux.sgx.ioctl.encls", encls)
        assert b.init() == -EINTR
    assert tries == 20 * rounds
    assert not b.encl.flags & SGX_ENCL_INITIALIZED
    b.host.thread.pending_signals = 0
    assert b.init() == 0
    assert b.close() == 0
    assert b.machine.kernel.warnings == []


def test_signal_does_not_matter_while_einit_spins(monkeypatch: Patch) -> None:
    b = filled()
    b.host.thread.pending_signals = 1
    failing(monkeypatch, EINIT, dict.fromkeys(range(1, 20), int(SGX_UNMASKED_EVENT)))
    assert b.init() == 0
