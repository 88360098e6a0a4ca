"""The mutex that sleeps outside the enclave, the timer, and the heap that grows: closed forms."""

from itertools import pairwise

from softsgx.lab.enclaves import with_hole
from softsgx.lab.heaps import grow, heap_touched
from softsgx.lab.join import THREADS, put_tasks, take_tasks
from softsgx.lab.measured import MeasuredThread
from softsgx.lab.prices import PROFILES
from softsgx.lab.sleeping import Event, SleepingMutex
from softsgx.lab.threads import Threads
from softsgx.lab.timer import timer_exits
from softsgx.sim import Steps

DEFAULT = PROFILES["default"]
C = DEFAULT.cycles


def threads(n: int) -> tuple[Threads, SleepingMutex]:
    mutex = SleepingMutex({number: Event(f"thread {number}") for number in range(n)})
    inside = Threads(DEFAULT, with_hole(n, 0), n, 256)
    inside.warm()
    return inside, mutex


def test_waiters_take_it_in_their_order_and_each_hand_over_pays_two_halves_of_a_call() -> None:
    inside, mutex = threads(4)
    taken: list[tuple[int, int]] = []

    def program(t: MeasuredThread) -> Steps[None]:
        yield from t.compute(1000 * t.seat.number)
        yield from mutex.lock(t)
        taken.append((t.seat.number, t.seat.now()))
        yield from t.compute(100_000 if t.seat.number == 0 else 500)
        yield from mutex.unlock(t)

    counts = inside.run(program).counts
    assert [number for number, _ in taken] == [0, 1, 2, 3]
    # The owner calls out and wakes; the waiter runs, and comes back in.
    hand_over = C["ocall"] + C["syscall"] + C["wakeup"]
    times = [time for _, time in taken[1:]]
    assert [b - a for a, b in pairwise(times)] == [500 + hand_over] * 2
    assert (counts["wakeup"], counts["ocall"]) == (3, 6)


def test_a_mutex_that_is_free_costs_nothing() -> None:
    inside, mutex = threads(1)

    def program(t: MeasuredThread) -> Steps[None]:
        for _ in range(10):
            start = t.seat.now()
            yield from mutex.lock(t)
            yield from mutex.unlock(t)
            assert t.seat.now() == start

    counts = inside.run(program).counts
    assert "ocall" not in counts
    assert "wakeup" not in counts


def test_a_wake_that_comes_first_is_remembered() -> None:
    """Before the wait there is no system call at all; during it, no sleep."""
    event = Event("thread 0")
    assert list(event.wake(None)) == []
    assert list(event.wait(None)) == []
    waiting = event.wait(None)
    assert next(waiting)[:2] == ("syscall", "futex")
    assert [point[:2] for point in event.wake(None)] == [("syscall", "futex")]
    assert list(waiting) == []
    # It is used up: the next wait goes to sleep.
    waiting = event.wait(None)
    assert [next(waiting)[0], next(waiting)[0]] == ["syscall", "wait"]


def test_each_task_takes_one_mutex_out_of_the_queue_and_two_into_it() -> None:
    """A mutex is held once for each point of computing that is not the task's own."""
    assert take_tasks(DEFAULT, 40, 1000).counts["compute"] == 40 + 40 + THREADS
    assert put_tasks(DEFAULT, 5, 1000).counts["compute"] == THREADS * (1 + 2 * 5)


def test_the_timer_interrupts_hz_times_a_second_and_delays_the_work() -> None:
    assert [timer_exits(DEFAULT, hz, 200) for hz in (50, 250, 1000)] == [10, 50, 201]
    # 1000 Hz: 200 ms of work last 200 ms and what 200 interrupts took, in which one more falls.
    assert C["AEX"] + C["irq"] + C["ERESUME"] < 2900 * 1000 / 150


def test_a_heap_that_grows_adds_one_page_at_a_time() -> None:
    chunks, pages, n = 2, 3, 4
    time = grow(DEFAULT, n, chunks, pages, 0)
    total = n * chunks * pages
    assert (time.counts["EAUG"], time.counts["fault"]) == (total, total)
    page = C["EACCEPT"] + C["AEX"] + C["fault"] + C["EAUG"] + C["ERESUME"] + C["EACCEPT"]
    assert time.elapsed == total * page + C["EENTER"] + C["EEXIT"]


def test_a_heap_that_is_touched_early_has_no_faults_later() -> None:
    assert heap_touched(DEFAULT, 16, first=False) == (0, 16)
    assert heap_touched(DEFAULT, 16, first=True) == (16, 0)
