"""Mutex and RwLock."""

from collections.abc import Callable

import pytest

from softsgx.sim import (
    Execution,
    Guard,
    LockReleased,
    LockTaken,
    Mutex,
    RunToCompletion,
    RwLock,
    Steps,
    Task,
    run,
)
from tests.sim.builders import at, follow


def enabled(execution: Execution) -> list[str]:
    """The tasks that could go on."""
    return [task.name for task in execution.tasks if task.gate is None or task.gate(task)]


def hold(lock: Mutex, inside: list[str], name: str) -> Steps[None]:
    with (yield from lock.acquire()):
        inside.append(name)
        yield at("p")
        inside.append(name)


@pytest.mark.parametrize("schedule", ["1:a", "1:b"])
def test_mutex_excludes(schedule: str) -> None:
    lock, inside = Mutex("m"), list[str]()
    follow(schedule, hold(lock, inside, "A"), hold(lock, inside, "B")).run()
    assert inside in (list("AABB"), list("BBAA"))
    assert (inside[0] == "A") == (schedule == "1:a")
    assert lock.idle


def test_an_acquisition_is_one_point_and_a_release_none() -> None:
    lock = Mutex("m")

    def body() -> Steps[None]:
        with (yield from lock.acquire()):
            pass

    execution = follow("1:", body())
    execution.run()
    assert execution.steps == 1


def test_mutex_refuses_recursion_at_once() -> None:
    lock = Mutex("m")

    def body() -> Steps[None]:
        with (yield from lock.acquire()), (yield from lock.acquire()):
            pass

    with pytest.raises(AssertionError, match="a 'main' acquires 'm', which it holds"):
        run(body())


def test_mutex_is_released_by_its_owner_only() -> None:
    lock = Mutex("m")
    with pytest.raises(AssertionError, match="which nobody holds"):
        lock.release()

    def thief() -> Steps[None]:
        yield at("p")
        lock.release()

    with pytest.raises(AssertionError, match="by another than its owner a 'A'"):
        follow([0, 1], hold(lock, [], "A"), thief()).run()


def test_trylock_is_a_point_and_does_not_wait() -> None:
    lock = Mutex("m")
    answers = []

    def tries() -> Steps[None]:
        for _ in range(2):
            answers.append((yield from lock.trylock()))
        lock.release()

    # B tries while A holds, then after A has released.
    follow("1:abab", hold(lock, [], "A"), tries()).run()
    assert answers == [False, True]
    assert lock.idle


def test_held_locks_are_listed_in_order() -> None:
    locks = [Mutex("a"), Mutex("b")]
    held: list[object] = []

    def body() -> Steps[Task]:
        me = yield at("p")
        with (yield from locks[0].acquire()), (yield from locks[1].acquire()):
            held.extend(me.held)
        return me

    assert run(body()).held == []
    assert held == locks


def test_taking_and_releasing_are_events() -> None:
    lock = RwLock("mmap_lock")

    def body() -> Steps[None]:
        with (yield from lock.acquire_read()):
            pass
        with (yield from lock.acquire_write()):
            pass

    execution = Execution(RunToCompletion())
    task = execution.spawn(body(), "T")
    with execution.log.record() as events:
        execution.run()
    assert [event for event in events if isinstance(event, LockTaken | LockReleased)] == [
        LockTaken(task, lock, False),
        LockReleased(task, lock, False),
        LockTaken(task, lock, True),
        LockReleased(task, lock, True),
    ]


def read(lock: RwLock) -> Steps[None]:
    with (yield from lock.acquire_read()):
        yield at("p")


def write(lock: RwLock) -> Steps[None]:
    with (yield from lock.acquire_write()):
        yield at("p")


def test_readers_share_and_exclude_the_writer() -> None:
    lock = RwLock("mmap_lock")
    seen = []

    def look() -> Steps[None]:
        me = yield at("look")
        seen.append(enabled(me.execution))

    follow("1:abd", read(lock), read(lock), write(lock), look()).run()
    # Both readers are inside; the writer has to wait.
    assert seen == [["A", "B", "D"]]
    assert lock.idle


def test_the_writer_excludes_all() -> None:
    lock = RwLock("mmap_lock")
    seen = []

    def look() -> Steps[None]:
        me = yield at("look")
        seen.append(enabled(me.execution))

    follow("1:ad", write(lock), read(lock), write(lock), look()).run()
    assert seen == [["A", "D"]]
    assert lock.idle


def test_no_fairness_a_reader_may_pass_a_waiting_writer() -> None:
    lock = RwLock("mmap_lock")
    execution = follow("1:ac", read(lock), write(lock), read(lock))
    _, writer, reader = execution.tasks
    with execution.log.record() as events:
        execution.run()
    taken = [event.task for event in events if isinstance(event, LockTaken)]
    assert taken.index(reader) < taken.index(writer)


def test_rwlock_trylocks() -> None:
    lock = RwLock("mmap_lock")
    answers = []

    def tries() -> Steps[None]:
        answers.append((yield from lock.trylock_write()))
        answers.append((yield from lock.trylock_read()))
        lock.release_read()

    follow("1:ab2", read(lock), tries()).run()
    assert answers == [False, True]
    assert lock.idle


Acquire = Callable[[RwLock], Steps[Guard]]


@pytest.mark.parametrize("second", [RwLock.acquire_read, RwLock.acquire_write])
@pytest.mark.parametrize("first", [RwLock.acquire_read, RwLock.acquire_write])
def test_rwlock_refuses_recursion(first: Acquire, second: Acquire) -> None:
    lock = RwLock("mmap_lock")

    def body() -> Steps[None]:
        with (yield from first(lock)), (yield from second(lock)):
            pass

    with pytest.raises(AssertionError, match="which it holds"):
        run(body())


def test_rwlock_is_released_by_its_holders_only() -> None:
    lock = RwLock("mmap_lock")
    with pytest.raises(AssertionError, match="no writer"):
        lock.release_write()

    def thief() -> Steps[None]:
        yield at("p")
        lock.release_read()

    with pytest.raises(AssertionError, match="not among its readers"):
        follow("1:ab", read(lock), thief()).run()
