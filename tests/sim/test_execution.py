"""Execution: stepping, ending, failing."""

import gc
from collections.abc import Callable

import pytest

from softsgx.sim import (
    Cooperative,
    Deadlock,
    Event,
    Execution,
    Follow,
    Log,
    Mutex,
    RunToCompletion,
    ScheduleMismatch,
    Scheduler,
    StepBound,
    Stepped,
    Steps,
    Task,
    TaskEnded,
    TaskSpawned,
    VirtualTime,
    WaitFlag,
    run,
)
from softsgx.sim.live import LIVE
from tests.sim.builders import at, follow, points


def priced() -> VirtualTime:
    return VirtualTime({}, default=1)


def test_a_body_of_n_points_takes_n_steps() -> None:
    execution = follow("1:", points("p q r"))
    execution.run()
    assert execution.steps == 3


def test_a_body_is_sent_its_own_task() -> None:
    def body() -> Steps[Task]:
        return (yield at("p"))

    execution = Execution(RunToCompletion())
    task = execution.spawn(body(), "T", cpu=3)
    execution.run()
    assert task.result is task
    assert (task.execution, task.name, task.index, task.cpu) == (execution, "T", 0, 3)


def test_the_pending_point_is_known_before_the_first_step() -> None:
    execution = Execution(RunToCompletion())
    assert execution.spawn(points("p q"), "T").point == at("p")
    assert execution.steps == 0


def test_a_body_without_points_ends_when_spawned() -> None:
    task = Execution(RunToCompletion()).spawn(points(""), "T")
    assert task.done
    assert task.result == ""


def test_steps_interleave_as_chosen() -> None:
    trace: list[str] = []
    follow([0, 1, 1, 0], points("p q", trace), points("r s", trace)).run()
    assert trace == ["p", "r", "s", "q"]


def test_a_running_task_spawns_and_joins() -> None:
    def parent() -> Steps[str]:
        me = yield at("p")
        child = me.execution.spawn(points("q r"), "child")
        result: str = yield from child.join()
        return result

    assert run(parent()) == "q r"


def test_run_goes_on_with_tasks_spawned_later() -> None:
    execution = follow("1:", points("p"))
    execution.run()
    later = execution.spawn(points("q"), "later")
    assert not later.done
    execution.run()
    assert later.done
    assert later.index == 1


def test_run_ends_without_its_daemons_and_later_goes_on_with_them() -> None:
    def forever() -> Steps[None]:
        while True:
            yield at("d")
            trace.append("d")

    trace: list[str] = []
    execution = Execution(Follow("1:aba2b"))
    daemon = execution.spawn(forever(), "daemon", daemon=True)
    execution.spawn(points("p", trace), "first")
    execution.run()
    assert trace == ["d", "p"]
    execution.spawn(points("q", trace), "second")
    with pytest.raises(ScheduleMismatch):
        execution.run()
    assert trace == ["d", "p", "d", "d"]
    assert not daemon.done


def test_the_end_of_a_daemon_ends_nothing_else() -> None:
    execution = follow("1:b", points("p q"))
    work = execution.tasks[0]
    daemon = execution.spawn(points("d"), "daemon", daemon=True)
    execution.run()
    assert daemon.done
    assert work.done


def test_close_unwinds_so_that_locks_are_released() -> None:
    lock = Mutex("m")

    def daemon() -> Steps[None]:
        with (yield from lock.acquire()):
            yield from WaitFlag("never").wait()

    execution = follow("1:b", points("p"))
    execution.spawn(daemon(), "daemon", daemon=True)
    execution.run()
    assert not lock.idle
    execution.close()
    assert lock.idle
    assert execution.tasks == ()


def test_an_exception_names_task_point_and_schedule() -> None:
    def fails() -> Steps[None]:
        yield at("p")
        raise KeyError("page")

    execution = follow([0, 1], points("q r"), fails())
    failing = execution.tasks[1]
    with pytest.raises(KeyError) as caught:
        execution.run()
    assert caught.value.__notes__ == ["in task b 'B', point ('p', 'x', True)", "schedule 1:ab"]
    assert failing.exception is caught.value
    assert failing.done


def test_an_exception_before_the_first_point_comes_out_of_spawn() -> None:
    def fails() -> Steps[None]:
        raise KeyError("page")
        yield at("p")

    execution = Execution(RunToCompletion())
    with pytest.raises(KeyError) as caught:
        execution.spawn(fails(), "T")
    assert caught.value.__notes__ == ["in task a 'T', before any point"]
    assert execution.tasks == ()


def test_a_failure_unwinds_the_other_tasks_at_once() -> None:
    lock = Mutex("m")

    def holder() -> Steps[None]:
        with (yield from lock.acquire()):
            yield at("p")

    def fails() -> Steps[None]:
        yield at("q")
        raise KeyError

    execution = follow([0, 1], holder(), fails())
    with pytest.raises(KeyError):
        execution.run()
    assert lock.idle
    assert execution.tasks == ()


def test_trouble_in_unwinding_does_not_hide_the_failure() -> None:
    def stubborn() -> Steps[None]:
        try:
            yield at("p")
        finally:
            raise ValueError("no")

    def fails() -> Steps[None]:
        yield at("q")
        raise KeyError

    with pytest.raises(KeyError) as caught:
        follow([1], stubborn(), fails()).run()
    assert any("ValueError('no')" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("bodies", [1, 2])
def test_too_many_steps_raise_step_bound(bodies: int) -> None:
    def forever() -> Steps[None]:
        while True:
            yield at("p")

    execution = Execution(RunToCompletion(), max_steps=10)
    for _ in range(bodies):
        execution.spawn(forever(), "T")
    with pytest.raises(StepBound, match="not ended after 10 steps") as caught:
        execution.run()
    assert execution.steps == 10
    assert caught.value.schedule == execution.schedule


@pytest.mark.parametrize("bodies", [1, 2])
@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("scheduler", [RunToCompletion, Cooperative, priced])
def test_exactly_max_steps_are_allowed(
    scheduler: Callable[[], Scheduler], record: bool, bodies: int
) -> None:
    """Unrecorded cooperative executions did not count: 4,000,000 steps with 1,000 allowed."""
    if scheduler is RunToCompletion and not record:
        return  # always recorded
    for missing in (0, 1):
        allowed = 2 * bodies - missing
        taken: list[str] = []
        execution = Execution(scheduler(), max_steps=allowed, record=record)
        for _ in range(bodies):
            execution.spawn(points("p q", taken), "T")
        if missing:
            with pytest.raises(StepBound, match=f"not ended after {allowed} steps"):
                execution.run()
        else:
            execution.run()
        assert (len(taken), execution.steps) == (allowed, allowed)


def test_the_bound_is_on_all_runs_of_an_execution() -> None:
    execution = Execution(Cooperative(), max_steps=3, record=False)
    execution.spawn(points("p q"), "T")
    execution.run()
    execution.spawn(points("r s"), "T")
    with pytest.raises(StepBound):
        execution.run()
    assert execution.steps == 3


def test_a_task_that_blocks_with_the_last_step_is_a_deadlock_and_not_a_step_bound() -> None:
    """As in a recorded execution: that it can never go on is the better answer."""

    def waits() -> Steps[None]:
        yield at("p")
        yield from WaitFlag("never").wait()

    for record in (True, False):
        execution = Execution(Cooperative(), max_steps=1, record=record)
        execution.spawn(waits(), "T")
        with pytest.raises(Deadlock):
            execution.run()


def test_a_task_must_not_end_with_a_lock() -> None:
    lock = Mutex("m")

    def forgets() -> Steps[None]:
        yield from lock.acquire()

    with pytest.raises(AssertionError, match="the task ended holding m") as caught:
        run(forgets(), "T")
    assert "in task a 'T', point ('lock', Mutex('m'), True)" in caught.value.__notes__


def test_a_scheduler_must_choose_an_enabled_task() -> None:
    class Wrong(RunToCompletion):
        def choose(self, enabled: object, current: object) -> Task:
            return stranger

    stranger = Execution(RunToCompletion()).spawn(points("p"), "stranger")
    execution = Execution(Wrong())
    execution.spawn(points("p"), "T")
    with pytest.raises(AssertionError, match="which is not enabled"):
        execution.run()


def test_events_of_spawns_steps_and_ends() -> None:
    log = Log()
    with log.record() as events:
        run(points("p"), "T", log=log)
    assert [type(event) for event in events] == [TaskSpawned, Stepped, TaskEnded]
    assert events[1] == Stepped(events[0][0], at("p"))


def test_an_ended_execution_leaves_no_garbage_cycle() -> None:
    def locks() -> Steps[None]:
        me = yield at("p")
        assert me.name

    def once() -> None:
        execution = Execution(RunToCompletion())
        for _ in range(2):
            execution.spawn(locks(), "T")
        execution.run()

    while gc.collect():  # of earlier tests; finalizers leave garbage, too
        pass
    gc.disable()
    try:
        once()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_an_unrecorded_execution_takes_the_same_steps_with_a_listener() -> None:
    """It once became a recorded one then, and kept a choice for every step."""

    def run_two(listen: bool) -> tuple[list[str], Execution, list[Event]]:
        trace: list[str] = []
        events: list[Event] = []
        execution = Execution(Cooperative(), record=False)
        if listen:
            execution.log.subscribe(events.append)
        for name in "AB":
            execution.spawn(points("p q r", trace), name)
        execution.run()
        return trace, execution, events

    quiet, loud = run_two(False), run_two(True)
    assert quiet[0] == loud[0]
    assert quiet[1].steps == loud[1].steps == 6
    assert loud[1].choices == []
    assert sum(isinstance(event, Stepped) for event in loud[2]) == 6


@pytest.mark.parametrize("record", [True, False])
def test_what_a_nested_execution_takes_is_its_own(record: bool) -> None:
    """A live task ran a recorded execution of its own, and a mutex taken in there was owned by the
    outer task, so the inner one could not release it. Likewise in the first step of a spawned
    body, and while it is unwound."""
    mutex, early, late = Mutex("mutex"), Mutex("early"), Mutex("late")
    owners: list[object] = []

    def inner() -> Steps[None]:
        with (yield from early.acquire()):
            owners.append(early.owner)
        try:
            with (yield from mutex.acquire()):
                owners.append(mutex.owner)
                yield at("p")
        finally:
            assert LIVE.execution is (None if record else nested)

    def left_over() -> Steps[None]:
        try:
            yield at("p")
            yield at("p")
        finally:
            # It stands at its point: unwinding must not take the lock that it waits for.
            owners.append(next(late.acquire()))

    nested = Execution(RunToCompletion() if record else Cooperative(), record=record)

    def outer() -> Steps[None]:
        yield at("q")
        task = nested.spawn(inner(), "inner")
        nested.spawn(left_over(), "left over", daemon=True)
        nested.run()
        nested.close()
        assert owners[:2] == [task, task]
        assert LIVE.execution is execution
        with (yield from mutex.acquire()):
            owners.append(mutex.owner)

    execution = Execution(Cooperative(), record=False)
    task = execution.spawn(outer(), "outer")
    execution.run()
    assert owners[2] == late._point
    assert (owners[3], late.owner) == (task, None)
    assert LIVE.execution is None
