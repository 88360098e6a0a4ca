"""Follow: the given schedule, or a clear refusal."""

import pytest

from softsgx.sim import Execution, Follow, RunToCompletion, ScheduleMismatch, Steps
from tests.sim.builders import at, follow, points, spawn_all


def test_only_real_choices_are_asked_for() -> None:
    trace: list[str] = []
    execution = follow("1:ba", points("p", trace), points("q r s", trace))
    execution.run()
    # After A has ended, B is alone.
    assert trace == ["q", "p", "r", "s"]
    assert execution.schedule == "1:ba"


def test_after_the_end_it_runs_to_completion() -> None:
    trace: list[str] = []
    execution = follow("1:b", points("p q", trace), points("r s", trace))
    execution.run()
    assert trace == ["r", "s", "p", "q"]
    assert execution.schedule == "1:b2"


def incomplete(schedule: str) -> Execution:
    execution = Execution(Follow(schedule, complete=False))
    spawn_all(execution, [points("p q"), points("r s")])
    return execution


def test_after_the_end_it_refuses_without_completion() -> None:
    with pytest.raises(ScheduleMismatch, match="the schedule has ended, a task is to be chosen"):
        incomplete("1:b").run()
    incomplete("1:aba").run()


@pytest.mark.parametrize(
    ("schedule", "step", "reason"),
    [
        ("1:ac", 1, "task c is not enabled; enabled are a 'A', b 'B'"),
        ("1:=0", 0, "it is the draw =0, but a task is to be chosen"),
    ],
)
def test_a_choice_not_offered_is_a_mismatch(schedule: str, step: int, reason: str) -> None:
    with pytest.raises(ScheduleMismatch) as caught:
        follow(schedule, points("p q"), points("r s")).run()
    assert (caught.value.step, caught.value.reason) == (step, reason)
    assert str(caught.value) == f"choice {step} of the schedule: {reason}"


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ("1:a", "it is task a, but 'fault' is to be drawn"),
        ("1:=3", "the draw =3 of 'fault' is not below 3"),
    ],
)
def test_a_draw_not_offered_is_a_mismatch(schedule: str, reason: str) -> None:
    with pytest.raises(ScheduleMismatch) as caught:
        follow(schedule).draw(3, "fault")
    assert caught.value.reason == reason


def test_choices_that_are_left_can_be_seen() -> None:
    scheduler = Follow("1:ab5")
    execution = Execution(scheduler)
    spawn_all(execution, [points("p"), points("q")])
    execution.run()
    assert scheduler.rest == (1,) * 5


def test_begin_allows_one_execution() -> None:
    for scheduler in (Follow("1:a"), RunToCompletion()):
        assert [scheduler.begin(), scheduler.begin()] == [True, False]


def draws(values: list[int]) -> Steps[None]:
    me = yield at("p")
    values.append(me.execution.draw(4, "fault"))
    values.append(me.execution.draw(1, "no choice"))
    values.append(me.execution.draw(2, "host lies"))


def test_draws_are_choices_of_the_schedule() -> None:
    values: list[int] = []
    execution = follow("1:=3=1", draws(values))
    execution.run()
    assert values == [3, 0, 1]
    assert execution.schedule == "1:=3=1"


def test_draws_are_ordinary_after_the_end() -> None:
    values: list[int] = []
    follow("1:", draws(values)).run()
    assert values == [0, 0, 0]
