"""The ways in a graph of states lead to what is left to do, and miss none of it."""

from __future__ import annotations

import pytest

from softsgx.explore.states.graph import END, Graph, Label
from softsgx.sim import Rng


def follow(graph: Graph, at: int, way: list[Label]) -> int:
    for label in way:
        at = graph.states[at].known[label]
    return at


def reached(graph: Graph, at: int) -> set[int]:
    """All states that known steps lead to."""
    found, pending = {at}, [at]
    while pending:
        for to in graph.states[pending.pop()].known.values():
            if to != END and to not in found:
                found.add(to)
                pending.append(to)
    return found


@pytest.mark.parametrize("seed", range(30))
def test_every_step_of_a_graph_is_taken(seed: int) -> None:
    """A graph of up to 40 states, with loops, ends and draws, is explored as `States` does it."""
    rng = Rng(seed)
    to = [[rng.below(40) - 1 for _ in range(1 + rng.below(3))] for _ in range(40)]
    graph = Graph()
    names: dict[int, int] = {}
    taken: set[tuple[int, Label]] = set()

    def step(at: int, name: int) -> tuple[int, int]:
        label = graph.states[at].todo.pop()
        if label == (0,) and name >= 0 and name % 5 == 0:
            graph.more(at, [(0, 1)])  # the step draws
            label = (0, 0)
        assert (at, label) not in taken
        taken.add((at, label))
        following = to[name][label[-1] % len(to[name])] if name >= 0 else 0
        if following == END:
            graph.arrived(at, label, END)
            return END, END
        number = names.get(following, END)
        if number == END:
            todo: list[Label] = [(place,) for place in range(len(to[following]))]
            number = names[following] = graph.add(b"%d" % following, todo, at, label)
        graph.arrived(at, label, number)
        return number, following

    while (way := graph.first()) is not None:
        at = follow(graph, 0, way)
        assert graph.states[at].todo
        assert len(way) == graph.states[at].depth
        while True:
            name = next((name for name, number in names.items() if number == at), END)
            at, _ = step(at, name)
            if at == END:
                break
            near = graph.near(at)
            left = [each for each in reached(graph, at) if graph.states[each].todo]
            assert (near is None) == (not left)
            if near is None:
                break
            at = follow(graph, at, near)
            assert graph.states[at].todo
    assert not [state for state in graph.states if state.todo]
    assert len(taken) == graph.steps


def test_what_is_far_away_is_left_to_another_execution() -> None:
    graph = Graph()
    graph.states[0].todo.clear()
    at = 0
    for number in range(500):
        last = number == 499
        to = graph.add(b"%d" % number, [(0,)] if last else [], at, (0,))
        graph.arrived(at, (0,), to)
        at = to
    assert graph.near(1) is None
    assert graph.near(400) == [(0,)] * 100
    assert graph.first() == [(0,)] * 500
