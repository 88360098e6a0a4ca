"""Coverage by orders of conflicting steps, and the strategy that it guides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from softsgx.explore import Kind, Plan, Scenario, explore
from softsgx.explore.execute import execute_next
from softsgx.explore.footprint import conflict, key_of
from softsgx.explore.orders import Orders, OrdersWatch, SeenOrders
from softsgx.explore.plan import SAMPLED
from softsgx.explore.strategies import Guided, Pct, Walk
from softsgx.sim import Execution, Point, Rng, Steps, Task, WaitFlag
from tests.explore.bodies import Bodies
from tests.explore.programs import Run, any_program

X: Point = ("write", "x", True)
LOOK: Point = ("read", "x", False)


def points(*each: Point) -> Callable[[Any], Steps[None]]:
    def body(_: Any) -> Steps[None]:
        for point in each:  # noqa: UP028 - a task is sent in, which a tuple's iterator cannot take
            yield point

    return body


def numbered(count: int) -> Bodies:
    """Two tasks, each with so many steps that differ and are all in conflict with the others."""
    kinds = [(f"step {number}", "x", True) for number in range(count)]
    return Bodies(lambda: None, points(*kinds), points(*kinds))


def counts(scenario: Scenario, **plan: Any) -> tuple[int, int]:
    outcome = explore(scenario, Plan(**{"strategy": "random", "executions": 200, **plan}))
    assert outcome.failure is None
    assert outcome.orders is not None
    return outcome.orders.both, outcome.orders.pairs


@pytest.mark.parametrize(
    ("bodies", "expected"),
    [
        ((points(X), points(X)), (1, 1)),
        ((points(X), points(LOOK)), (1, 1)),
        ((points(LOOK), points(LOOK)), (0, 0)),
        ((points(X), points(("write", "y", True))), (0, 0)),
        ((points(X, LOOK, X),), (0, 0)),
        ((points(X, X), points(X)), (1, 1)),
        ((points(X, LOOK), points(X)), (2, 2)),
        ((points(X), points(X), points(X)), (3, 3)),
        ((points(("write", ("x", 1), True)), points(("write", ("x", 2), True))), (0, 0)),
    ],
)
def test_pairs_are_conflicting_steps_of_different_tasks(
    bodies: tuple[Callable[[Any], Steps[None]], ...], expected: tuple[int, int]
) -> None:
    assert counts(Bodies(lambda: None, *bodies)) == expected


def test_one_execution_shows_one_order_of_steps_that_are_taken_once() -> None:
    assert counts(numbered(3), executions=1) == (0, 9)


class Listening(Walk):
    """Keeps the steps of every execution."""

    def begin(self) -> bool:
        self.now: list[tuple[Task, Point]] = []
        return super().begin()

    def choose(self, enabled: Any, current: Task | None) -> Task:
        task = super().choose(enabled, current)
        self.now.append((task, task.point))
        return task


def test_orders_are_those_of_a_naive_count() -> None:
    compared = 0
    for seed in range(200):
        run = Run(any_program(Rng(seed)))
        watch = OrdersWatch(run)
        walk = Listening(Rng(seed), 12, watch=watch)
        known: set[tuple[Any, Any]] = set()
        while walk.begin():
            done = execute_next(run, walk)
            fresh = set()
            for place, (task, point) in enumerate(walk.now):
                for other, earlier in walk.now[:place]:
                    first, second = run.objects(other, earlier), run.objects(task, point)
                    if other.name != task.name and conflict(first, second):
                        fresh.add((named(other, earlier), named(task, point)))
            assert watch.new == len(fresh - known)
            known |= fresh
            if done is not None and done.failure is not None:
                break
        both = sum((second, first) in known for first, second in known) // 2
        assert watch.orders.both == both
        assert watch.orders.pairs == len(known) - both
        compared += bool(both)
    assert compared > 20


def named(task: Task, point: Point) -> tuple[Any, ...]:
    return (task.name, point[0], key_of(point[1]), point[2])


def test_an_execution_that_has_not_ended_shows_nothing() -> None:
    scenario = numbered(2)
    walk = Walk(Rng(1), 9, watch=OrdersWatch(scenario))
    assert walk.watch is not None
    assert walk.begin()
    execution = Execution(walk)
    scenario.start(execution)
    execution.run()
    assert walk.begin()
    walk.end(())
    assert (walk.watch.orders.pairs, walk.watch.new) == (0, 0)


def test_orders_add_up_whatever_their_numbers_are() -> None:
    a, b, c = (("T" + name, "write", "x", True) for name in "abc")
    orders = Orders()
    orders.add(SeenOrders((a, b, c), (0, 0b001, 0b001)))  # a, b; a, c
    assert (orders.both, orders.pairs) == (0, 2)
    orders.add(SeenOrders((c, a, b), (0b010, 0, 0b001)))  # a, c; c, b
    assert (orders.both, orders.pairs) == (0, 3)
    orders.add(SeenOrders((b, a), (0, 0b01)))  # b, a
    assert (orders.both, orders.pairs) == (1, 3)
    again = Orders()
    again.add(orders.seen())
    assert (again.seen(), again.both) == (orders.seen(), 1)


class Thing:
    """An object that is equal only to itself; the steps that write it are known by its name."""

    def __init__(self, name: str | None) -> None:
        if name is not None:
            self.name = name


@pytest.mark.parametrize("name", ["thing", None])
def test_objects_that_are_made_anew_are_the_same_steps(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """Without a name they are known by their class: no reason to refuse a search."""
    monkeypatch.setattr("softsgx.explore.orders._CACHE_MAX", 7)

    def body(thing: Thing) -> Steps[None]:
        yield ("write", thing, True)

    scenario = Bodies(lambda: Thing(name), body, body)
    assert counts(scenario) == (1, 1)
    watch = OrdersWatch(scenario)
    walk = Walk(Rng(1), 50, watch=watch)
    while walk.begin():
        execute_next(scenario, walk)
        assert len(watch._cache) <= 7


@pytest.mark.parametrize("strategy", SAMPLED)
def test_a_search_without_executions_says_nothing_about_pairs(strategy: str) -> None:
    outcome = explore(numbered(2), Plan(strategy=strategy), deadline=lambda: True)
    assert outcome.executions == 0
    assert "pair" not in outcome.covered


# The strategy


def test_an_execution_with_an_aim_shows_the_order_that_was_missing() -> None:
    scenario = numbered(5)
    watch = OrdersWatch(scenario)
    strategy = Guided(Rng(3), 200, 1, 10, watch=watch)
    aimed = 0
    while strategy.begin():
        until, prefix = strategy._until, strategy._prefix
        assert (until >= 0) == bool(prefix)
        assert until < 0 or not aimed or watch.orders.both < 25
        known = watch.orders.both
        done = execute_next(scenario, strategy)
        assert done is not None
        if prefix:
            aimed += 1
            assert watch.orders.both > known
            assert list(strategy._choices[: len(prefix) - 1]) == list(prefix[:-1])
    assert 0 < aimed <= 25
    assert watch.orders.both == 25


class Checked(Guided):
    """Checks at every choice what it aims at, and counts what it gave up."""

    aims = 0
    given_up = 0

    def begin(self) -> bool:
        begun = super().begin()
        self.aim = self._until
        if begun and self.aim >= 0:
            self.aims += 1
            taken = [k for k in self._kept if k.choices[: len(self._prefix)] == self._prefix]
            assert any(self.aim in kept.steps for kept in taken)
        assert sum(mask.bit_count() for mask in self._tried.values()) == self.aims
        return begun

    def choose(self, enabled: Any, current: Task | None) -> Task:
        task = super().choose(enabled, current)
        assert task.index != self._delayed
        if self.watch.steps[-1] == self.aim:
            assert self._delayed == -1
        elif self._until != self.aim and self.aim not in self.watch.steps:
            self.given_up += 1
        return task

    def end(self, left: Any) -> None:
        before = self._kept[-1:]
        super().end(left)
        assert len(self._kept) <= 3
        assert (self._kept[-1:] != before) == bool(self.watch.new)


@pytest.mark.parametrize("make", [lambda: numbered(12), lambda: Drawn(), lambda: ordered()])
def test_each_missing_order_is_tried_once_and_a_delay_ends(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Scenario]
) -> None:
    monkeypatch.setattr("softsgx.explore.strategies.guided._KEPT_MAX", 3)
    scenario = make()
    strategy = Checked(Rng(7), 300, 3, 10, watch=OrdersWatch(scenario))
    while strategy.begin():
        done = execute_next(scenario, strategy)
        assert done is not None
        assert done.failure is None
    assert strategy.aims > 5
    assert not isinstance(scenario, Bodies) or (strategy.given_up > 0) == (scenario.name == "order")


def ordered() -> Bodies:
    """One task waits for a step in the middle of the other."""

    def first(event: WaitFlag) -> Steps[None]:
        for number in range(3):
            yield (f"step {number}", "x", True)
        event.set()
        for number in range(3, 5):
            yield (f"step {number}", "x", True)

    def second(event: WaitFlag) -> Steps[None]:
        yield from event.wait()
        for number in range(4):
            yield (f"step {number}", "x", True)

    return Bodies(lambda: WaitFlag("e"), first, second, name="order")


class Drawn(Scenario):
    """What a task does depends on what was drawn."""

    def start(self, execution: Execution) -> None:
        self.execution = execution
        count = execution.draw(3, "tasks")
        for number in range(count + 2):
            execution.spawn(self.body(count), f"task {number}")

    def body(self, count: int) -> Steps[None]:
        yield ("before", count, True)
        value = self.execution.draw(5, "value")
        yield (f"after {value}", count, True)


def test_a_task_that_nobody_can_overtake_is_not_delayed_for_ever() -> None:
    """Each order needs the other task to act inside the lock: there is no such schedule."""

    def first(state: list[int]) -> Steps[None]:
        yield ("first", "x", True)
        state.append(1)
        yield X

    def second(state: list[int]) -> Steps[None]:
        while not state:
            yield ("retry", "x", False)
        yield ("second", "x", True)

    assert counts(Bodies(list, first, second), strategy="guided")[0] < 6


def test_draws_are_repeated_with_the_choices() -> None:
    """A choice that is repeated without the draws before it does not fit."""
    assert counts(Drawn(), strategy="guided")[0] > 100


def test_a_step_that_depends_on_more_than_choices_is_nondeterminism() -> None:
    class Moody(Scenario):
        times = 0

        def start(self, execution: Execution) -> None:
            self.times += 1
            kinds = [(f"step {number}", "x", True) for number in range(12)]
            for number in range(3 if self.times < 12 else 2):
                execution.spawn(points(*kinds)(None), f"task {number}")

    failure = explore(Moody(), Plan(strategy="guided", executions=60)).failure
    assert failure is not None
    assert failure.kind is Kind.NONDETERMINISM


def test_the_seed_decides_everything() -> None:
    def choices(seed: int) -> list[list[int]]:
        scenario = numbered(4)
        strategy = Guided(Rng(seed), 60, 3, 8, watch=OrdersWatch(scenario))
        found = []
        while strategy.begin():
            done = execute_next(scenario, strategy)
            assert done is not None
            found.append(list(done.execution.choices))
        return found

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)


def test_pct_without_a_watch_makes_the_same_choices() -> None:
    def choices(watch: OrdersWatch | None) -> list[list[int]]:
        scenario = numbered(4)
        strategy = Pct(Rng(5), 20, 3, 8, watch=watch)
        found = []
        while strategy.begin():
            done = execute_next(scenario, strategy)
            assert done is not None
            found.append(list(done.execution.choices))
        return found

    assert choices(None) == choices(OrdersWatch(numbered(4)))
