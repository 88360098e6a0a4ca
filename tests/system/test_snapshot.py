"""Snapshots: everything reachable is restored, or named with its path."""

from __future__ import annotations

import io
import itertools
import random
import threading
import weakref
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from softsgx.explore import Plan, Violation, explore
from softsgx.sim import Execution, Rng, RunToCompletion, Steps, Unmodelled
from softsgx.system import Machine
from softsgx.system.scenarios.scenario import MachineScenario
from softsgx.system.scene import Scene
from softsgx.system.snapshot import Snapshot
from tests.system.object_graphs import (
    MAKERS,
    FrozenSlots,
    Rec,
    Slotted,
    change,
    random_graph,
    reachable,
    shape,
)
from tests.system.test_scenarios import kernel_state


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(cpus=1, epc="1M")


def test_a_snapshot_restores_what_the_kernel_and_the_processor_changed() -> None:
    machine = Machine(cpus=2, epc="1M")
    scene = Scene.built(machine, threads=1, pages=1)
    machine.settle()
    snapshot = Snapshot(machine.processor, scene)
    before = kernel_state(scene), machine.processor.fingerprint()
    heap = scene.enclave.heap
    for _ in range(2):
        scene.probe(scene.host.load(heap, 1))
        scene.probe(scene.host.munmap(scene.enclave.data[0], 4096))
        scene.facts["more"] = []
        assert scene.encl.page(heap) is not None
        snapshot.restore()
        assert (kernel_state(scene), machine.processor.fingerprint()) == before
        assert scene.encl.page(heap) is None


@pytest.mark.parametrize("maker", range(len(MAKERS)))
def test_every_kind_of_object_is_restored(machine: Machine, maker: int) -> None:
    rng = Rng(maker)
    for way in range(8):
        held: list[Any] = [MAKERS[maker](lambda: Rec([1, 2], {"a": []}))]
        before = shape(held)
        snapshot = Snapshot(machine.processor, held)
        for _ in range(2):
            for thing in reachable(held):
                change(thing, rng.stream(str(way)))
            snapshot.restore()
            assert shape(held) == before


def test_random_graphs_are_restored(machine: Machine) -> None:
    """Elements of sets, arguments of partials, defaults and attributes of functions, attributes of
    derived lists and contents of closures were skipped in silence; equal values of dictionaries
    were taken for the same, and slots that were empty stayed filled."""
    changed = 0
    for seed in range(150):
        rng = Rng(seed)
        held = random_graph(rng, 30)
        before = shape(held)
        snapshot = Snapshot(machine.processor, held)
        for _ in range(2):
            for thing in reachable(held):
                if rng.below(2):
                    change(thing, rng)
            changed += shape(held) != before
            snapshot.restore()
            assert shape(held) == before, seed
    assert changed > 250


def suspended() -> Any:
    generator = (number for number in range(3))
    next(generator)
    return generator


async def nothing() -> None:
    pass


class State(random.Random):
    """Python's own class, with its state in C."""


def unread() -> Any:
    body = nothing()
    body.close()
    return body


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "generator": (suspended, "a suspended generator"),
    "coroutine": (unread, "a suspended coroutine"),
    "iterator": (lambda: iter([1]), "an object of type list_iterator"),
    "count": (itertools.count, "an object of type count"),
    "map": (lambda: map(str, [1]), "an object of type map"),
    "zip": (lambda: zip([1], strict=False), "an object of type zip"),
    "memoryview": (lambda: memoryview(b""), "an object of type memoryview"),
    "random": (lambda: random.Random(1), "an object of type Random"),
    "derived": (lambda: State(1), "an object of type State"),
    "lock": (threading.Lock, "an object of type lock"),
    "file": (lambda: io.BytesIO(b"abc"), "an object of type BytesIO"),
    "weak": (lambda: weakref.ref(Rec), "an object of type ReferenceType"),
    "proxy": (lambda: MappingProxyType({}), "an object of type mappingproxy"),
    "keys": (lambda: {}.keys(), "an object of type dict_keys"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_restored_is_named_with_its_path(machine: Machine, name: str) -> None:
    make, what = REFUSED[name]
    held = Rec(0, {"worker": [1, Rec(make())]})
    with pytest.raises(Unmodelled) as caught:
        Snapshot(machine.processor, scenario=held)
    path = "scenario.values[1]['worker'][1].values[0]"
    assert str(caught.value).startswith(f"snapshot: {path}: {what}")
    assert str(caught.value).endswith(" cannot be restored")


def paths() -> dict[str, Any]:
    bad = memoryview(b"")

    def closure() -> Any:
        return bad

    def default(value: Any = bad, *, named: Any = bad) -> Any:
        return value, named

    default.attribute = bad  # type: ignore[attr-defined]
    return {
        "root[key memoryview]": {bad: 1},
        "root{memoryview}": {bad},
        "root{Rec}.values[0]": frozenset({Rec(bad)}),
        "root[closure of bad]": closure,
        "root.attribute": default,
        "root.__self__.values[0]": Rec(bad).method,
        "root.__self__[0]": [bad].append,
        "root.one": Slotted(bad),
        "root._Slotted__hidden": Slotted(1, bad),
        "root.two": FrozenSlots(1, bad),
    }


@pytest.mark.parametrize("path", paths())
def test_a_path_leads_to_the_object(machine: Machine, path: str) -> None:
    with pytest.raises(Unmodelled) as caught:
        Snapshot(machine.processor, root=paths()[path])
    assert str(caught.value).startswith(f"snapshot: {path}: an object of type memoryview")


def test_a_snapshot_of_a_running_task_is_refused(machine: Machine) -> None:
    execution = Execution(RunToCompletion())

    def body() -> Any:
        yield ("read", "x", False)

    task = execution.spawn(body(), "left over")
    with pytest.raises(Unmodelled, match=r"snapshot: dict\['task'\]: a running Task"):
        Snapshot(machine.processor, {"task": task})
    execution.close()


def test_classes_and_constants_are_not_state(machine: Machine) -> None:
    held = [Rec, Violation, itertools, len, str.join, Rec.method, ..., range(3)]
    assert Snapshot(machine.processor, held).objects == 1 + 1  # the list, and Rec.method.__dict__


class Remembering(MachineScenario):
    """What `build` makes, in whatever, and what the tasks do to it."""

    cpus = 2

    def build(self, scene: Scene) -> None:
        self.count = 0
        self.records = {Rec([])}
        scene.facts["records"] = {Rec([])}
        scene.facts["own"] = self.seen

    def seen(self) -> list[int]:
        """How often each record was used, this execution included."""
        used = []
        for records in (self.records, self.scene.facts["records"]):
            for record in records:
                record.values[0].append(1)
                used.append(len(record.values[0]))
        self.count += 1
        return [self.count, *used]

    def tasks(self, scene: Scene) -> Any:
        yield "one", 1, self.body(scene)

    def body(self, scene: Scene) -> Steps[None]:
        yield ("use", "records", True)
        if scene.facts["own"]() != [1, 1, 1]:
            raise Violation("leak", "an earlier execution left something behind")


def test_executions_do_not_see_each_other() -> None:
    """With a record in a set, the scenario was called nondeterministic; with a method of the
    scenario among the facts, the second execution ended in an assertion."""
    outcome = explore(Remembering(), Plan(strategy="random", executions=10))
    assert (outcome.failure, outcome.executions) == (None, 10)


def test_what_a_scenario_holds_is_named_from_there() -> None:
    class Generating(Remembering):
        def build(self, scene: Scene) -> None:
            self.workers = [Rec(), suspended()]

    failure = explore(Generating()).failure
    assert failure is not None
    wanted = "snapshot: scenario.workers[1]: a suspended generator cannot be restored"
    assert failure.text == wanted
