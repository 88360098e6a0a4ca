"""Failing schedules are minimised: fewest preemptions, then fewest steps."""

from __future__ import annotations

from softsgx.explore import Plan, Violation, explore
from softsgx.explore.limits import Allowance
from softsgx.explore.minimise import LenientFollow, minimise
from softsgx.explore.record import record
from softsgx.sim import Execution, Steps
from tests.explore.bodies import Bodies
from tests.explore.test_explorer import Counter


def test_switches_that_do_not_matter_go() -> None:
    class Long(Counter):
        def add(self) -> Steps[None]:
            for _ in range(4):
                yield ("write", "distraction", True)
            yield from super().add()
            for _ in range(4):
                yield ("write", "distraction", True)

    recording = record(Long(), LenientFollow([0, 1] * 10))
    found = recording.failure
    assert found is not None
    assert found.preemptions > 5
    small, all_tried = minimise(Long(), recording, Allowance(10_000))
    assert all_tried
    assert (small.preemptions, small.rule) == (1, "lost update")
    assert found.same_as(record(Long(), small.choices).executed.failure)


def test_draws_that_do_not_matter_become_ordinary() -> None:
    class Drawing(Counter):
        def start(self, execution: Execution) -> None:
            super().start(execution)
            execution.spawn(self.draw(execution), "C")

        def draw(self, execution: Execution) -> Steps[None]:
            for _ in range(3):
                yield ("draw", "coin", False)
                execution.draw(4, "coin")

    outcome = explore(Drawing(), Plan(strategy="random", seed=1))
    assert outcome.failure is not None
    assert all(choice >= ~0 for choice in outcome.failure.choices)


def test_a_draw_that_matters_stays() -> None:
    class State:
        drawn = 0

    scenario: Bodies

    def body(state: State) -> Steps[None]:
        me = yield ("draw", "fault", True)
        state.drawn = me.execution.draw(3, "fault")

    def judge(state: State) -> None:
        if state.drawn == 2:
            raise Violation("fault", "drawn")

    scenario = Bodies(State, body, body, verify=judge)
    failure = explore(scenario, Plan(strategy="random")).failure
    assert failure is not None
    assert failure.choices.count(~2) == 1
    assert failure.preemptions == 0


def test_the_failure_stays_the_same_one() -> None:
    """A smaller schedule that violates another rule is another failure."""

    class Two(Counter):
        def check(self, execution: Execution) -> None:
            if self.value == 2:
                raise Violation("no lost update", "")
            super().check(execution)

    found = record(Two(), [0, 1, 0])
    assert found.failure is not None
    assert found.failure.rule == "lost update"
    assert minimise(Two(), found, Allowance(10_000))[0].rule == "lost update"
