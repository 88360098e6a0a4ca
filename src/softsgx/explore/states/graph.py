"""What a search knows of the states of a scenario: which steps lead from one to the next."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Final, TypeAlias

Label: TypeAlias = tuple[int, ...]
"""A step: the place of the task in the canonical order, then what is drawn in the step."""

END: Final = -1
"""The number that stands for the end of an execution."""


_NEAR: Final = 200
"""How many states `Graph.near` looks at: about what it takes to begin another execution."""


class State:
    """A state: `todo` are the steps that were never taken from it, `known` where the others lead.

    A label in `todo` has only its first draws; those that follow are 0 when it is first taken.
    `came` and `by` are the state and the step that first led here, after `depth` such steps.
    `closed`: nothing that can be reached from here has anything to do.
    """

    __slots__ = ("by", "came", "closed", "depth", "digest", "known", "todo")

    def __init__(
        self, digest: bytes, todo: list[Label], came: int = END, by: Label = (), depth: int = 0
    ) -> None:
        self.digest = digest
        self.todo = todo
        self.came = came
        self.by = by
        self.depth = depth
        self.known: dict[Label, int] = {}
        self.closed = False


class Graph:
    """States by number; 0 is the one before anything is drawn or done."""

    def __init__(self) -> None:
        self.states: list[State] = [State(b"", [(0,)])]
        self.steps = 0
        self._numbers: dict[bytes, int] = {}
        # States that may have something to do, the nearest first.
        self._open: list[tuple[int, int]] = [(0, 0)]

    def number_of(self, digest: bytes) -> int:
        """The number of a state, -1 if it is new."""
        return self._numbers.get(digest, -1)

    def add(self, digest: bytes, todo: list[Label], came: int, by: Label) -> int:
        """A new state, to which a step has led."""
        number = self._numbers[digest] = len(self.states)
        depth = self.states[came].depth + 1
        self.states.append(State(digest, todo, came, by, depth))
        heappush(self._open, (depth, number))
        return number

    def arrived(self, state: int, label: Label, at: int) -> None:
        """A step was taken for the first time."""
        self.states[state].known[label] = at
        self.steps += 1

    def more(self, state: int, labels: list[Label]) -> None:
        """Further steps from a state, found by a draw in one that is being taken."""
        # It is still among the open ones: only `first`, between two executions, drops it.
        self.states[state].todo += labels

    def first(self) -> list[Label] | None:
        """The way from the start to a state that has something to do; None: there is none.

        The way by which it was first reached, and the state with the shortest of these.
        """
        while self._open:
            _, at = self._open[0]
            state = self.states[at]
            if state.todo:
                labels = []
                while at:
                    labels.append(state.by)
                    at = state.came
                    state = self.states[at]
                labels.reverse()
                return labels
            heappop(self._open)
        return None

    def near(self, state: int) -> list[Label] | None:
        """The shortest way of known steps to a state that has something to do; None: none is near.

        States from which there is none at all are closed for good: all that they lead to is known.
        """
        states = self.states
        if states[state].todo:
            return []
        if states[state].closed:
            return None
        came: dict[int, tuple[int, Label]] = {state: (END, ())}
        queue = deque([state])
        while queue:
            if len(came) > _NEAR:
                return None
            at = queue.popleft()
            for label, to in states[at].known.items():
                if to == END or to in came or states[to].closed:
                    continue
                came[to] = at, label
                if states[to].todo:
                    return _labels(came, to)
                queue.append(to)
        for seen in came:
            states[seen].closed = True
        return None

    def loop(self) -> tuple[list[Label], list[Label]] | None:
        """Steps that lead to a state and back to it for ever: the way there, and the way round.

        None if every execution ends. For a search that is over.
        """
        before: list[tuple[int, Label]] = [(0, ())]
        place = {0: 0}  # of the states on the way
        over: set[int] = set()
        pending = [iter(self.states[0].known.items())]
        while pending:
            label, to = next(pending[-1], ((), END))
            if not label:
                pending.pop()
                at, _ = before.pop()
                del place[at]
                over.add(at)
            elif to in place:
                labels = [label for _, label in before[1:]] + [label]
                return labels[: place[to]], labels[place[to] :]
            elif to != END and to not in over:
                place[to] = len(before)
                before.append((to, label))
                pending.append(iter(self.states[to].known.items()))
        return None

    def schedules(self) -> int:
        """How many executions plain depth first search has. For a search that is over, no loops."""
        counts: dict[int, int] = {END: 1}
        pending = [0]
        while pending:
            at = pending[-1]
            following = self.states[at].known.values()
            missing = [to for to in following if to not in counts]
            if missing:
                pending += missing
            else:
                pending.pop()
                counts[at] = sum([counts[to] for to in following])
        return counts[0]


def _labels(came: dict[int, tuple[int, Label]], to: int) -> list[Label]:
    labels: list[Label] = []
    while True:
        at, label = came[to]
        if at == END:
            labels.reverse()
            return labels
        labels.append(label)
        to = at
