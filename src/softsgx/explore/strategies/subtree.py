"""Parts of a search by partial-order reduction, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from softsgx.explore.footprint import Footprint

Draws = tuple[tuple[int, int], ...]
"""The draws inside one step: value, and below what it was drawn."""


class Subtree(NamedTuple):
    """A part of the search: what lies below one step.

    implicit  whether `ImplicitConflicts` are on
    first   draws before any step
    path    the steps before: task, draws
    sleep   tasks that need not be tried instead of the step, with their footprints
    task    the task that takes the step; -1: no step is given, it is the whole tree
    draws   of the step (of `first`, for the whole tree): where to begin; all others come after
    union   footprint of the step over the draws that were done before
    """

    implicit: bool = False
    first: Draws = ()
    path: tuple[tuple[int, Draws], ...] = ()
    sleep: tuple[tuple[int, Footprint], ...] = ()
    task: int = -1
    draws: Draws = ()
    union: Footprint = ()


WHOLE: Final = Subtree()


class Request(NamedTuple):
    """A race with a step that is not in the subtree: one of `starts` is to be tried before it.

    If one of them is tried there anyway, that will do; if not, `task` if it can be, else the
    first that can.
    """

    depth: int
    starts: tuple[int, ...]
    task: int


class Node:
    """The state before one step, and the step that was taken from it last.

    enabled    tasks that could take a step here, by index
    todo       tasks to be tried here, the one in progress included
    sleep      tasks that need not be tried, with the footprint of their step here
    draws      [value, n] of each draw inside the step in progress
    union      footprint of the step in progress, over all its draws so far
    before     what happens before the step in its own task, as a mask
    """

    __slots__ = (
        "chosen", "enabled", "todo", "sleep", "draws", "footprint", "union", "mask", "before",
    )  # fmt: skip

    def __init__(self, enabled: list[int], chosen: int, sleep: dict[int, Footprint]) -> None:
        self.enabled = enabled
        self.chosen = chosen
        self.todo = {chosen: None}
        self.sleep = sleep
        self.draws: list[list[int]] = []
        self.footprint: Footprint = ()
        self.union: Footprint = ()
        self.mask = 0
        self.before = 0


class OpenNode(NamedTuple):
    """A node of the execution done last, as far as it is left to do; see Node."""

    enabled: tuple[int, ...]
    todo: tuple[int, ...]
    sleep: tuple[tuple[int, Footprint], ...]
    chosen: int
    draws: Draws
    union: Footprint


def next_draws(draws: list[list[int]]) -> bool:
    """Go on to the next values in place; False if there are no more, and then it is empty."""
    while draws:
        draw = draws[-1]
        draw[0] += 1
        if draw[0] < draw[1]:
            return True
        draws.pop()
    return False


def frozen(draws: list[list[int]]) -> Draws:
    """As they are in a subtree."""
    return tuple([(value, known) for value, known in draws])


def fraction_searched(nodes: Sequence[Node]) -> float:
    """Part of the tree that was searched, if it has no other children than these."""
    found, share = 0.0, 1.0
    for node in nodes:
        found += share * sum(index in node.sleep for index in node.todo) / len(node.todo)
        share /= len(node.todo)
    return found
