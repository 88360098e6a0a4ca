"""Depth first with dynamic partial-order reduction: one schedule of each equivalence class.

Two schedules are equivalent if one becomes the other by swapping adjacent steps that do not
conflict. The algorithm is that of source sets with sleep sets (Abdulla, Aronis, Jonsson, Sagonas,
Optimal dynamic partial order reduction, 2014), with these additions:

* What a step touches is known only after it has run (`sim.touch`). The step of a sleeping task has
  run before, so its footprint is known as well.
* A step that only enables a blocked step (by releasing a lock) happens before that step but does
  not race with it: the race is with the step that took the lock.
* Draws are choices within a step. All values are tried; the footprint of a sleeping step is the
  union over all of them.
* Tasks that retry, daemons and interrupt handlers conflict with more than their objects say
  (`ImplicitConflicts`).

Happens-before is kept as bit masks over the steps of the execution: the `mask` of a step has the
bits of all steps that happen before it, and its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Final

from softsgx.explore.cut import Cut
from softsgx.explore.footprint import COMMUTE, TAKE, Footprint, conflict, key_of, merged, of_point
from softsgx.explore.scenario import Scenario
from softsgx.explore.strategies.implicit import ImplicitConflicts
from softsgx.explore.strategies.strategy import Trail, candidates, default_next, enabled_task
from softsgx.explore.strategies.subtree import (
    WHOLE,
    Draws,
    Node,
    OpenNode,
    Request,
    Subtree,
    fraction_searched,
    frozen,
    next_draws,
)
from softsgx.sim import ScheduleMismatch
from softsgx.sim.point import BLOCKING
from softsgx.sim.touch import ENABLE, READ, SPAWN, TOUCHES, WRITE

if TYPE_CHECKING:
    from softsgx.sim import Task

_SPAWNING: Final = (("spawn",), WRITE)


class Dpor:
    """Exhaustive search of one scenario up to equivalence, or of a subtree.

    A subtree is searched as in the whole tree. What its executions request of the nodes above is in
    `requests`, in order, without repetition. `union` is the footprint of its first step.
    """

    def __init__(self, scenario: Scenario, subtree: Subtree = WHOLE) -> None:
        self.subtree = subtree
        self.requests: dict[Request, None] = {}
        # Depth of the subtree's own step; nodes above it belong to others.
        self._top = len(subtree.path) if subtree.task >= 0 else -1
        self.redundant = 0
        """Executions that were cut because all candidates were asleep."""
        overridden = type(scenario).objects is not Scenario.objects
        self._objects = scenario.objects if overridden else None
        self._implicit = ImplicitConflicts()
        if subtree.implicit:
            self._implicit.use()
        self._clear()
        self._begun = False
        self._over = False

    def _clear(self) -> None:
        self._nodes: list[Node] = []
        # Draws while the scenario starts, before any step.
        self._first = Node([], -1, {})
        subtree = self.subtree
        self._first.draws = [list(d) for d in subtree.first or subtree.draws * (self._top < 0)]
        self._trail: Trail = []
        # For each key, the steps that touched it so far: (step, mode).
        self._accesses: dict[Hashable, list[tuple[int, int]]] = {}
        # For each task, the mask of its last step, and of the step that spawned it.
        self._last: dict[int, int] = {}
        self._born: dict[int, int] = {}
        self._depth = 0
        # Steps before this one are as in the last execution, and are accounted for.
        self._fresh = 0
        self._draw = 0
        self._pending: Task | None = None
        # What the step in progress has noted so far.
        self._noted: list[tuple[Hashable, int]] = []

    @property
    def exhausted(self) -> bool:
        """Whether every equivalence class was executed."""
        return self._over

    @property
    def fraction(self) -> float:
        """Share of the tree that is known so far; races may still add to the tree."""
        return 1.0 if self._over else fraction_searched(self._nodes)

    @property
    def wants_implicit(self) -> bool:
        """Whether to restart with `ImplicitConflicts`; begin() does so for the whole tree."""
        return self._implicit.wanted

    def begin(self) -> bool:
        """Backtrack to the deepest node that has an alternative left to try."""
        if self._implicit.wanted:
            assert self._top < 0, "a subtree cannot restart itself"
            # Conflicts were missed so far: restart.
            self._implicit.use()
            self._clear()
        elif self._begun and not self._back():
            self._over = True
            TOUCHES.noted = None
            return False
        self._begun = True
        self._depth = 0
        self._draw = 0
        self._pending = None
        TOUCHES.noted = None
        return True

    def end(self, left: Sequence[Task]) -> None:
        """Account for the last step, and for the races of the next steps of tasks in `left`."""
        self._record()
        TOUCHES.noted = None
        if not self._implicit.on:
            # The very last step may have enabled a daemon.
            self._implicit.look(left)
        for task in left:
            known = self._last.get(task.index, self._born.get(task.index, 0))
            blocking = task.point[0] in BLOCKING
            self._races(task.index, len(self._nodes), self._announced(task), known, blocking)

    # Choosing

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """The choice of the path; after its end the current task, unless that sleeps."""
        depth = self._depth
        self._depth = depth + 1
        nodes = self._nodes
        if depth < self._fresh:
            self._draw = 0
            index = nodes[depth].chosen
            for task in enabled:
                if task.index == index:
                    return task
            return enabled_task(enabled, index, depth)
        self._record()
        if depth < len(nodes):
            task = enabled_task(enabled, nodes[depth].chosen, depth)
        else:
            task = self._new(enabled, current, depth)
        node = nodes[depth]
        node.footprint = self._announced(task)
        self._trail.append((task.index, task.point))
        if not self._implicit.on:
            self._implicit.look(enabled)
        self._pending = task
        self._draw = 0
        TOUCHES.noted = self._noted = []
        return task

    def draw(self, n: int, what: str) -> int:
        """0 in the first execution, then all other values."""
        node = self._nodes[self._depth - 1] if self._depth else self._first
        place = self._draw
        self._draw = place + 1
        if place == len(node.draws):
            node.draws.append([0, n])
        value, known = node.draws[place]
        if known != n:
            raise ScheduleMismatch(self._depth, f"{what!r} was below {known} and is below {n} now")
        return value

    def _given(self, enabled: Sequence[Task], depth: int) -> Task:
        """A step of the given path, or the first step of the subtree."""
        subtree = self.subtree
        tasks = candidates(enabled, self._trail) if len(enabled) > 1 else enabled
        own = depth == self._top
        index, draws = (subtree.task, subtree.draws) if own else subtree.path[depth]
        node = Node([task.index for task in tasks], index, dict(subtree.sleep) if own else {})
        node.draws = [list(draw) for draw in draws]
        node.union = subtree.union if own else ()
        self._nodes.append(node)
        return enabled_task(enabled, index, depth)

    def _new(self, enabled: Sequence[Task], current: Task | None, depth: int) -> Task:
        if depth <= self._top:
            return self._given(enabled, depth)
        tasks = candidates(enabled, self._trail) if len(enabled) > 1 else enabled
        sleep: dict[int, Footprint] = {}
        if depth:
            parent = self._nodes[-1]
            for index, footprint in parent.sleep.items():
                if index != parent.chosen and not conflict(footprint, parent.footprint):
                    sleep[index] = footprint
        awake = [task for task in tasks if task.index not in sleep] if sleep else tasks
        if not awake:
            self.redundant += 1
            raise Cut([t for t in enabled[0].execution.tasks if t not in enabled])
        last = self._nodes[-1].chosen if depth else -1
        chosen = default_next(awake, current, last)
        self._nodes.append(Node([task.index for task in tasks], chosen.index, sleep))
        return chosen

    def _announced(self, task: Task) -> Footprint:
        if self._objects is not None:
            footprint = self._objects(task, task.point)
        else:
            kind, touched, write = task.point
            if type(touched) is str and kind not in BLOCKING:
                footprint = ((touched, WRITE if write else READ),)  # as of_point, but faster
            else:
                footprint = of_point(task.point)
        return merged(footprint, self._implicit.of(task)) if self._implicit.on else footprint

    # Accounting

    def _record(self) -> None:
        """End the step in progress: complete its footprint, find its races, set its mask."""
        task, self._pending = self._pending, None
        if task is None:
            return
        depth = len(self._trail) - 1
        node = self._nodes[depth]
        noted = self._noted
        born: list[int] = []
        footprint = node.footprint
        if noted:
            more: list[tuple[Hashable, int]] = []
            for touched, mode in noted:
                if mode == SPAWN:
                    born.append(touched.index)  # type: ignore[attr-defined]
                    more.append(_SPAWNING)
                else:
                    more.append((key_of(touched), mode))
            if task.done:
                more.extend(self._implicit.at_end(task))
            footprint = node.footprint = merged(footprint, tuple(more))
        node.union = merged(node.union, footprint) if node.union else footprint
        index = task.index
        last = self._last
        node.before = before = last.get(index, -1)
        known = self._born.get(index, 0) if before < 0 else before
        blocking = self._trail[depth][1][0] in BLOCKING
        node.mask = mask = self._races(index, depth, footprint, known, blocking) | 1 << depth
        last[index] = mask
        for key, mode in footprint:
            steps = self._accesses.get(key)
            if steps is None:
                self._accesses[key] = [(depth, mode)]
            else:
                steps.append((depth, mode))
        for child in born:
            self._born[child] = mask

    def _races(
        self, index: int, depth: int, footprint: Footprint, known: int, blocking: bool
    ) -> int:
        """Make sure that every race of a step with an earlier step is tried in reverse order.

        `known` is the mask of steps that happen before it because its own task, or the task that
        spawned it, took them. Returns the mask of all steps that happen before it.
        """
        nodes = self._nodes
        hb = known
        races: list[tuple[int, int]] = []
        for key, mode in footprint:
            for step, other in reversed(self._accesses.get(key, ())):
                if known >> step & 1:
                    if other not in COMMUTE:
                        break
                    continue
                if mode == other and mode in COMMUTE:
                    continue
                hb |= nodes[step].mask
                if not (blocking and other == ENABLE):
                    races.append((step, other))
        # Races between steps of the given path have been found already.
        if races and depth >= self._top:
            if len(footprint) > 1:
                races = sorted(set(races), reverse=True)
            ordered = known
            for step, other in races:
                if not ordered >> step & 1:
                    tried = self._reverse(step, depth, index, hb, blocking and other != TAKE)
                    if tried:
                        ordered |= nodes[step].mask
        return hb

    def _reverse(self, step: int, depth: int, index: int, hb: int, unsure: bool) -> bool:
        """Have a task tried in place of `step` that can start the reverse order of a race.

        False if there is no such task, or if it is `unsure` whether the reverse order exists: then
        races with earlier steps must be reversed, too.
        """
        nodes = self._nodes
        node = nodes[step]
        inside = 0
        starts: list[int] = []
        seen: set[int] = set()
        for later in range(step + 1, depth):
            other = nodes[later]
            if other.mask >> step & 1:
                continue
            if other.chosen not in seen:
                seen.add(other.chosen)
                if not other.mask & inside:
                    starts.append(other.chosen)
            inside |= 1 << later
        if index not in seen and not hb & inside:
            starts.append(index)
            if unsure:
                if index not in node.enabled:
                    return False
                unsure = False
        if step <= self._top:
            if not any(start in node.enabled for start in starts):
                return False
            self.requests[Request(step, tuple(starts), index)] = None
            return not unsure
        todo, sleep = node.todo, node.sleep
        first = -1
        for start in starts:
            if start in todo or start in sleep:
                return not unsure
            if start in node.enabled and (first < 0 or start == index):
                first = start
        if first < 0:
            return False
        todo[first] = None
        return not unsure

    def left(self) -> tuple[Draws, list[OpenNode]]:
        """What remains after the last execution: draws before any step, and open nodes.

        The nodes are those from the first step of the subtree downwards.
        """
        nodes = [
            OpenNode(
                tuple(node.enabled),
                tuple(node.todo),
                tuple(node.sleep.items()),
                node.chosen,
                frozen(node.draws),
                node.union,
            )
            for node in self._nodes[max(0, self._top) :]
        ]
        return frozen(self._first.draws), nodes

    @property
    def union(self) -> Footprint:
        """Footprint of the first step of the subtree, over all draws so far."""
        return self._nodes[self._top].union

    def _back(self) -> bool:
        nodes = self._nodes
        while nodes:
            node = nodes[-1]
            self._forget(node, len(nodes) - 1)
            if next_draws(node.draws):
                self._fresh = len(nodes) - 1
                return True
            if len(nodes) - 1 == self._top:
                return False
            node.sleep[node.chosen] = node.union
            for index in node.todo:
                if index not in node.sleep:
                    node.chosen = index
                    node.union = ()
                    self._fresh = len(nodes) - 1
                    return True
            nodes.pop()
        self._fresh = 0
        return next_draws(self._first.draws)

    def _forget(self, node: Node, depth: int) -> None:
        """Remove a step from the accesses, the trail and its task's order."""
        if len(self._trail) <= depth:
            return
        self._trail.pop()
        for key, _mode in node.footprint:
            self._accesses[key].pop()
        if node.before < 0:
            self._last.pop(node.chosen, None)
        else:
            self._last[node.chosen] = node.before
