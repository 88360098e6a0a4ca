"""Planted faults of runtimes are found: a missing EACCEPT, a lock taken in the wrong order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from softsgx.explore import Kind, Plan, explore
from softsgx.linux.version import NO_RACES
from softsgx.sim import Steps
from softsgx.spec.epcm import R
from softsgx.system.enclave import EnclaveThread
from softsgx.system.runtimes import ORDERS, TrustedManager
from softsgx.system.scenarios.catalogue import SCENARIOS
from softsgx.system.scenarios.hostile_host import HostileHost
from softsgx.system.scenarios.protect import Managed, TwoProtects
from softsgx.system.scenarios.scenario import Cast, MachineScenario
from softsgx.system.scene import Scene


class Credulous:
    """Gramine before January 2023: RESTRICT without the EACCEPT that would verify it (R1)."""

    name = "credulous"

    def change(
        self, m: TrustedManager, t: EnclaveThread, pages: list[int], old: int, new: int
    ) -> Steps[None]:
        yield from m.restrict(t, pages, new)


def test_without_eaccept_a_liar_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ORDERS, "credulous", Credulous())
    outcome = explore(HostileHost(races=NO_RACES, order="credulous"), Plan(preemptions=1))
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.rule) == (Kind.VIOLATION, "wider right")
    assert outcome.found_after <= 50


@pytest.mark.parametrize("order", sorted(ORDERS))
def test_the_published_orders_believe_no_lie(order: str) -> None:
    outcome = explore(HostileHost(races=NO_RACES, order=order), Plan(preemptions=0))
    assert outcome.failure is None
    assert outcome.bound == 0


def test_an_ioctl_that_is_not_retried_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """L6 and Enarx: two threads change rights, one of them gets -EBUSY and gives up."""
    monkeypatch.setattr("softsgx.system.runtimes.untrusted._AGAIN", ())
    scenario = TwoManagers(races=NO_RACES)
    outcome = explore(scenario, Plan(preemptions=2))
    assert outcome.failure is not None
    assert outcome.failure.rule == "spurious abort"
    assert outcome.failure.preemptions <= 1


class TwoManagers(TwoProtects):
    """Each thread has a manager of its own, so no lock of the enclave orders their ioctls."""

    def build(self, scene: Scene) -> None:
        super().build(scene)
        first: TrustedManager = scene.facts["manager"]
        second = TrustedManager(first.untrusted, first.order)
        second.pages = dict(first.pages)
        scene.facts["second"] = second

    def protect(self, scene: Scene, cpu: int, page: int, rights: int) -> Steps[Any]:
        manager = scene.facts["manager" if cpu == 1 else "second"]
        return scene.call(cpu, lambda t: manager.protect(t, page, 4096, rights))


def test_two_managers_with_retries_are_clean() -> None:
    assert explore(TwoManagers(races=NO_RACES), Plan(preemptions=1)).failure is None


class WrongOrder(MachineScenario):
    """A driver path that takes mmap_lock under the enclave mutex."""

    layout: ClassVar = {"threads": 1, "pages": 1}

    def tasks(self, scene: Scene) -> Iterable[Cast]:
        def path() -> Steps[None]:
            with (
                (yield from scene.encl.lock.acquire()),
                (yield from scene.mm.mmap_lock.acquire_read()),
            ):
                pass

        yield "driver", 1, path()


def test_the_wrong_lock_order_is_found_without_a_deadlock() -> None:
    outcome = explore(WrongOrder(races=NO_RACES))
    assert outcome.failure is not None
    assert outcome.failure.rule == "lock order"
    assert outcome.found_after == 1


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("linux", ["6.12", "6.1"])
def test_shipped_scenarios_are_clean_on_a_kernel_without_races(
    kind: type[MachineScenario], linux: str
) -> None:
    orders = sorted(ORDERS) if issubclass(kind, Managed) else [""]
    for order in orders:
        scenario = kind(linux, NO_RACES, order) if order else kind(linux, NO_RACES)  # type: ignore[call-arg]
        outcome = explore(scenario, Plan(preemptions=1, executions=40))
        assert outcome.failure is None, scenario.name


def test_extend_after_restrict_is_the_managers_choice() -> None:
    """The scenario itself can fail: a manager that believes in R while the EPCM has W."""

    class Forgetful(Managed):
        def tasks(self, scene: Scene) -> Iterable[Cast]:
            scene.protected[scene.enclave.heap] = R
            yield "nobody", 1, scene.call(1, lambda t: t.load(scene.enclave.heap, 8))

    outcome = explore(Forgetful(races=NO_RACES))
    assert outcome.failure is not None
    assert outcome.failure.rule == "wider right"
