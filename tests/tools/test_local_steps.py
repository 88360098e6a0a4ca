"""tools/local_steps.py on tasks of which it is plain what commutes."""

from __future__ import annotations

from softsgx.explore import Scenario
from softsgx.sim import Execution, Steps
from tools.local_steps import left


class Counters(Scenario):
    """Two tasks count twice each: their own counters, or the same one by a multiplication."""

    def __init__(self, *, own: bool) -> None:
        self.own = own

    def start(self, execution: Execution) -> None:
        self.value = {"A": 1, "B": 1}
        for name in "AB":
            execution.spawn(self.count(name), name)

    def count(self, name: str) -> Steps[None]:
        for factor in (2, 3):
            yield ("count", name, True)
            if self.own:
                self.value[name] += 1
            else:
                self.value["A"] = self.value["A"] * factor + (name == "B")


def test_tasks_that_share_nothing_need_one_order() -> None:
    """Nine states in a square less the final one, of which one way is left."""
    found = left(Counters(own=True))
    assert (found.states, found.steps) == (8, 13)
    assert (found.states_left, found.steps_left) == (4, 5)


def test_tasks_that_share_all_need_every_order() -> None:
    found = left(Counters(own=False))
    assert found.states_left == found.states
    assert found.steps_left == found.steps
