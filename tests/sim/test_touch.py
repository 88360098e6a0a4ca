"""What a step notes besides its point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from softsgx.sim import (
    Completion,
    Counter,
    Execution,
    Mutex,
    RunToCompletion,
    RwLock,
    Srcu,
    Steps,
    TaskExit,
    WaitFlag,
    WaitQueue,
    touch,
)
from softsgx.sim.touch import ENABLE, READ, SPAWN, TOUCHES, WRITE


@pytest.fixture
def noted() -> Iterator[list[tuple[Any, int]]]:
    TOUCHES.noted = []
    yield TOUCHES.noted
    TOUCHES.noted = None


def test_nothing_is_noted_unless_it_is_collected() -> None:
    touch("x")
    assert TOUCHES.noted is None


def test_a_body_may_note_what_its_point_does_not_say(noted: list[tuple[Any, int]]) -> None:
    touch("x")
    touch("y", READ)
    assert noted == [("x", WRITE), ("y", READ)]


def run(body: Callable[[Execution], Steps[None]]) -> Any:
    execution = Execution(RunToCompletion())
    task = execution.spawn(body(execution), "task")
    execution.run()
    return task


def test_a_release_enables(noted: list[tuple[Any, int]]) -> None:
    mutex, rw = Mutex("m"), RwLock("rw")

    def body(_execution: Execution) -> Steps[None]:
        with (yield from mutex.acquire()):
            pass
        with (yield from rw.acquire_write()):
            pass
        with (yield from rw.acquire_read()):
            pass

    task = run(body)
    # A reader's release does not affect other readers, so it has an object of its own.
    readers = ("readers", "rw")
    expected = [(mutex, ENABLE), (readers, WRITE), (rw, ENABLE), (readers, ENABLE)]
    assert noted == [(task, SPAWN), *expected, (task, ENABLE)]


def test_spawning_and_ending_are_noted(noted: list[tuple[Any, int]]) -> None:
    children: list[Any] = []

    def child() -> Steps[None]:
        yield ("read", "x", False)

    def body(execution: Execution) -> Steps[None]:
        yield ("read", "x", False)
        children.append(execution.spawn(child(), "child"))
        yield from children[0].join()

    task = run(body)
    (made,) = children
    assert noted == [(task, SPAWN), (made, SPAWN), (made, ENABLE), (task, ENABLE)]


def test_signals_are_noted(noted: list[tuple[Any, int]]) -> None:
    flag, completion, counter = WaitFlag("f"), Completion("c"), Counter("n")
    queue, srcu = WaitQueue("q"), Srcu("s")
    flag.set()
    flag.set()
    flag.clear()
    completion.complete()
    completion.complete_all()
    counter.get()
    counter.put()
    queue.wake_up()
    # Setting a flag that is set enables no task.
    expected = [(flag, ENABLE), (flag, READ), (flag, WRITE), (completion, WRITE)]
    expected += [(completion, WRITE), (counter, WRITE), (counter, WRITE), (queue, WRITE)]
    assert noted == expected
    noted.clear()

    def body(_execution: Execution) -> Steps[None]:
        with (yield from srcu.read_lock()):
            pass

    run(body)
    assert (("grace period", "s"), WRITE) in noted


def test_taken_is_called_before_a_lock_counts_as_held() -> None:
    seen: list[tuple[str, int]] = []
    mutex = Mutex("m")

    def body(_execution: Execution) -> Steps[None]:
        with (yield from mutex.acquire()):
            pass

    TOUCHES.taken = lambda task, lock: seen.append((lock.name, len(task.held)))
    try:
        run(body)
    finally:
        TOUCHES.taken = None
    assert seen == [("m", 0)]


def test_a_handler_on_the_own_processor_keeps_others_off_it(noted: list[tuple[Any, int]]) -> None:
    """Two tasks of one processor looked independent while one of them handled an interrupt."""

    def body(execution: Execution) -> Steps[None]:
        me = yield ("pause", "p", False)
        execution.enter_interrupt(me)
        yield ("pause", "p", False)
        del noted[:-1]
        execution.leave_interrupt(me)
        assert noted == [(("cpu", 1), WRITE)] * 2

    execution = Execution(RunToCompletion())
    execution.spawn(body(execution), "task", 1)
    execution.run()


def test_a_writer_that_comes_to_wait_is_noted_if_readers_may_read_again(
    noted: list[tuple[Any, int]],
) -> None:
    """It refuses those readers while it waits; no point and no other touch says so."""
    for recursive in (False, True):
        del noted[:]
        rw = RwLock("rw", recursive=recursive)
        execution = Execution(RunToCompletion())
        execution.spawn(rw.acquire_write(), "writer")
        assert ((("writers", "rw"), WRITE) in noted) == recursive
        execution.close()


def test_every_end_of_a_task_enables(noted: list[tuple[Any, int]]) -> None:
    """A task that ended by TaskExit noted nothing, so its end was no end for a daemon."""

    def body(_execution: Execution) -> Steps[None]:
        yield ("pause", "p", False)
        raise TaskExit

    task = run(body)
    assert noted == [(task, SPAWN), (task, ENABLE)]
