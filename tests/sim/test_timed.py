"""Unrecorded executions under VirtualTime take the steps of recorded ones, at the same times."""

from typing import Any

import pytest

from softsgx.sim import (
    Completion,
    Deadlock,
    Execution,
    Mutex,
    Rng,
    RwLock,
    StepBound,
    Stepped,
    Steps,
    Task,
    TaskExit,
    Unmodelled,
    VirtualTime,
    WaitFlag,
    WaitQueue,
    ipi,
)
from tests.sim.builders import Cpu, at, points

PRICES = {"lock": 3, "trylock": 2, "work": 100, "step": 7, "ipi": 20, "irq": 60, "wait": 0, "z": 0}
CPUS = 4


class Program:
    """Random tasks over shared locks, flags and processors; `trace` has which task stepped when."""

    def __init__(self, seed: int, record: bool) -> None:
        self.rng = Rng(seed)
        self.time = VirtualTime(PRICES)
        self.execution = Execution(self.time, record=record, max_steps=20_000)
        self.mutexes = [Mutex("m0"), Mutex("m1")]
        self.rw = RwLock("rw")
        self.done = Completion("c")
        self.queue = WaitQueue("q")
        self.flag = WaitFlag("f")
        self.trace: list[tuple[str, int]] = []
        cpus = [Cpu(number) for number in range(CPUS)]
        for number in range(6):
            cpu = self.rng.below(CPUS + 1)
            body = self.body(f"T{number}", self.rng.stream(str(number)), cpus)
            self.execution.spawn(body, f"T{number}", cpu if cpu < CPUS else None)
        self.execution.spawn(self.daemon(), "daemon", 0, daemon=True)

    def daemon(self) -> Steps[None]:
        while True:
            yield from self.queue.wait_event(lambda: self.flag.is_set)
            yield at("work")
            self.flag.clear()

    def note(self, name: str) -> None:
        self.trace.append((name, self.time.elapsed))

    def body(self, name: str, rng: Rng, cpus: list[Cpu]) -> Steps[None]:
        for _ in range(12):
            what = rng.below(10)
            if what == 0:
                with (yield from rng.choice(self.mutexes).acquire()):
                    self.note(name)
                    yield at(rng.choice(["work", "step", "z"]))
            elif what == 1:
                with (yield from self.rw.acquire_read()):
                    yield at("work")
                    self.note(name)
            elif what == 2:
                with (yield from self.rw.acquire_write()):
                    yield at("step")
            elif what == 3:
                targets = [cpu for cpu in cpus if rng.below(2)]
                yield from ipi(targets, rng.choice([Cpu.take, self.handler]))
            elif what == 4:
                self.flag.set()
                self.queue.wake_up()
                yield at("z")
            elif what == 5:
                self.done.complete()
                yield at("step")
                yield from self.done.wait()
            elif what == 6:
                me = yield at("step")
                child = points("step work", None)
                me.execution.spawn(child, "child", rng.below(CPUS))
            elif what == 7:
                mutex = self.mutexes[1]
                if (yield from mutex.trylock()):
                    yield at("work")
                    mutex.release()
            elif what == 8:
                yield from ipi([rng.choice(cpus)], self.take_and_charge)
            else:
                yield at("work")
            self.note(name)

    def take_and_charge(self, cpu: Cpu) -> None:
        self.time.charge(cpu.cpu, "work")

    def handler(self, _cpu: Cpu) -> Steps[None]:
        yield at("step")
        yield at("work")


@pytest.mark.parametrize("seed", range(150))
def test_the_heap_takes_the_steps_that_choose_would(seed: int) -> None:
    programs = [Program(seed, record) for record in (True, False)]
    for program in programs:
        program.execution.run()
    asked, heap = programs
    assert heap.trace == asked.trace
    assert (heap.time.counts, heap.time.clocks) == (asked.time.counts, asked.time.clocks)
    assert (heap.time.elapsed, heap.execution.steps) == (asked.time.elapsed, asked.execution.steps)
    assert not heap.execution.choices


def test_a_second_run_goes_on_where_the_first_ended() -> None:
    def twice(record: bool) -> tuple[int, dict[str, int]]:
        time = VirtualTime(PRICES)
        execution = Execution(time, record=record)
        execution.spawn(points("work work work"), "daemon", 0, daemon=True)
        execution.spawn(points("step"), "first", 0)
        execution.run()
        execution.spawn(points("work step"), "second", 1)
        execution.run()
        return time.elapsed, time.counts

    assert twice(False) == twice(True) == (114, {"step": 2, "work": 2})


def test_errors_are_those_of_a_recorded_execution() -> None:
    mutex = Mutex("m")

    def forgets() -> Steps[None]:
        yield from WaitFlag("never").wait()

    execution = Execution(VirtualTime(PRICES), record=False)
    execution.spawn(forgets(), "T", 0)
    with pytest.raises(Deadlock, match="waits for wait 'never'"):
        execution.run()

    execution = Execution(VirtualTime(PRICES), record=False, max_steps=2)
    execution.spawn(points("z z z"), "T", 0)
    with pytest.raises(StepBound):
        execution.run()

    execution = Execution(VirtualTime(PRICES), record=False)
    execution.spawn(points("nothing"), "T", 0)
    with pytest.raises(Unmodelled, match="no price for points of kind 'nothing'"):
        execution.run()

    execution = Execution(VirtualTime(PRICES), record=False)
    execution.spawn(mutex.acquire(), "T", 0)
    with pytest.raises(AssertionError, match="the task ended holding m"):
        execution.run()


def test_a_price_may_be_a_function_of_the_task() -> None:
    def by_receivers(task: Task) -> int:
        cpus: Any = task.point[1]
        return 5 * len(cpus)

    time = VirtualTime({"ipi": by_receivers, "irq": 1, "wait": 0})
    execution = Execution(time, record=False)
    execution.spawn(ipi([Cpu(1), Cpu(2), Cpu(3)], Cpu.take), "T", 0)
    execution.run()
    assert time.elapsed == 16


def test_a_task_that_exits_ends_no_other() -> None:
    def exits() -> Steps[None]:
        yield at("step")
        raise TaskExit

    def twice(record: bool) -> tuple[int, dict[str, int]]:
        time = VirtualTime(PRICES)
        execution = Execution(time, record=record)
        execution.spawn(exits(), "exits", 0)
        execution.spawn(points("work"), "other", 1)
        execution.run()
        return time.elapsed, time.counts

    assert twice(False) == twice(True) == (100, {"step": 1, "work": 1})


def test_a_listener_gets_every_step() -> None:
    """An unrecorded execution once emitted no step when a log was on."""

    def heard(record: bool) -> list[str]:
        program = Program(1, record)
        steps: list[str] = []
        program.execution.log.subscribe(
            lambda event: steps.append(str(event)) if isinstance(event, Stepped) else None
        )
        program.execution.run()
        return steps

    assert heard(False) == heard(True) != []
