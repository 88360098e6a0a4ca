"""WaitFlag, Completion, Counter, WaitQueue: which signals are remembered."""

import pytest

from softsgx.sim import Completion, Counter, Deadlock, Steps, WaitFlag, WaitQueue
from tests.sim.builders import at, follow


@pytest.mark.parametrize("schedule", ["1:a", "1:b"])
def test_a_flag_set_before_the_wait_is_not_lost(schedule: str) -> None:
    flag = WaitFlag("ready")

    def sets() -> Steps[None]:
        yield at("p")
        flag.set()

    def waits() -> Steps[None]:
        yield at("q")
        yield from flag.wait()

    follow(schedule, sets(), waits()).run()


def test_a_cleared_flag_has_to_be_set_again() -> None:
    flag = WaitFlag("ready")
    flag.set()
    flag.clear()
    with pytest.raises(Deadlock):
        follow("1:", flag.wait()).run()


def test_each_complete_lets_one_through() -> None:
    completion = Completion("done")
    completion.complete()
    execution = follow("1:", completion.wait(), completion.wait())
    first, second = execution.tasks
    with pytest.raises(Deadlock):
        execution.run()
    assert (first.done, second.done) == (True, False)


def test_complete_all_lets_everyone_through() -> None:
    completion = Completion("done")
    completion.complete_all()
    follow("1:", completion.wait(), completion.wait()).run()


def test_wait_zero_waits_for_the_last_put() -> None:
    count = Counter("kref", 2)
    zero_seen = []

    def user() -> Steps[None]:
        yield at("p")
        count.put()

    def last() -> Steps[None]:
        yield from count.wait_zero()
        zero_seen.append(count.value)

    follow("1:", last(), user(), user()).run()
    assert zero_seen == [0]
    with pytest.raises(AssertionError, match="put of 'kref', which is at 0"):
        count.put()


def sleeper(queue: WaitQueue, work: list[int]) -> Steps[int]:
    yield at("p")
    yield from queue.wait_event(lambda: bool(work))
    return work.pop()


@pytest.mark.parametrize("schedule", ["1:ab", "1:ba", "1:a", "1:b"])
def test_wait_event_loses_no_wake_up(schedule: str) -> None:
    queue, work = WaitQueue("ksgxd_waitq"), list[int]()

    def waker() -> Steps[None]:
        yield at("q")
        work.append(1)
        queue.wake_up()

    follow(schedule, sleeper(queue, work), waker()).run()
    assert queue.idle


def test_a_condition_without_wake_up_leaves_the_sleeper_asleep() -> None:
    queue, work = WaitQueue("ksgxd_waitq"), list[int]()

    def forgets() -> Steps[None]:
        yield at("q")
        work.append(1)

    follow("1:b", sleeper(queue, work), forgets()).run()
    work.clear()
    with pytest.raises(Deadlock, match="waits for wait 'ksgxd_waitq'"):
        follow("1:a", sleeper(queue, work), forgets()).run()
    # Unwinding took the sleeper out of the queue.
    assert queue.idle


def test_a_woken_sleeper_tests_its_condition_again() -> None:
    queue, work = WaitQueue("ksgxd_waitq"), list[int]()

    def wakes_twice() -> Steps[None]:
        yield at("q")
        queue.wake_up()
        yield at("r")
        work.append(1)
        queue.wake_up()

    execution = follow("1:abab", sleeper(queue, work), wakes_twice())
    execution.run()
    assert queue.idle
