"""The same schedule is the same execution, whatever the program."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import event, given
from hypothesis import strategies as st

from softsgx.sim import (
    Counter,
    Deadlock,
    Execution,
    Follow,
    Mutex,
    RwLock,
    Scheduler,
    Srcu,
    Steps,
    Task,
    VirtualTime,
    WaitFlag,
    decode,
    ipi,
)
from tests.sim.builders import Cpu, at

ACTIONS = (
    "step mutex try read write set wait get put zero srcu sync ipi draw spawn".split()
)  # fmt: skip
PROGRAMS = st.lists(st.lists(st.sampled_from(ACTIONS), max_size=5), min_size=1, max_size=4)


class Shared:
    """All that the tasks of one program touch."""

    def __init__(self) -> None:
        self.mutex = Mutex("mutex")
        self.rw = RwLock("rw")
        self.flag = WaitFlag("flag")
        self.count = Counter("count")
        self.srcu = Srcu("srcu")
        self.cpus = [Cpu(0), Cpu(1), Cpu(2)]
        self.value = 0

    def act(self, action: str) -> Steps[None]:
        match action:
            case "mutex":
                with (yield from self.mutex.acquire()):
                    yield from self.increment()
            case "try":
                if (yield from self.mutex.trylock()):
                    yield from self.increment()
                    self.mutex.release()
            case "read":
                with (yield from self.rw.acquire_read()):
                    yield at("read")
            case "write":
                with (yield from self.rw.acquire_write()):
                    yield from self.increment()
            case "wait":
                yield from self.flag.wait()
            case "zero":
                yield from self.count.wait_zero()
            case "srcu":
                with (yield from self.srcu.read_lock()):
                    yield at("read")
            case "sync":
                yield from self.srcu.synchronize()
            case "ipi":
                yield from ipi(self.cpus, lambda cpu: cpu.take())
            case _:
                yield from self.at_once(action)

    def at_once(self, action: str) -> Steps[None]:
        me = yield at(action)
        match action:
            case "set":
                self.flag.set()
            case "get":
                self.count.get()
            case "put":
                if not self.count.idle:
                    self.count.put()
            case "draw":
                self.value += me.execution.draw(3, "draw")
            case "spawn":
                me.execution.spawn(self.increment(), f"child of {me.name}")

    def increment(self) -> Steps[None]:
        """Loses updates under some schedules: the trace must show the same ones."""
        before = self.value
        yield at("increment")
        self.value = before + 1


class Dice:
    """Chooses by a list of numbers, then by a rule that switches often."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = list(numbers)
        self.count = 0

    def begin(self) -> bool:
        return True

    def next(self, n: int) -> int:
        self.count += 1
        return (self.numbers.pop() if self.numbers else self.count) % n

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        return enabled[self.next(len(enabled))]

    def draw(self, n: int, what: str) -> int:
        return self.next(n)


class Outcome(NamedTuple):
    """All that can be observed of an execution."""

    schedule: str
    trace: list[str]
    results: list[object]
    value: int
    deadlock: str


def execute(program: Sequence[Sequence[str]], scheduler: Scheduler) -> Outcome:
    shared = Shared()

    def body(actions: Sequence[str]) -> Steps[int]:
        yield at("begin")
        for action in actions:
            yield from shared.act(action)
        return shared.value

    execution = Execution(scheduler, max_steps=10_000)
    deadlock = ""
    with execution.log.record() as events:
        tasks = [
            execution.spawn(body(actions), f"T{number}", number % 3)
            for number, actions in enumerate(program)
        ]
        try:
            execution.run()
        except Deadlock as found:
            deadlock = str(found)
    assert shared.mutex.idle
    assert shared.rw.idle
    assert shared.srcu.idle
    trace = [repr(event) for event in events]
    results = [task.result for task in tasks]
    return Outcome(execution.schedule, trace, results, shared.value, deadlock)


@given(PROGRAMS, st.lists(st.integers(0, 11)))
def test_the_schedule_string_repeats_the_execution(
    program: list[list[str]], numbers: list[int]
) -> None:
    first = execute(program, Dice(numbers))
    event("deadlock" if first.deadlock else "ended")
    follow = Follow(first.schedule, complete=False)
    assert execute(program, follow) == first
    assert not follow.rest


@given(PROGRAMS, st.lists(st.integers(0, 11)), st.integers(0, 20))
def test_a_prefix_of_a_schedule_can_be_followed(
    program: list[list[str]], numbers: list[int], length: int
) -> None:
    choices = decode(execute(program, Dice(numbers)).schedule)
    second = execute(program, Follow(choices[:length]))
    assert decode(second.schedule)[:length] == choices[:length]
    assert execute(program, Follow(second.schedule, complete=False)) == second


@given(PROGRAMS, st.lists(st.integers(0, 300), min_size=3, max_size=3))
def test_virtual_time_is_repeated_too(program: list[list[str]], prices: list[int]) -> None:
    time = VirtualTime(dict(zip(["lock", "ipi", "irq"], prices, strict=True)), default=10)
    first = execute(program, time)
    assert execute(program, Follow(first.schedule, complete=False)) == first


def test_no_address_gets_into_a_trace() -> None:
    outcome = execute([ACTIONS, ["set"], ["set", "put"]], Dice([]))
    assert not any(" at 0x" in line for line in outcome.trace)
