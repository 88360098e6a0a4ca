"""The strategy `states` finds what plain depth first search finds, and refuses what it cannot."""

from __future__ import annotations

import functools
import gc
import io
import os
import struct
import subprocess
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from softsgx.explore import Kind, Outcome, Plan, Scenario, Violation, explore
from softsgx.explore.execute import execute_next
from softsgx.explore.strategies import Bounded, States
from softsgx.explore.strategies.strategy import Strategy
from softsgx.sim import RETRY, Execution, Rng, Steps, Task, Unmodelled, ipi
from softsgx.system.scenarios.names import scenario_named
from tests.explore.programs import Ends, Run, plain, random_program, search


def by_states(program: Any) -> tuple[Ends, int]:
    """The final states of a program, and how many schedules it has."""
    made: list[States] = []

    def make(run: Run) -> Strategy:
        made.append(States(run))
        return made[0]

    return search(program, make), made[0].schedules


@pytest.mark.parametrize("block", range(4))
def test_it_finds_the_final_states_of_random_programs(block: int) -> None:
    """And the number of schedules is that of the executions of a plain search."""
    compared = 0
    for seed in range(100 * block, 100 * block + 100):
        program = random_program(Rng(seed), 3, 3)
        everything = plain(program, limit=1_000)
        if everything.exhausted:
            found, schedules = by_states(program)
            assert found.exhausted
            assert found.states == everything.states, (seed, program)
            assert schedules == everything.executions, (seed, program)
            compared += 1
    assert compared > 80


# State that is kept where a naive walk over attributes does not see it


class Box(list[int]):
    """A list with an attribute."""

    mark = 0


class Slotted:
    __slots__ = ("a", "b")
    a: Any
    b: Any


GLOBAL: dict[str, int] = {}
COUNTED = 0


def with_default(x: int, seen: list[int] = []) -> int:  # noqa: B006 - the point of the test
    """A function that remembers."""
    seen.append(x)
    return len(seen)


def count() -> int:
    """A global variable."""
    global COUNTED
    COUNTED += 1
    return COUNTED


def unset(which: int) -> Steps[int]:
    """Two locals, of which one is set: the values alone do not say which."""
    if which:
        a = 5
    else:
        b = 5
    yield ("between", "locals", True)
    try:
        return a + 1
    except UnboundLocalError:
        return b + 2


def generator() -> Iterator[int]:
    """Its place is not among its locals."""
    yield from (0, 1)
    yield 1


def _iterators() -> dict[str, Callable[[], tuple[Any, Callable[[Any], Any]]]]:
    return {
        "list iterator": lambda: (iter([1, 2, 2]), next),
        "tuple iterator": lambda: (iter((1, 2, 2)), next),
        "range iterator": lambda: (iter(range(9)), next),
        "dict iterator": lambda: (iter({1: 1, 2: 2, 3: 3}), next),
        "items iterator": lambda: (iter({1: 1, 2: 2, 3: 3}.items()), next),
        "reversed": lambda: (reversed([1, 2, 3]), next),
        "enumerate": lambda: (enumerate("aaaa"), next),
        "zip": lambda: (zip("abb", "abb", strict=True), next),
        "map": lambda: (map(str, [1, 2, 2]), next),
        "generator": lambda: (generator(), next),
    }


def put(target: Any, name: str, value: Any) -> Any:
    """Set an attribute to a value, and say which."""
    setattr(target, name, value)
    return value


def _del(target: Any, name: str) -> int:
    delattr(target, name)
    return 1


def _containers() -> dict[str, Callable[[], tuple[Any, Callable[[Any], Any]]]]:
    return {
        "attribute of a list": lambda: (Box(), lambda x: put(x, "mark", x.mark + 1)),
        "items of a list class": lambda: (Box(), lambda x: x.append(1) or len(x)),
        "a slot set late": lambda: (Slotted(), lambda x: put(x, "a", hasattr(x, "a"))),
        "deque": lambda: (deque([0]), lambda x: x.append(1) or len(x)),
        "set": lambda: (set[Any](), lambda x: x.add(len(x)) or len(x)),
        "bytearray": lambda: (bytearray(1), lambda x: x.append(1) or len(x)),
        "memoryview": lambda: (memoryview(bytearray(1)), lambda x: _bump(x)),
        "array": lambda: (array("i", [0]), lambda x: _bump(x)),
        "order of a dict": lambda: ({1: 0, 2: 0, 3: 0}, _turn),
        "ordered dict": lambda: (OrderedDict({1: 0, 2: 0, 3: 0}), _turn),
        "partial": lambda: (functools.partial(list.append, []), lambda x: x(1) or len(x.args[0])),
        "attribute of a function": lambda: (put, lambda x: put(x, "n", getattr(x, "n", 0) + 1)),
        "closure": lambda: (_closure(), lambda x: x()),
        "class attribute": lambda: (Box, lambda x: put(x, "mark", x.mark + 1)),
        "exception": lambda: (ValueError(), lambda x: _more(x)),
    }


def _turn(x: dict[int, int]) -> int:
    first = next(iter(x))
    x[first] = x.pop(first)
    return first


def _bump(x: Any) -> int:
    x[0] += 1
    return int(x[0])


def _more(x: BaseException) -> int:
    x.args = (*x.args, 1)
    return len(x.args)


def _closure() -> Callable[[], int]:
    n = 0

    def more() -> int:
        nonlocal n
        n += 1
        return n

    return more


class Hidden(Scenario):
    """How often something hidden is advanced is drawn, and seen nowhere else until the end."""

    def __init__(self, make: Callable[[], tuple[Any, Callable[[Any], Any]]]) -> None:
        self.make = make
        self.name = "Hidden"
        self.notes: list[Any] = []
        self.thing: Any = None
        self.advance: Any = None

    def start(self, execution: Execution) -> None:
        global COUNTED
        COUNTED = 0
        GLOBAL.clear()
        with_default.__defaults__[0].clear()  # type: ignore[index]
        put.__dict__.clear()
        Box.mark = 0
        self.notes = []
        self.thing, self.advance = self.make()
        execution.spawn(self.run(execution), "A")

    def run(self, execution: Execution) -> Steps[None]:
        """What is drawn is not kept, so at the second point only the hidden thing differs."""
        yield ("maybe", "x", True)
        times = execution.draw(3, "advance")
        while times:
            self.advance(self.thing)
            times -= 1
        yield ("look", "x", True)
        self.notes.append(str(self.advance(self.thing)))


def outcomes(scenario: Any, strategy: Strategy) -> set[Any]:
    """What a strategy finds: notes and failures."""
    found: set[Any] = set()
    while strategy.begin():
        done = execute_next(scenario, strategy)
        if done is not None:
            failure = done.failure.headline if done.failure is not None else ""
            found.add((tuple(scenario.notes), failure))
    assert strategy.exhausted
    return found


ELSEWHERE: dict[str, Callable[[], tuple[Any, Callable[[Any], Any]]]] = {
    "default of a function": lambda: (1, with_default),
    "global dict": lambda: (1, lambda x: GLOBAL.update(n=GLOBAL.get("n", 0) + x) or GLOBAL["n"]),
    "global variable": lambda: (1, lambda x: count()),
}
HIDDEN = {**_iterators(), **_containers(), **ELSEWHERE}


@pytest.mark.parametrize("kind", HIDDEN)
def test_hidden_state_is_seen(kind: str) -> None:
    """States that differ only in there have different futures: none is cut as seen."""
    scenario = Hidden(HIDDEN[kind])
    everything = outcomes(scenario, Bounded(None))
    assert len(everything) > 1, "the test shows nothing"
    assert outcomes(scenario, States(scenario)) == everything


class Plain:
    """Attributes in a dictionary."""

    def __init__(self) -> None:
        self.a: Any = 0
        self.b = 0


def _slotted(a: Any) -> Slotted:
    thing = Slotted()
    thing.a, thing.b = a, 0
    return thing


def _cell(function: Any, value: int) -> None:
    function.__closure__[0].cell_contents = value


ONES = [1]

# Objects that every execution starts from: made once, how they are restored, how they advance.
KEPT: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "list": ([0] * 20, lambda x: x.__setitem__(slice(None), [0] * 20), lambda x: _bump(x)),
    "longer list": ([0], lambda x: x.__delitem__(slice(1, None)), lambda x: x.append(0) or len(x)),
    "deque": (deque([0]), lambda x: x.clear(), lambda x: x.append(0) or len(x)),
    "set": (set[Any](), lambda x: x.clear(), lambda x: x.add(len(x)) or len(x)),
    "bytearray": (bytearray(1), lambda x: x.__setitem__(0, 0), lambda x: _bump(x)),
    "value in a dict": ({0: 0}, lambda x: x.__setitem__(0, 0), lambda x: _bump(x)),
    "order of a dict": (
        {1: 0, 2: 0, 3: 0},
        lambda x: [x.update({k: x.pop(k)}) for k in (1, 2, 3)],
        lambda x: _turn(x),
    ),
    "slot": (_slotted(0), lambda x: put(x, "a", 0), lambda x: put(x, "a", x.a + 1)),
    "slot that is unset": (
        _slotted(0),
        lambda x: put(x, "a", 0),
        lambda x: hasattr(x, "a") and _del(x, "a"),
    ),
    "attribute": (Plain(), lambda x: put(x, "b", 0), lambda x: put(x, "b", x.b + 1)),
    "another object with equal contents": (
        _slotted(ONES),
        lambda x: setattr(x, "a", ONES),
        lambda x: (x.a is ONES, put(x, "a", [1])),
    ),
    "cell": (_closure(), lambda x: _cell(x, 0), lambda x: x()),
    "attribute of a list": (
        Box(),
        lambda x: put(x, "mark", 0),
        lambda x: put(x, "mark", 1 + x.mark),
    ),
    "dict of an object": (
        Plain(),
        lambda x: x.__dict__.pop("c", 0),
        lambda x: put(x, "c", getattr(x, "c", 0) + 1),
    ),
}


@pytest.mark.parametrize("kind", KEPT)
def test_changes_of_what_every_execution_starts_from_are_seen(kind: str) -> None:
    thing, restore, advance = KEPT[kind]

    class Restored(Hidden):
        def start(self, execution: Execution) -> None:
            restore(thing)
            super().start(execution)

    scenario = Restored(lambda: (thing, advance))
    everything = outcomes(scenario, Bounded(None))
    assert outcomes(scenario, States(scenario)) == everything
    assert len(everything) > 1, "the test shows nothing"


class Unset(Scenario):
    """Which local of a suspended frame is set depends on a draw before."""

    notes: tuple[int, ...] = ()

    def start(self, execution: Execution) -> None:
        self.notes = ()
        execution.spawn(self.run(execution), "A")

    def run(self, execution: Execution) -> Steps[None]:
        """The draw itself is not kept."""
        yield ("draw", "x", True)
        note = yield from unset(execution.draw(2, "which"))
        self.notes = (note,)


def test_an_unset_local_is_not_confused_with_another() -> None:
    scenario = Unset()
    assert outcomes(scenario, States(scenario)) == {((6,), ""), ((7,), "")}


def test_equal_states_are_found_again() -> None:
    """The counterpart: two ways to the same contents are one state, however they were made."""

    class Square(Scenario):
        def start(self, execution: Execution) -> None:
            self.things: dict[str, list[int]] = {"A": [], "B": []}
            for name in self.things:
                execution.spawn(self.run(name), name)

        def run(self, name: str) -> Steps[None]:
            for _ in range(9):
                yield ("step", name, True)
                self.things[name] = [*self.things[name], 1][-2:]

    outcome = explore(Square(), Plan(strategy="states"))
    assert outcome.complete
    # One for each pair of places, except the two at the ends.
    assert outcome.states == 99
    assert outcome.schedules == 48_620  # 18 choose 9
    assert outcome.executions < 30


# What it cannot cover


class Refused(Scenario):
    """A scenario with something in it."""

    def __init__(self, thing: Any) -> None:
        self.thing = {"inner": [thing]}
        self.name = "Refused"

    def start(self, execution: Execution) -> None:
        execution.spawn(self.run(), "A")
        execution.spawn(self.run(), "B")

    def run(self) -> Steps[None]:
        yield ("step", "x", True)


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (io.StringIO(), "a _io.StringIO, whose class is written in C"),
        (struct.Struct("I"), "a _struct.Struct, whose class is written in C"),
        (memoryview(b"abc")[1:], "a memoryview of a part"),
        ({Refused, *map(Refused, "aa")}, "a set of objects that are alike"),
        (iter({1, 2}), "a builtins.set_iterator, whose class is written in C"),
    ],
)
def test_what_cannot_be_covered_is_named_with_its_path(thing: Any, why: str) -> None:
    outcome = explore(Refused(thing), Plan(strategy="states"))
    assert outcome.failure is not None
    assert outcome.failure.kind is Kind.SCENARIO
    assert f"the state of self.thing['inner'][0]: {why}" in outcome.failure.text


class Counted(int):
    """A number with an attribute, as the status of a leaf is."""

    rule: str


class Pair(tuple[int, int]):
    """A tuple with an attribute."""

    rule: str


@pytest.mark.parametrize("kind", [Counted, Pair])
def test_a_number_or_a_tuple_may_have_attributes(kind: Any) -> None:
    """An object of any length has its `__dict__` at its end: it was taken for one of C."""
    thing = kind((1, 2)) if kind is Pair else kind(1)
    thing.rule = "a"
    assert explore(Refused(thing), Plan(strategy="states")).failure is None


def test_a_python_that_hides_generators_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softsgx.explore.states.digest.readable", lambda: False)
    with pytest.raises(Unmodelled, match="does not show what suspended generators hold"):
        explore(Refused(None), Plan(strategy="states"))


def test_an_object_in_a_task_is_named_by_task_and_function() -> None:
    class Local(Refused):
        def run(self) -> Steps[None]:
            yield ("step", "x", True)
            text = io.StringIO()
            yield ("step", "x", True)
            text.write("")

    outcome = explore(Local(0), Plan(strategy="states"))
    assert outcome.failure is not None
    assert "task A, text in " in outcome.failure.text


def test_an_object_may_say_itself_what_its_state_is() -> None:
    """The protocol for what Python cannot look into: here a stream, by its contents."""

    class Stream(io.StringIO):
        def state_key(self) -> tuple[object, tuple[object, ...], tuple[object, ...]]:
            return self.getvalue(), (), ()

    scenario = Hidden(lambda: (Stream(), lambda x: x.write("a") and x.tell()))
    assert outcomes(scenario, States(scenario)) == outcomes(scenario, Bounded(None))


# What never ends


def test_the_result_of_an_ended_task_is_state() -> None:
    class Result(Hidden):
        def start(self, execution: Execution) -> None:
            self.notes = []
            child = execution.spawn(self.child(execution), "child")
            execution.spawn(self.ask(child), "asks")

        def child(self, execution: Execution) -> Steps[int]:
            yield ("draw", "x", True)
            return execution.draw(2, "result")

        def ask(self, child: Task) -> Steps[None]:
            yield from child.join()
            yield ("look", "x", True)
            self.notes.append(child.result)

    scenario = Result(lambda: (0, abs))
    assert outcomes(scenario, States(scenario)) == {((0,), ""), ((1,), "")}


def test_a_scenario_that_remembers_its_executions_is_nondeterministic() -> None:
    """The way to a state does not lead there again: it must not be taken for what it was."""

    class Remembers(Refused):
        times = 0

        def start(self, execution: Execution) -> None:
            type(self).times += 1
            super().start(execution)

    outcome = explore(Remembers(0), Plan(strategy="states"))
    assert outcome.failure is not None
    assert outcome.failure.kind is Kind.NONDETERMINISM


class Turns(Scenario):
    """Two tasks that hand a turn to each other for ever; or A waits for what never comes."""

    max_steps = 50

    def __init__(self, retry: bool) -> None:
        self.retry = retry
        self.turn = 0
        self.name = "Turns"

    def start(self, execution: Execution) -> None:
        self.turn = 0
        execution.spawn(self.run(), "A")
        execution.spawn(self.run(), "B")

    def run(self) -> Steps[None]:
        while True:
            yield (RETRY if self.retry else "turn", "x", True)
            self.turn ^= 1


@pytest.mark.parametrize("retry", [False, True])
def test_a_schedule_without_end_is_a_step_bound(retry: bool) -> None:
    """A plain search says so, too; `states` sees each state again and must not say "complete"."""
    outcome = explore(Turns(retry), Plan(strategy="states"))
    assert outcome.failure is not None
    assert outcome.failure.kind is Kind.STEP_BOUND
    assert not outcome.complete


def test_whether_a_task_spins_is_state() -> None:
    """A task at a retry may have seen all there is, or not: the schedules from there differ."""

    class Spin(Scenario):
        def start(self, execution: Execution) -> None:
            self.ready = False
            for name in "AB":
                execution.spawn(self.wait(), name)
            execution.spawn(self.set(), "C")

        def wait(self) -> Steps[None]:
            while not self.ready:
                yield (RETRY, "ready", False)

        def set(self) -> Steps[None]:
            yield ("one", "x", True)
            yield ("two", "x", True)
            self.ready = True

    found = explore(Spin(), Plan(strategy="states"))
    assert found.complete
    assert found.schedules == explore(Spin(), Plan(strategy="dfs")).executions


def test_interrupts_that_come_in_another_order_are_one_state() -> None:
    """Handlers are numbered as they are sent; that alone must not keep states apart."""

    class Cpu:
        def __init__(self, cpu: int) -> None:
            self.cpu = cpu
            self.taken = 0

        def interruptible(self) -> bool:
            return True

        def take(self, _: object = None) -> None:
            self.taken += 1

    class Senders(Scenario):
        def start(self, execution: Execution) -> None:
            self.targets = [Cpu(2), Cpu(3)]
            for place, target in enumerate(self.targets):
                execution.spawn(ipi([target], Cpu.take), f"sender {place}", place)

    outcome = explore(Senders(), Plan(strategy="states"))
    assert outcome.complete
    assert outcome.states == 4 * 4 - 1
    assert outcome.schedules == explore(Senders(), Plan(strategy="dfs")).executions == 20


# Machines


def test_a_machine_has_the_schedules_of_a_plain_search() -> None:
    fixed = scenario_named("FirstTouch,6.12,eaug_double_fault=0")
    plainly = explore(fixed, Plan(strategy="dfs"))
    found = explore(fixed, Plan(strategy="states"))
    assert plainly.complete
    assert found.complete
    assert found.schedules == plainly.executions
    assert found.executions < plainly.executions / 5
    assert (found.states, found.depth) == (76, 12)


DECIDED = {
    "SecsEviction,6.12": 952_890,
    "PcmdSharing,6.12": 12_608,
    "RestrictRefused,6.12": 3_159,
    "ForkShare,6.12": 239_072_430_693,
    "TwoProtects,6.12,order=enarx": 64_033_040,
}


@pytest.mark.parametrize("name", DECIDED)
def test_shipped_scenarios_are_decided(name: str) -> None:
    """With far too many schedules for any other strategy. `softsgx explore --shipped` has all."""
    outcome = explore(scenario_named(name), Plan(strategy="states", executions=500))
    assert outcome.complete
    assert outcome.schedules == DECIDED[name]


def test_a_race_is_found_and_minimised() -> None:
    outcome = explore(scenario_named("FirstTouch,6.12"), Plan(strategy="states"))
    assert outcome.failure is not None
    assert outcome.failure.rule == "spurious fault"
    assert outcome.failure.preemptions == 1


def test_enclave_code_of_a_cut_execution_is_unwound_at_once() -> None:
    """The code of an enclave is no part of its task: it used to keep its locks until the garbage
    collector got to it, in the middle of a later execution."""
    trouble: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, trouble.append
    try:
        scenario = scenario_named("TwoProtects,6.12,order=gramine")
        explore(scenario, Plan(strategy="states", executions=12))
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert not trouble


_DIGESTS = """
from softsgx.explore.execute import execute_next
from softsgx.explore.strategies import States
from softsgx.system.scenarios.names import scenario_named
from tests.explore.test_states import Hidden

def words():
    return {"one", "two", "three", 4}, lambda x: x.add(str(len(x))) or len(x)

for scenario in (scenario_named("RemoveTouch,6.12,remove_vs_fault=0,lookup_before_removal=0"),
                 Hidden(words)):
    strategy = States(scenario)
    while strategy.begin():
        execute_next(scenario, strategy)
    print(*sorted(state.digest.hex() for state in strategy.graph.states))
"""


def test_digests_are_the_same_in_every_process() -> None:
    """Whatever the hashes of strings, the order of sets and the addresses of objects are."""
    texts = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert len(texts[0].split()) > 100


def test_a_limit_of_executions_is_kept_and_said() -> None:
    outcome: Outcome = explore(
        scenario_named("TwoProtects,6.12,order=gramine"), Plan(strategy="states", executions=5)
    )
    assert outcome.executions == 5
    assert not outcome.complete
    assert f"{outcome.states} states so far" in outcome.covered


def test_a_task_that_reads_its_own_record_is_no_hidden_state() -> None:
    """The result of an ended task belongs to the state of those that can still ask for it."""

    class Joins(Scenario):
        def start(self, execution: Execution) -> None:
            self.notes: list[int] = []
            self.order: list[str] = []
            child = execution.spawn(self.child("A"), "A")
            execution.spawn(self.child("B"), "B")
            execution.spawn(self.ask(child), "C")

        def child(self, name: str) -> Steps[int]:
            yield ("turn", "order", True)
            self.order.append(name)
            first = self.order[0] == name
            self.order = self.order[1:]
            return int(first)

        def ask(self, child: Task) -> Steps[None]:
            self.notes.append((yield from child.join()))

    scenario = Joins()
    assert outcomes(scenario, States(scenario)) == outcomes(scenario, Bounded(None))


def test_a_violation_in_a_check_is_found_in_every_final_state() -> None:
    class Lost(Scenario):
        def start(self, execution: Execution) -> None:
            self.value = 0
            self.notes: list[int] = []
            for name in "AB":
                execution.spawn(self.add(), name)

        def add(self) -> Steps[None]:
            yield ("read", "value", False)
            value = self.value
            yield ("write", "value", True)
            self.value = value + 1

        def check(self, execution: Execution) -> None:
            if self.value != 2:
                raise Violation("lost update", f"value {self.value}")

    scenario = Lost()
    assert outcomes(scenario, States(scenario)) == outcomes(scenario, Bounded(None))
    outcome = explore(Lost(), Plan(strategy="states"))
    assert outcome.failure is not None
    assert (outcome.failure.preemptions, outcome.failure.steps) == (1, 4)
