"""Parts of a search by partial-order reduction, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from softsgx.explore.footprint import Footprint

Draws = tuple[tuple[int, int], ...]
"""The draws in one step: for each, its value and the number of possible values."""


class Subtree(NamedTuple):
    """A part of the search: everything below one step.

    implicit  whether `ImplicitConflicts` are on
    first   draws before any step
    path    the steps before it: task, draws
    sleep   tasks that need not be tried instead of the step, with their footprints
    task    the task that takes the step; -1: the whole tree
    draws   the draws in the step (for the whole tree, before any step) to begin with
    union   footprint of the step, over the draws that are done
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
    """A race with a step above the subtree: one of `starts` must be tried before that step.

    If one of them is tried there anyway, that suffices. If not, try `task` if it is enabled, else
    the first one that is.
    """

    depth: int
    starts: tuple[int, ...]
    task: int


class Node:
    """The state before one step, and the step that was taken from it last.

    enabled    tasks that could take a step here, by index
    todo       tasks to be tried here, including the one in progress
    sleep      tasks that need not be tried, with the footprints of their steps here
    draws      [value, n] of each draw in the step in progress
    union      footprint of the step in progress, over all its draws so far
    before     mask of the previous step of the same task, -1 if there is none
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
    """What remains to be done at a node of the last execution; see Node."""

    enabled: tuple[int, ...]
    todo: tuple[int, ...]
    sleep: tuple[tuple[int, Footprint], ...]
    chosen: int
    draws: Draws
    union: Footprint


def next_draws(draws: list[list[int]]) -> bool:
    """Advance to the next values in place; after the last ones False, and the list is empty."""
    while draws:
        draw = draws[-1]
        draw[0] += 1
        if draw[0] < draw[1]:
            return True
        draws.pop()
    return False


def frozen(draws: list[list[int]]) -> Draws:
    """The draws as a Subtree holds them."""
    return tuple([(value, known) for value, known in draws])


def fraction_searched(nodes: Sequence[Node]) -> float:
    """Share of the tree that was searched, if no more children are added."""
    found, share = 0.0, 1.0
    for node in nodes:
        found += share * sum(index in node.sleep for index in node.todo) / len(node.todo)
        share /= len(node.todo)
    return found
