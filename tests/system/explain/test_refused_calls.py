"""Each rule by which the kernel refuses: the explanation names it, and the advice works.

`refused_rows` and `refused_area_rows` provoke them; what no row can provoke is listed with reason.
"""

from __future__ import annotations

import pytest

from softsgx.events.cpu import LeafDone
from softsgx.events.kernel import CallBegun, CallEnded
from softsgx.linux import madvise
from softsgx.linux.errno import EINVAL, EPERM
from softsgx.linux.refusals import REFUSALS, function_of, leaf_of
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.spec.rules import RULES
from softsgx.system import Machine
from softsgx.system.explain.history import Context
from tests.linux.world import world
from tests.system.explain.refused_area_rows import AREA_ROWS
from tests.system.explain.refused_rows import ROWS, evict

ALL = {**ROWS, **AREA_ROWS}


@pytest.mark.parametrize("rule", ALL)
def test_a_refusal_names_its_rule_and_its_advice_works(rule: str) -> None:
    machine, result, follow = ALL[rule]()
    assert -4096 < result < 0
    assert machine.explainer is not None
    found = machine.explainer.last
    assert found is not None
    leaf = leaf_of(rule)
    if leaf and found.rule in RULES:
        assert found.rule_text == f"{RULES[found.rule]} ({function_of(rule)})"
        assert f"; {leaf}: " in found.headline
    else:
        assert found.rule == rule
        assert found.rule_text == f"{REFUSALS[rule]} ({function_of(rule)})"
    text = machine.explain()
    assert " refused" in found.headline
    assert isinstance(found.advice, str)
    assert " to succeed: " in found.advice
    assert not found.advice.endswith(": ")
    assert "allowed as soon as" not in text
    assert follow() >= 0, text


# Nothing that a program or a test can do leads there.
UNREACHED = {
    "sgx_alloc_va_page.EPA": "EPA of a free page is never refused; see test_failures_build",
    "__sgx_encl_extend.EEXTEND": "of a page just added; see test_failures_build",
    "__sgx_encl_eldu.ELDU": "of what EWB wrote; see test_failures_run",
}


def test_every_rule_has_its_row() -> None:
    assert set(ALL) | set(UNREACHED) == set(REFUSALS), sorted(set(REFUSALS) - set(ALL))
    assert not set(ALL) & set(UNREACHED)


# The leaf is the one that made the driver give up


def test_what_the_driver_expects_is_no_reason() -> None:
    """REMOVE_PAGES expects the #PF of EMODPR; it is not why the next page is refused."""
    w = world(Machine(cpus=4, epc="1M", explain=True), pages=2)
    first, second = w.enclave.data[:2]
    assert w.do(w.enclave.trim(w.host, first, PAGE_SIZE))[0] == 0
    assert w.call(lambda t: t.accept_trim(first)) == 0
    ret, after = w.do(w.enclave.remove(w.host, first, 2 * PAGE_SIZE))
    assert (ret, after.count) == (-EPERM, PAGE_SIZE)
    text = w.machine.explain()
    assert "refused by the driver: -EPERM" in text
    assert f"page   {second:#x}" in text
    assert "EMODPR" not in text


def test_a_leaf_that_worked_at_last_is_no_reason() -> None:
    """EWB before tracking is refused, and the reclaimer retries it."""
    w = world(Machine(cpus=4, epc="1M", explain=True), pages=2)
    at = w.enclave.data[0]
    w.call(lambda t: t.load(at, 1))
    evict(w, at)
    assert w.do(w.enclave.restrict(w.host, at, PAGE_SIZE, W))[0] == -EINVAL
    assert "EWB" not in w.machine.explain()
    assert w.machine.explainer is not None
    history = w.machine.explainer.history
    busy = Context("", "main", (), 0)
    history._busy[0] = [busy]
    refused, done = (LeafDone(0, "EWB", 0, 0, 0, 11, rule) for rule in ("EWB.12", ""))
    history.handlers[LeafDone](refused)
    assert busy.leaves is not None
    assert list(busy.leaves) == ["EWB"]
    history.handlers[LeafDone](done)
    assert not busy.leaves


def test_an_errno_without_a_rule_is_not_silent() -> None:
    """A design of the lab has ioctls of its own."""
    w = world(Machine(cpus=4, epc="1M", explain=True))
    assert w.machine.explainer is not None
    log = w.machine.processor.log
    log.emit(CallBegun(0, "main", "SGX_IOC_ENCLAVE_OWN", ()))
    log.emit(CallEnded(0, "main", "SGX_IOC_ENCLAVE_OWN", (), -EPERM))
    text = w.machine.explain()
    assert "ioctl OWN() of thread main refused by the kernel: -EPERM" in text
    assert "no rule of Linux 6.12 was named" in text


def test_a_call_that_succeeds_is_not_explained() -> None:
    """fork tolerates that an enclave cannot be registered: the child has an area without it."""
    w = world(Machine(cpus=4, epc="1M", explain=True))
    assert w.machine.explainer is not None
    w.kernel.inject = lambda site: site == "sgx_encl_mm_add"
    w.do(w.host.fork("child", 1))
    w.kernel.inject = None
    assert w.protect(w.enclave.data[0], R) == 0
    assert w.machine.explainer.last is None


def test_madvise_that_would_free_enclave_memory_names_what_does() -> None:
    """But other advice values of madvise(2) are not; all of them are tried."""
    frees = {"DONTNEED", "DONTNEED_LOCKED", "FREE", "PAGEOUT", "REMOVE"}
    told = set()
    w = world(Machine(cpus=2, epc="1M", explain=True))
    for name, advice in vars(madvise).items():
        if name.startswith("MADV_") and w.do(w.host.madvise(w.enclave.data[0], PAGE_SIZE, advice)):
            text = w.machine.explain()
            assert f"advice={advice}\n" in text
            if "REMOVE_PAGES give pages back" in text:
                told.add(name.removeprefix("MADV_"))
    assert told == frees
