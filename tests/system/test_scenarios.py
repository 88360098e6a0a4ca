"""Scenarios of a machine: every execution starts from the same state, and reduction is exact."""

from __future__ import annotations

from typing import Any

import pytest

from softsgx.explore import Scenario
from softsgx.explore.execute import execute_next
from softsgx.explore.strategies import Bounded, Dpor, Strategy, Walk
from softsgx.linux.sgx.main import sgx_reclaim_pages
from softsgx.linux.version import NO_RACES
from softsgx.sim import Execution, Rng, RunToCompletion
from softsgx.system import Machine
from softsgx.system.scenarios.catalogue import SCENARIOS
from softsgx.system.scenarios.first_touch import FirstTouch
from softsgx.system.scenarios.scenario import MachineScenario
from softsgx.system.scenarios.words import page_words
from softsgx.system.scene import Scene


def kernel_state(scene: Scene) -> Any:
    """The state of the kernel; the processor has a fingerprint of its own."""
    encl, kernel = scene.encl, scene.kernel
    pages = [
        (page.address, page.type, page.epc_page and page.epc_page.number, page.busy)
        for page in encl.page_array.values()
    ]
    lists = [[p.number for p in kernel.active_page_list], [p.number for p in kernel.free_pages]]
    areas = [(vma.start, vma.end, vma.flags) for vma in scene.mm.vmas]
    counts = (encl.page_cnt, encl.secs_child_cnt, encl.refcount, kernel.nr_free, encl.flags)
    space = sorted(scene.mm.space.ptes.items())
    return pages, lists, areas, counts, space, scene.mm.cpumask, sorted(scene.facts)


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.__name__)
def test_every_execution_starts_from_the_same_state(kind: type[MachineScenario]) -> None:
    scenario = kind(races=NO_RACES)

    def at_start() -> Any:
        execution = Execution(RunToCompletion())
        scenario.start(execution)
        execution.close()
        scene = scenario.scene
        return kernel_state(scene), scene.machine.processor.fingerprint()

    first = at_start()
    walk = Walk(Rng(1), 3)
    while walk.begin():
        assert execute_next(scenario, walk) is not None
        assert at_start() == first


def ends(scenario: Scenario, strategy: Strategy) -> tuple[set[Any], int]:
    assert isinstance(scenario, MachineScenario)
    found, executions = set(), 0
    while strategy.begin():
        executions += 1
        done = execute_next(scenario, strategy)
        if done is not None:
            failure = done.failure
            found.add(failure.rule if failure is not None else scenario.fingerprint())
    return found, executions


@pytest.mark.parametrize("on", [False, True])
def test_reduction_ends_in_the_same_states(on: bool) -> None:
    scenario = FirstTouch(races={**NO_RACES, "eaug_double_fault": on})
    every, all_of_them = ends(scenario, Bounded(None))
    some, fewer = ends(scenario, Dpor(scenario))
    assert some == every
    assert fewer <= all_of_them


def test_where_a_page_is_stands_in_its_column() -> None:
    """Resident, being added, swapped out or absent: one word for each."""
    scene = Scene.built(Machine(cpus=2, epc="1M"), threads=1, pages=1)
    address = scene.enclave.data[0]
    entry = scene.encl.page(address)
    assert entry is not None
    assert " EPCM REG rw-" in page_words(scene, address)
    scene.offer_to_reclaimer(address)
    scene.probe(sgx_reclaim_pages(scene.host.thread))
    assert entry.va_page is not None
    assert page_words(scene, address).endswith(" swapped out")
    # Between allocating the record and EAUG there is neither an EPC page nor a slot.
    entry.va_page = None
    assert page_words(scene, address).endswith(" no EPC page")
    assert page_words(scene, scene.enclave.base + scene.enclave.size - 0x1000).endswith(" hole")
