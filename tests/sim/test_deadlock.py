"""Deadlock: who waits for what, and who would have to act."""

import pytest

from softsgx.sim import Deadlock, Mutex, RwLock, Steps, WaitFlag, ipi, run
from tests.sim.builders import Cpu, follow


def both(first: Mutex, second: Mutex) -> Steps[None]:
    with (yield from first.acquire()), (yield from second.acquire()):
        pass


def test_deadlock_names_tasks_locks_and_holders() -> None:
    a, b = Mutex("encl->lock"), Mutex("reclaimer")
    execution = follow("1:ab", both(a, b), both(b, a))
    with pytest.raises(Deadlock) as caught:
        execution.run()
    assert str(caught.value).splitlines() == [
        "deadlock: no task can go on",
        "  a 'A' waits for lock 'reclaimer', held by b 'B'",
        "  b 'B' waits for lock 'encl->lock', held by a 'A'",
    ]
    assert caught.value.schedule == "1:ab"
    assert [blocked.object for blocked in caught.value.blocked] == [b, a]


def test_the_other_orders_of_the_same_tasks_end() -> None:
    a, b = Mutex("a"), Mutex("b")
    follow("1:a2", both(a, b), both(b, a)).run()
    assert a.idle
    assert b.idle


def test_deadlock_names_all_readers() -> None:
    lock, flag = RwLock("mmap_lock"), WaitFlag("never")

    def reader() -> Steps[None]:
        with (yield from lock.acquire_read()):
            yield from flag.wait()

    def writer() -> Steps[None]:
        with (yield from lock.acquire_write()):
            pass

    with pytest.raises(Deadlock, match="'mmap_lock', held by a 'A', b 'B'") as caught:
        follow("1:ab", reader(), reader(), writer()).run()
    assert "a 'A' waits for wait 'never'\n" in str(caught.value)


def test_deadlock_of_a_task_with_itself_by_join() -> None:
    def body() -> Steps[None]:
        me = yield ("p", None, True)
        yield from me.join()

    with pytest.raises(Deadlock, match="a 'main' waits for wait 'main', held by a 'main'"):
        run(body())


def test_deadlock_when_a_target_is_never_interruptible() -> None:
    with pytest.raises(Deadlock) as caught:
        run(ipi([Cpu(1, enabled=False)], Cpu.take), "S", cpu=0)
    assert str(caught.value).splitlines()[1:] == [
        "  a 'S' waits for wait 'acknowledgement by cpu 1', held by b 'ipi to cpu 1 by S'",
        "  b 'ipi to cpu 1 by S' waits for irq 'cpu 1 to be interruptible'",
    ]


def test_deadlock_of_a_handler_with_the_task_it_interrupts() -> None:
    lock = Mutex("m")

    def interrupted() -> Steps[None]:
        with (yield from lock.acquire()):
            yield ("p", None, True)

    def handler(cpu: Cpu) -> Steps[None]:
        with (yield from lock.acquire()):
            pass

    execution = follow("1:abc")
    execution.spawn(interrupted(), "T", cpu=1)
    execution.spawn(ipi([Cpu(1)], handler), "S", cpu=0)
    with pytest.raises(Deadlock) as caught:
        execution.run()
    assert "a 'T' is interrupted on cpu 1 by c 'ipi to cpu 1 by S'" in str(caught.value)
    assert "c 'ipi to cpu 1 by S' waits for lock 'm', held by a 'T'" in str(caught.value)


def test_a_waiting_daemon_is_reported_but_no_reason_to_wait() -> None:
    flag = WaitFlag("work")
    execution = follow("1:")
    execution.spawn(flag.wait(), "ksgxd", daemon=True)
    execution.run()
    execution.spawn(flag.wait(), "T")
    with pytest.raises(Deadlock, match=r"a 'ksgxd' \(daemon\) waits for wait 'work'"):
        execution.run()
