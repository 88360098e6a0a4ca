"""Virtual time: every figure here is computed by hand."""

import pytest

from softsgx.sim import Execution, Mutex, Steps, Unmodelled, VirtualTime, WaitFlag, ipi
from tests.sim.builders import Cpu, at, points

PRICES = {"lock": 10, "work": 100, "step": 50, "ipi": 200, "irq": 1000, "wait": 0, "long": 500}


def simulate(*tasks: tuple[Steps[object], int | None]) -> VirtualTime:
    time = VirtualTime(PRICES)
    execution = Execution(time)
    for number, (body, cpu) in enumerate(tasks):
        execution.spawn(body, f"T{number}", cpu)
    execution.run()
    return time


def critical(lock: Mutex) -> Steps[None]:
    with (yield from lock.acquire()):
        yield at("work")


def test_prices_add_up_on_one_processor() -> None:
    time = simulate((points("step work step"), 0))
    assert time.now(0) == time.elapsed == 200
    assert time.counts == {"step": 2, "work": 1}


def test_processors_run_in_parallel() -> None:
    time = simulate((points("step step"), 0), (points("work"), 1))
    assert (time.now(0), time.now(1), time.elapsed) == (100, 100, 100)


def test_tasks_of_one_processor_share_its_time() -> None:
    time = simulate((points("work"), 0), (points("step"), 0))
    assert time.now(0) == time.elapsed == 150


def test_tasks_without_processor_have_their_own() -> None:
    assert simulate((points("work"), None), (points("work"), None)).elapsed == 100


def test_the_earliest_finish_goes_first_and_ties_go_to_the_lower_index() -> None:
    trace: list[str] = []
    time = VirtualTime({"a": 30, "b": 10, "c": 20})
    execution = Execution(time)
    for number, kinds in enumerate(["a", "b c", "c b"]):
        execution.spawn(points(kinds, trace), f"T{number}", number)
    execution.run()
    # Finishes: b 10, c of T2 20, then all three at 30: T0 a, T1 c, T2 b.
    assert trace == ["b", "c", "a", "c", "b"]
    assert time.elapsed == 30


def test_a_waiter_for_a_lock_starts_when_it_is_released() -> None:
    lock = Mutex("m")
    time = simulate((critical(lock), 0), (critical(lock), 1))
    # T0: lock 0-10, work 10-110. T1: waits, lock 110-120, work 120-220.
    assert (time.now(0), time.now(1)) == (110, 220)


def test_a_lock_is_not_free_in_the_middle_of_a_long_point() -> None:
    lock = Mutex("m")

    def late() -> Steps[None]:
        yield at("step")
        yield from critical(lock)

    time = simulate((critical(lock), 0), (late(), 1))
    # T1 asks at 50; T0 releases at 110, though nothing but `work` lies in between.
    assert (time.now(0), time.now(1)) == (110, 220)


def test_an_uncontended_lock_costs_its_price_only() -> None:
    lock = Mutex("m")

    def late() -> Steps[None]:
        yield at("long")
        yield from critical(lock)

    time = simulate((critical(lock), 0), (late(), 1))
    assert (time.now(0), time.now(1)) == (110, 610)


def test_a_wait_ends_with_the_step_that_sets_the_flag() -> None:
    flag = WaitFlag("f")

    def sets() -> Steps[None]:
        yield at("long")
        flag.set()

    def waits() -> Steps[None]:
        yield from flag.wait()
        yield at("step")

    time = simulate((sets(), 0), (waits(), 1))
    assert time.now(1) == 550


def test_a_spawned_task_starts_when_it_is_spawned() -> None:
    def parent() -> Steps[None]:
        me = yield at("work")
        me.execution.spawn(points("step"), "child", 1)

    assert simulate((parent(), 0)).now(1) == 150


def test_an_ipi_costs_the_target_and_makes_the_sender_wait() -> None:
    time = simulate((ipi([Cpu(1)], Cpu.take), 0), (points("long"), 1))
    # Sent at 200; the handler runs 200-1200; the sender goes on at 1200.
    # The target has done 200 of its 500 by then and finishes the other 300 at 1500.
    assert time.now(0) == 1200
    assert time.now(1) == 1500
    assert time.counts == {"ipi": 1, "irq": 1, "wait": 1, "long": 1}


def test_a_handler_with_points_delays_the_interrupted_task_by_all_of_them() -> None:
    def handler(_: Cpu) -> Steps[None]:
        yield from points("work work")

    time = simulate((ipi([Cpu(1)], handler), 0), (points("long"), 1))
    # 200 of 500 done; handler 200-1200-1300-1400; the other 300 until 1700.
    assert (time.now(0), time.now(1)) == (1400, 1700)


def test_two_interrupts_of_one_processor_follow_each_other() -> None:
    target = Cpu(2)
    time = simulate((ipi([target], Cpu.take), 0), (ipi([target], Cpu.take), 1))
    # Both sent at 200: 200-1200 and 1200-2200.
    assert (time.now(0), time.now(1), time.now(2)) == (1200, 2200, 2200)


def test_an_interrupt_waits_until_its_target_is_interruptible() -> None:
    target = Cpu(1, enabled=False)

    def busy() -> Steps[None]:
        yield at("long")
        target.enabled = True
        yield at("step")

    time = simulate((ipi([target], Cpu.take), 0), (busy(), 1))
    # Interruptible from 500 on: handler 500-1500, then step until 1550.
    assert (time.now(0), time.now(1)) == (1500, 1550)


def test_a_kind_without_price_is_unmodelled() -> None:
    with pytest.raises(Unmodelled, match="no price for points of kind 'EWB', and no default price"):
        simulate((points("EWB"), 0))


def test_a_default_price_serves_all_other_kinds() -> None:
    time = VirtualTime({"a": 1}, default=7)
    execution = Execution(time)
    execution.spawn(points("a b c"), "T", 0)
    execution.run()
    assert time.elapsed == 15


def test_begin_sets_the_clocks_to_zero_and_allows_one_execution() -> None:
    time = simulate((points("work"), 0))
    assert time.begin()
    assert (time.elapsed, time.now(0), time.counts) == (0, 0, {})
    assert not time.begin()


def test_a_charge_delays_what_was_begun_and_what_begins_on_the_processor() -> None:
    time = VirtualTime(PRICES)

    def take(_: Cpu) -> None:
        time.charge(1, "long")

    execution = Execution(time)
    execution.spawn(ipi([Cpu(1)], take), "sender", 0)
    execution.spawn(points("long"), "interrupted", 1)
    execution.spawn(points("work"), "other", 2)
    execution.run()
    # Sent at 200; handler 200-1200, charge until 1700; the other 300 of 500 until 2000.
    assert (time.now(0), time.now(1), time.now(2)) == (1200, 2000, 100)
    assert time.counts["long"] == 2

    execution.spawn(ipi([Cpu(1), Cpu(2)], take), "sender again", 0)
    execution.run()
    # Sent at 2200; both handlers 2200-3200; two charges on processor 1 until 4200.
    execution.spawn(points("step"), "late", 1)
    execution.run()
    assert time.now(1) == 4250
