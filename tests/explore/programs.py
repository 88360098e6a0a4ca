"""Small random programs with known conflicts, and the states that they can end in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from softsgx.explore.execute import execute_next
from softsgx.explore.failure import Kind
from softsgx.explore.strategies import Bounded, Dpor, Strategy
from softsgx.sim import Completion, Execution, Mutex, Rng, RwLock, Steps, Task, WaitFlag
from tests.explore.bodies import Bodies

Op = tuple[str, int]
"""An operation and the variable, lock or flag that it is about."""


class Program(NamedTuple):
    """Operations by task; the tasks from `daemons` on are daemons."""

    tasks: tuple[tuple[Op, ...], ...]
    daemons: int = 99


class State:
    """Two variables, a mutex, a reader-writer lock, two flags, a completion."""

    def __init__(self) -> None:
        self.values = [0, 0]
        self.mutex = Mutex("m")
        self.rw = RwLock("rw")
        self.flags = [WaitFlag("f0"), WaitFlag("f1")]
        self.done = Completion("c")
        self.seen: dict[str, list[int]] = {}


def body(state: State, execution: Execution, name: str, ops: tuple[Op, ...]) -> Steps[None]:
    """Execute operations; every read is recorded, every write depends on the old value."""
    seen = state.seen.setdefault(name, [])
    number = ord(name[0]) - ord("a") + 1
    held: list[Callable[[], None]] = []
    for place, (op, which) in enumerate(ops):
        if op == "read":
            yield ("read", ("v", which), False)
            seen.append(state.values[which])
        elif op == "write":
            yield ("write", ("v", which), True)
            state.values[which] = state.values[which] * 7 + number
        elif op == "lock" and not held:
            yield from state.mutex.acquire()
            held.append(state.mutex.release)
        elif op == "read lock" and not held:
            yield from state.rw.acquire_read()
            held.append(state.rw.release_read)
        elif op == "write lock" and not held:
            yield from state.rw.acquire_write()
            held.append(state.rw.release_write)
        elif op == "trylock" and not held:
            if (yield from state.mutex.trylock()):
                held.append(state.mutex.release)
            seen.append(len(held))
        elif op == "unlock" and held:
            held.pop()()
        elif op == "set":
            yield ("pause", name, False)
            state.flags[which].set()
        elif op == "clear":
            yield ("pause", name, False)
            state.flags[which].clear()
        elif op == "wait":
            yield from state.flags[which].wait()
            seen.append(-1)
        elif op == "complete":
            yield ("pause", name, False)
            state.done.complete()
        elif op == "await":
            yield from state.done.wait()
        elif op == "draw":
            yield ("draw", ("v", which), True)
            state.values[which] = state.values[which] * 7 + execution.draw(2, "coin")
        elif op == "spawn":
            yield ("spawn", name, False)
            own = f"{name}{place}"
            steps = (("read", which), ("write", which))
            child: Task = execution.spawn(body(state, execution, own, steps), own)
            if which:
                yield from child.join()
    while held:
        held.pop()()


class Run(Bodies):
    """A program as a scenario; its final state is everything that a task can observe."""

    def __init__(self, program: Program) -> None:
        super().__init__(State)
        self.program = program

    def start(self, execution: Execution) -> None:
        self.shared = State()
        for number, ops in enumerate(self.program.tasks):
            name = chr(ord("a") + number)
            daemon = number >= self.program.daemons
            execution.spawn(body(self.shared, execution, name, ops), name, daemon=daemon)

    def final(self, stuck: bool) -> Any:
        state: State = self.shared
        seen = tuple((name, tuple(values)) for name, values in sorted(state.seen.items()))
        flags = tuple(flag.is_set for flag in state.flags)
        return stuck, tuple(state.values), seen, flags


class Ends(NamedTuple):
    """The final states of a search."""

    states: frozenset[Any]
    executions: int
    exhausted: bool


def search(program: Program, strategy: Callable[[Run], Strategy], limit: int = 200_000) -> Ends:
    """All final states that a strategy reaches."""
    run = Run(program)
    chosen = strategy(run)
    states: set[Any] = set()
    executions = 0
    while chosen.begin():
        executions += 1
        if executions > limit:
            return Ends(frozenset(states), executions, False)
        found = execute_next(run, chosen)
        if found is None:
            continue
        assert found.failure is None or found.failure.kind is Kind.DEADLOCK, found.failure
        states.add(run.final(found.failure is not None))
    return Ends(frozenset(states), executions, chosen.exhausted)


def plain(program: Program, limit: int = 200_000) -> Ends:
    """By plain depth first search."""
    return search(program, lambda _run: Bounded(None), limit)


def reduced(program: Program) -> Ends:
    """By partial-order reduction."""
    return search(program, Dpor)


OPS = (
    *("read", "write", "read", "write", "lock", "unlock", "read lock", "write lock", "trylock"),
    *("set", "clear", "wait", "complete", "await", "draw", "spawn"),
)


def random_program(rng: Rng, tasks: int, length: int, ops: tuple[str, ...] = OPS) -> Program:
    """A program of at most so many tasks, each with at most so many operations."""
    count = 2 + rng.below(tasks - 1)
    made = tuple(
        tuple((rng.choice(ops), rng.below(2)) for _ in range(1 + rng.below(length)))
        for _ in range(count)
    )
    daemons = count - 1 if rng.below(4) == 0 and count > 1 else 99
    return Program(made, daemons)
