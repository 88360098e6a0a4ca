"""How many schedules of plain depth first are equivalent to one that was executed before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softsgx.explore import Scenario
from softsgx.explore.execute import execute_next
from softsgx.explore.strategies import Dpor
from softsgx.explore.strategies.strategy import candidates, default_next
from softsgx.explore.strategies.subtree import Node

if TYPE_CHECKING:
    from softsgx.sim import Task


class _Every(Dpor):
    """Plain depth first with the footprints, and so the order of steps, that reduction uses."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.found: set[int] = set()

    def _new(self, enabled: Sequence[Task], current: Task | None, depth: int) -> Task:
        tasks = candidates(enabled, self._trail) if len(enabled) > 1 else enabled
        last = self._nodes[-1].chosen if depth else -1
        chosen = default_next(tasks, current, last)
        node = Node([task.index for task in tasks], chosen.index, {})
        node.todo.update(dict.fromkeys(node.enabled))
        self._nodes.append(node)
        return chosen

    def end(self, left: Sequence[Task]) -> None:
        """Identify the execution by the steps of each task that happen before each of its steps."""
        super().end(left)
        of_task: dict[int, int] = {}
        for depth, node in enumerate(self._nodes):
            of_task[node.chosen] = of_task.get(node.chosen, 0) | 1 << depth
        clocks = [
            (
                node.chosen,
                *[(task, (node.mask & mask).bit_count()) for task, mask in sorted(of_task.items())],
                *[value for value, _ in node.draws],
            )
            for node in self._nodes
        ]
        self.found.add(hash(tuple(sorted(clocks))))


def classes(scenario: Scenario, most: int) -> tuple[int, int, bool]:
    """Schedules executed, how many are different, and whether these are all there are."""
    strategy = _Every(scenario)
    executions = 0
    while executions < most:
        anew = strategy.wants_implicit
        if not strategy.begin():
            break
        if anew:
            # The order known so far was too weak.
            executions = 0
            strategy.found.clear()
        execute_next(scenario, strategy)
        executions += 1
    return executions, len(strategy.found), strategy.exhausted
