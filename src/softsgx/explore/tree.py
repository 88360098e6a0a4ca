"""Partial-order reduction by many workers: the executions are exactly those of one process.

One process tries the children of a node in the order in which races request them, each with its
elder siblings asleep. A subtree affects the nodes above it only by a list of requests. So subtrees
can be searched separately; their requests are applied here in the order in which one process would
have made them, depth first. An applied request is final, because new children are only ever added
after the others. Therefore a child can be searched as soon as the steps of its elder siblings are
known, before their subtrees are done: its sleep set does not depend on the subtrees.

After a short time a worker returns a subtree with its open nodes; they become nodes here, and their
children can be searched by other workers.
"""

from __future__ import annotations

from softsgx.explore.footprint import Footprint
from softsgx.explore.outcome import Outcome
from softsgx.explore.plan import EXHAUSTIVE
from softsgx.explore.strategies.subtree import Draws, OpenNode, Request, Subtree, frozen, next_draws
from softsgx.explore.unit import Unit, UnitResult

Ticket = tuple[int, int]
"""The number of the run (`ImplicitConflicts` restart the search) and of the unit in it."""


class _Item:
    """A child to be searched, from the given draws on."""

    __slots__ = ("draws", "index", "most", "node", "result", "sent", "union")

    def __init__(self, node: _Node, index: int, draws: Draws = (), union: Footprint = ()) -> None:
        self.node = node
        self.index = index
        self.draws = draws
        self.union = union
        self.sent = False
        self.result: UnitResult | None = None
        self.most = 0


class _Node:
    """An open node on the path from the root to the place where one process would be.

    via     the step that leads here: task, draws; None at the root
    sleep   tasks asleep when the node is entered
    unions  footprints of the steps of finished children, each over all draws in the step
    queue   children that have not been added up, in order
    """

    __slots__ = ("enabled", "queue", "sleep", "todo", "unions", "via")

    def __init__(self, opened: OpenNode | None, via: tuple[int, Draws] | None) -> None:
        self.via = via
        self.queue: list[_Item] = []
        self.unions: dict[int, Footprint] = {}
        self.enabled: tuple[int, ...] = ()
        self.todo: list[int] = []
        self.sleep: dict[int, Footprint] = {}
        if opened is None:
            return
        self.enabled = opened.enabled
        self.todo = list(opened.todo)
        for index, footprint in opened.sleep:
            (self.unions if index in self.todo else self.sleep)[index] = footprint
        self._go_on(opened.chosen, opened.draws, opened.union)
        self.queue += [
            _Item(self, index)
            for index in self.todo
            if index != opened.chosen and index not in self.unions
        ]

    def _go_on(self, index: int, draws: Draws, union: Footprint) -> None:
        """Queue a child with its next draws; after the last draws record its footprint."""
        values = [list(draw) for draw in draws]
        if next_draws(values):
            self.queue.insert(0, _Item(self, index, frozen(values), union))
        else:
            self.unions[index] = union

    def added_up(self, item: _Item, draws: Draws | None, union: Footprint) -> None:
        """Note that a child is done; if `draws` are given, only with these draws."""
        if draws is None:
            self.unions[item.index] = union
        else:
            self._go_on(item.index, draws, union)

    def ask(self, request: Request) -> None:
        """Apply the request of a race below: one of several children must be tried."""
        starts = request.starts
        if any(start in self.todo or start in self.sleep for start in starts):
            return
        able = [start for start in starts if start in self.enabled]
        if able:
            index = request.task if request.task in able else able[0]
            self.todo.append(index)
            self.queue.append(_Item(self, index))

    def asleep(self, index: int) -> dict[int, Footprint] | None:
        """The sleep set of a child; None if it is not known yet."""
        found = dict(self.sleep)
        for elder in self.todo:
            if elder == index:
                return found
            if elder not in self.unions:
                return None
            found[elder] = self.unions[elder]
        raise AssertionError(f"{index} is no child")


class Tree:
    """Hands out subtrees, and adds up their results depth first."""

    def __init__(self) -> None:
        self.over = False
        self.cut = False
        self._implicit = False
        self._run = 0
        self._tickets = 0
        self._sent: dict[Ticket, _Item] = {}
        # The subtree in which the limit is reached, if it is.
        self._only: _Item | None = None
        self._begin()

    def _begin(self) -> None:
        self._run += 1
        self._first: Draws = ()
        root = _Node(None, None)
        root.queue.append(_Item(root, -1))
        # The root is for draws before any step; the node of step d is at d + 1.
        self._stack = [root]

    def take(self) -> tuple[Ticket, Unit] | None:
        """A subtree that no worker has; None if there is no such subtree at present."""
        if self.over:
            return None
        if self._only is not None and self._only.sent:
            return None
        for depth in range(len(self._stack) - 1, -1, -1):
            node = self._stack[depth]
            for item in node.queue:
                if item.sent:
                    continue
                subtree = self._subtree(item, depth - 1)
                if subtree is None:
                    break
                item.sent = True
                self._tickets += 1
                ticket = self._run, self._tickets
                self._sent[ticket] = item
                return ticket, Unit(EXHAUSTIVE, subtree=subtree, most=item.most)
        return None

    def _subtree(self, item: _Item, depth: int) -> Subtree | None:
        if item.index < 0:
            return Subtree(self._implicit, draws=item.draws)
        sleep = item.node.asleep(item.index)
        if sleep is None:
            return None
        path = [node.via for node in self._stack[2 : depth + 2] if node.via is not None]
        return Subtree(
            self._implicit,
            self._first,
            tuple(path),
            tuple(sleep.items()),
            item.index,
            item.draws,
            item.union,
        )

    def give(self, ticket: Ticket, result: UnitResult) -> None:
        """Accept the result of a subtree."""
        item = self._sent.pop(ticket, None)
        if item is not None:
            item.result = result

    def add_up(self, outcome: Outcome, limit: int) -> None:
        """Add results to the outcome, up to the first that is missing."""
        while self._stack and not self.over:
            node = self._stack[-1]
            if not node.queue:
                self._stack.pop()
                continue
            item = node.queue[0]
            result = item.result
            if result is None:
                break
            left = limit - outcome.executions
            if result.executions > left > 0:
                # Search it again, only up to the limit; later subtrees do not count.
                item.result, item.sent, item.most = None, False, left
                self._sent.clear()
                self._only = item
                break
            del node.queue[0]
            if item is self._only:
                self._count_again()
            result.add_to(outcome)
            if result.wants_implicit and result.failure is None:
                self._implicit = True
                self._sent.clear()
                self._begin()
            else:
                for request in result.requests:
                    self._stack[request.depth + 1].ask(request)
                self._open(item, result)
            outcome.stopped = outcome.executions >= limit and self._left
            self.over = result.failure is not None or outcome.stopped
        outcome.fraction = self._fraction()
        self.over = self.over or not self._stack

    def _count_again(self) -> None:
        """The subtree ended before the limit when searched again: later ones count after all."""
        self._only = None
        for node in self._stack:
            for item in node.queue:
                item.sent = item.result is not None

    def stop(self, outcome: Outcome, limit: int) -> None:
        """Add up the remaining results that have arrived, up to the first failure or the limit."""
        for node in reversed(self._stack):
            for item in node.queue:
                if item.result is None or outcome.failure is not None:
                    continue
                if outcome.executions + item.result.executions <= limit:
                    item.result.add_to(outcome)
        self.over = True

    @property
    def _left(self) -> bool:
        return any(node.queue for node in self._stack)

    def _open(self, item: _Item, result: UnitResult) -> None:
        """Turn the open nodes that a worker returned into nodes of this tree."""
        node = item.node
        opened = list(result.open)
        if item.index < 0:
            if opened or result.first:
                self._first = result.first
            values = [list(draw) for draw in result.first]
            if opened and next_draws(values):
                node.queue.append(_Item(node, -1, frozen(values)))
            via = None
        else:
            own = opened.pop(0) if opened else None
            node.added_up(item, own.draws if own else None, own.union if own else result.union)
            via = (item.index, own.draws) if own else None
        for each in opened:
            self._stack.append(_Node(each, via))
            via = (each.chosen, each.draws)

    def _fraction(self) -> float:
        """Share of the tree that is known so far; races may still add to the tree."""
        found, share = 0.0, 1.0
        for node in self._stack:
            children = max(1, len(node.todo))
            found += share * max(0, children - len(node.queue) - 1) / children
            share /= children
        return found if self._stack else 1.0
