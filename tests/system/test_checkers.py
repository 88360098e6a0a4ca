"""Each rule is broken by something: a checker that cannot fail is worthless.

Rules that a known race breaks are in `test_shipped.py`; the others are here, each broken by a fault
injected into the kernel, the runtime or memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest

from softsgx.explore import Kind, Plan, Violation, explore
from softsgx.linux import syscalls
from softsgx.linux.errno import EAGAIN, EFAULT
from softsgx.linux.sgx import edmm
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx import main as m
from softsgx.linux.sgx.main import SgxEpcPage
from softsgx.linux.version import Races
from softsgx.mem.tlb import CLEAN
from softsgx.sim import Mutex, Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PR, REG, VALID, R, W
from softsgx.system import EnclaveThread, Machine
from softsgx.system.checkers.epc_leak import EpcLeak
from softsgx.system.checkers.knowledge import check_restrict
from softsgx.system.checkers.stale_mapping import StaleMapping
from softsgx.system.checkers.wider_right import WiderRight
from softsgx.system.runtimes import TrustedManager
from softsgx.system.scenarios.fork_share import ForkShare
from softsgx.system.scenarios.hostile_host import HostileHost, may_fail
from softsgx.system.scenarios.protect import ProtectAccess
from softsgx.system.scenarios.remove_touch import RemoveTouch
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene

OFF = dict.fromkeys(Races.__dataclass_fields__, False)


def rule_of(scenario: MachineScenario, executions: int = 2000) -> str | None:
    failure = explore(scenario, Plan(executions=executions, minimise=False)).failure
    if failure is None:
        return None
    return failure.rule if failure.kind is Kind.VIOLATION else failure.kind.value


def nothing(*_: Any) -> Steps[int]:
    return 0
    yield


def flush_here(current: Any, mm: Any) -> Steps[None]:
    """flush_tlb_mm without interrupts to other processors."""
    current.kernel.processor.lps[current.cpu].flush_tlb("here only")
    return
    yield


def test_without_etrack_a_protect_ends_in_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edmm, "sgx_enclave_etrack", nothing)
    assert rule_of(ProtectAccess(races=OFF)) == "spurious abort"


def test_without_etrack_and_eaccept_another_processor_keeps_its_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ProtectWrite(ProtectAccess):
        def tasks(self, scene: Scene) -> Iterable[Cast]:
            page = scene.enclave.heap
            yield "protector", 1, self.protect(scene, 1, page, 1)

            def twice(t: Any) -> Steps[None]:
                yield from t.store(page + 128, b"first...")
                yield from t.load(page + 64, 8)

            yield "writer", 2, may_fail(scene.call(2, twice))

    monkeypatch.setattr(TrustedManager, "_verified", lambda *_: None)
    monkeypatch.setattr(edmm, "sgx_enclave_etrack", nothing)
    # munmap() of the argument block and mprotect() would interrupt the writer.
    monkeypatch.setattr(syscalls, "flush_tlb_mm", flush_here)
    assert rule_of(ProtectWrite(races=OFF)) == "wider right"


@pytest.mark.parametrize(
    ("unread", "rule"),
    [
        (("EACCEPT",), "wider right"),
        (("EACCEPT of TRIM", "EACCEPT of a new page"), "wrong data"),
    ],
)
def test_a_runtime_that_does_not_look_at_eaccept_believes_the_host(
    unread: tuple[str, ...], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = TrustedManager._verified

    def careless(self: TrustedManager, what: str, page: int, status: Any) -> None:
        if what not in unread:
            verified(self, what, page, status)

    assert rule_of(HostileHost(races=OFF)) is None
    monkeypatch.setattr(TrustedManager, "_verified", careless)
    assert rule_of(HostileHost(races=OFF)) == rule


def test_an_epc_page_that_is_not_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "sgx_free_epc_page", lambda kernel, page: None)
    assert rule_of(RemoveTouch(races=OFF)) == "leaked EPC page"


def built() -> Scene:
    return Scene.built(Machine(cpus=2, epc="1M"), pages=2)


def held(scene: Scene, address: int) -> SgxEpcPage:
    """The EPC page of an address."""
    entry = scene.encl.page(address)
    assert entry is not None
    assert entry.epc_page is not None
    return entry.epc_page


def test_an_epc_page_that_is_given_away_twice() -> None:
    """The number of EPC pages may still be right: one was freed too early, another is lost."""
    scene = built()
    EpcLeak().check(scene)
    m.sgx_free_epc_page(scene.kernel, held(scene, scene.enclave.data[0]))
    assert m.__sgx_alloc_epc_page(scene.kernel) is not None
    with pytest.raises(Violation, match=r"EPC page \d+ is free and in use"):
        EpcLeak().check(scene)


@pytest.mark.parametrize("why", ["another address", "not valid"])
def test_a_mapping_whose_epcm_entry_is_anothers(why: str) -> None:
    """PTE and driver agree, but the page was removed or added elsewhere without them."""
    scene = built()
    page = scene.enclave.data[1]
    scene.machine.run(scene.host.load(page, 1))
    epcm, number = scene.machine.processor.epcm, held(scene, page).number
    StaleMapping().check(scene)
    if why == "not valid":
        epcm.put(number, epcm.state[number] & ~VALID)
    else:
        epcm.address[number] += PAGE_SIZE
    with pytest.raises(Violation, match=f"PTE of {page:#x}: EPC page {number} is another's"):
        StaleMapping().check(scene)


@dataclass
class Block:
    """The fields of the argument block that the checker reads."""

    count: int


@pytest.mark.parametrize(
    ("first", "second", "errno", "count", "text"),
    [
        (VALID | REG | R | PR, VALID | REG | R | PR, 0, 2, ""),
        (VALID | REG | R | PR, VALID | REG | R | W, -EAGAIN, 1, ""),
        (VALID | REG | PR, VALID | REG | R | W, -EAGAIN, 1, ""),  # fewer rights than asked for
        (VALID | REG | R, VALID | REG | R | PR, 0, 2, "is counted, but was not restricted"),
        (VALID | REG | R | W | PR, VALID | REG | R | W, -EAGAIN, 1, "is counted, but was not"),
        (VALID | REG | R | PR, VALID | REG | R | PR, -EAGAIN, 1, "yet it changed"),
        (VALID | REG | R | PR, VALID | REG | R | W, 0, 1, "errno 0 with count 0x1000 of 0x2000"),
        (VALID | REG | R | PR, VALID | REG | R | PR, -EFAULT, 2, ""),  # result could not be written
    ],
)
def test_what_a_caller_of_restrict_learns(
    first: int, second: int, errno: int, count: int, text: str
) -> None:
    """PR and no excess right on each counted page, no change on the others."""
    scene = built()
    pages = scene.enclave.data
    before = dict.fromkeys(pages, VALID | REG | R | W)
    for page, word in zip(pages, (first, second), strict=True):
        scene.machine.processor.epcm.put(held(scene, page).number, word)
    with pytest.raises(Violation, match=text) if text else nullcontext():
        check_restrict(scene, before, R, (errno, Block(count * PAGE_SIZE)))


@pytest.mark.parametrize("written", [False, True], ids=["D clear", "D set"])
def test_a_translation_that_permits_a_write_is_a_wider_right(written: bool) -> None:
    """While D is clear W is cached as well; only setting D is left to the first write.

    The EPCM was narrowed without tracking, so only the TLB of a thread inside is too wide.
    """
    scene = built()
    page = scene.enclave.data[0]
    epcm, number = scene.machine.processor.epcm, held(scene, page).number

    def program(t: EnclaveThread) -> Steps[None]:
        yield from (t.store(page, b"x") if written else t.load(page, 1))
        lp = scene.machine.processor.lps[0]
        assert bool(lp.tlb.holds(page) & CLEAN) is not written
        epcm.put(number, epcm.state[number] & ~W)
        scene.protected[page] = R
        with pytest.raises(Violation, match=f"cpu 0 still translates {page:#x} with rw"):
            WiderRight().check(scene)

    scene.machine.run(scene.enclave.call(scene.host, program))
    WiderRight().check(scene)  # outside, the translation is gone


def test_a_warning_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is freed while it is still on the reclaimer's list."""
    monkeypatch.setattr(m, "sgx_unmark_page_reclaimable", lambda kernel, page: 0)
    assert rule_of(RemoveTouch(races=OFF)) == "kernel warning"


def test_contents_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    class Corrupted(ForkShare):
        def tasks(self, scene: Scene) -> Iterable[Cast]:
            yield from super().tasks(scene)
            yield "cosmic ray", 3, ray(scene)

    def ray(scene: Scene) -> Steps[None]:
        yield ("write", "dram", True)
        entry = scene.encl.page(scene.enclave.data[0])
        if entry is not None and entry.epc_page is not None:
            processor = scene.machine.processor
            pfn = processor.epc.pfn(entry.epc_page.number)
            processor.memory.write(pfn << 12, b"struck")

    assert rule_of(Corrupted(races=OFF)) == "lost data"


def test_locks_in_the_wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zap is done with the mutex held, against the order of the reclaimer."""
    zap = e.sgx_zap_enclave_ptes

    def held(current: Any, encl: Any, address: int) -> Steps[None]:
        with (yield from encl.lock.acquire()):
            yield from zap(current, encl, address)

    monkeypatch.setattr(e, "sgx_zap_enclave_ptes", held)
    assert rule_of(RemoveTouch(races=OFF)) == "lock order"


def test_two_locks_taken_crosswise() -> None:
    class Crosswise(MachineScenario):
        def tasks(self, scene: Scene) -> Iterable[Cast]:
            locks = Mutex("a"), Mutex("b")

            def take(first: Mutex, second: Mutex) -> Steps[None]:
                with (yield from first.acquire()), (yield from second.acquire()):
                    yield ("write", "x", True)

            yield "ab", 1, take(*locks)
            yield "ba", 2, take(*reversed(locks))

    assert rule_of(Crosswise(races=OFF)) == "deadlock"
