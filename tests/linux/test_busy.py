"""One ioctl per enclave at a time, and what each ioctl does with a page that is being reclaimed.

Linux 6.12, sgx/ioctl.c (sgx_ioctl); -EBUSY and -EAGAIN are different retries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EAGAIN, EBUSY, ENOTTY
from softsgx.linux.sgx.main import RECLAIMER_TRACKED, sgx_reclaim_pages
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_TCS, PT_TRIM, RWX, R, W
from softsgx.system import EnclaveThread, HostThread
from tests.linux.held import Until, at_lock, at_retry, to_the_end
from tests.linux.test_races import alone, scheduled, second
from tests.linux.world import World, world

REQUESTS = [
    uapi.SGX_IOC_ENCLAVE_CREATE,
    uapi.SGX_IOC_ENCLAVE_ADD_PAGES,
    uapi.SGX_IOC_ENCLAVE_INIT,
    uapi.SGX_IOC_ENCLAVE_PROVISION,
    uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
    uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES,
    uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES,
    0x1234,
]


@pytest.mark.parametrize("cmd", REQUESTS)
def test_second_ioctl_is_ebusy(cmd: int) -> None:
    """For every request, unknown ones included, before its argument is read."""
    w = world(pages=2)
    ended = scheduled(
        w,
        [("first", at_lock("encl->lock")), ("second", to_the_end)],
        first=w.enclave.restrict(second(w, 1), w.enclave.data[0], PAGE_SIZE, R),
        second=second(w, 2).ioctl(w.enclave.fd, cmd, 8),
    )
    assert dict(ended)["second"] == -EBUSY
    assert dict(ended)["first"][0] == 0
    assert w.do(w.host.ioctl(w.enclave.fd, 0x1234, 8)) == -ENOTTY, "the bit is cleared"


def test_another_enclave_is_not_busy() -> None:
    w = world()
    fd = w.do(w.host.open())
    ended = scheduled(
        w,
        [("first", at_lock("encl->lock")), ("second", to_the_end)],
        first=w.enclave.restrict(second(w, 1), w.enclave.data[0], PAGE_SIZE, R),
        second=second(w, 2).ioctl(fd, 0x1234, 8),
    )
    assert dict(ended)["second"] == -ENOTTY


def test_busy_bit_excludes_no_fault_and_no_mmap() -> None:
    w = world(pages=2)
    other = second(w, 2)

    def beside() -> Steps[tuple[bytes, int]]:
        data = yield from other.load(w.enclave.data[1], 1)
        return data, (yield from other.mprotect(w.enclave.data[1], PAGE_SIZE, R))

    ended = scheduled(
        w,
        [("first", at_lock("encl->lock")), ("second", to_the_end)],
        first=w.enclave.restrict(second(w, 1), w.enclave.data[0], PAGE_SIZE, R),
        second=beside(),
    )
    assert [name for name, _ in ended] == ["second", "first"]
    assert dict(ended)["second"] == (b"\xff", 0)


def only(w: World, page: int) -> None:
    """The reclaimer tracks no page but this one."""
    for other in w.kernel.active_page_list:
        other.flags &= ~RECLAIMER_TRACKED
    alone(w, page)
    tracked = next(iter(w.kernel.active_page_list))
    tracked.flags |= RECLAIMER_TRACKED


# The reclaimer has taken the page off its list; then it marks it; then it is out


def restrict(w: World, host: HostThread, page: int) -> Steps[Any]:
    return w.enclave.restrict(host, page - PAGE_SIZE, 2 * PAGE_SIZE, R | W)


def trim(w: World, host: HostThread, page: int) -> Steps[Any]:
    return w.enclave.modify_types(host, page - PAGE_SIZE, 2 * PAGE_SIZE, PT_TRIM)


def to_tcs(w: World, host: HostThread, page: int) -> Steps[Any]:
    return w.enclave.modify_types(host, page - PAGE_SIZE, 2 * PAGE_SIZE, PT_TCS)


def remove(w: World, host: HostThread, page: int) -> Steps[Any]:
    return w.enclave.remove(host, page - PAGE_SIZE, 2 * PAGE_SIZE)


def accepted_trim(w: World) -> None:
    """Both pages could be removed."""

    def accept(t: EnclaveThread) -> Steps[None]:
        for address in w.enclave.data:
            assert (yield from t.accept_trim(address)) == 0

    assert w.do(w.enclave.trim(w.host, w.enclave.data[0], 2 * PAGE_SIZE))[0] == 0
    w.call(accept)


IOCTLS: list[tuple[Callable[..., Steps[Any]], int, int]] = [
    # The errno while the page is off the list, and once it is marked "being reclaimed".
    (restrict, 0, -EAGAIN),
    (trim, 0, -EAGAIN),
    (to_tcs, -EAGAIN, -EAGAIN),
    (remove, -EBUSY, -EAGAIN),
]


@pytest.mark.parametrize(
    ("ioctl", "held", "marked"), IOCTLS, ids=lambda v: getattr(v, "__name__", "")
)
@pytest.mark.parametrize("stage", ["held", "marked"])
def test_page_that_is_being_reclaimed(
    ioctl: Callable[..., Steps[Any]], held: int, marked: int, stage: str
) -> None:
    """The second of two pages; `count` names it. The rights of a page that stays REG stay, too.

    Its cap has X, which a TCS may not have: a conversion that was begun would show there.
    """
    w = world(pages=2, rights=RWX)
    page = w.enclave.data[1]
    if ioctl is remove:
        accepted_trim(w)
    entry = w.encl.page(page)
    assert entry is not None
    caps = entry.vm_max_prot_bits, entry.vm_run_prot_bits
    assert caps == (RWX, RWX)
    only(w, page)
    until: Until = at_lock("encl->lock", 1 if stage == "held" else 2)
    ended = scheduled(
        w,
        [("reclaim", until), ("ioctl", to_the_end), ("reclaim", to_the_end)],
        reclaim=sgx_reclaim_pages(second(w, 1).thread),
        ioctl=ioctl(w, second(w, 2), page),
    )
    ret, block = dict(ended)["ioctl"]
    expected = held if stage == "held" else marked
    assert (ret, block.count) == (expected, PAGE_SIZE if expected else 2 * PAGE_SIZE)
    assert getattr(block, "result", 0) == 0
    if expected:
        assert (entry.vm_max_prot_bits, entry.vm_run_prot_bits) == caps
    assert w.kernel.warnings == []


@pytest.mark.parametrize("ioctl", [restrict, trim, to_tcs, remove])
def test_page_that_was_evicted_is_swapped_in_by_the_ioctl(ioctl: Callable[..., Steps[Any]]) -> None:
    """The next try after -EAGAIN or -EBUSY."""
    w = world(pages=2)
    page = w.enclave.data[1]
    if ioctl is remove:
        accepted_trim(w)
    only(w, page)
    w.do(sgx_reclaim_pages(w.host.thread))
    ret, block = w.do(ioctl(w, w.host, page))
    assert (ret, block.count) == (0, 2 * PAGE_SIZE)


def test_fault_spins_until_the_page_is_out() -> None:
    w = world()
    page = w.enclave.data[0]
    only(w, page)
    ended = scheduled(
        w,
        [("reclaim", at_lock("encl->lock", 3)), ("fault", at_retry), ("reclaim", to_the_end)],
        reclaim=sgx_reclaim_pages(second(w, 1).thread),
        fault=second(w, 2).load(page, 1),
    )
    assert ended == [("reclaim", None), ("fault", b"\xff")]
