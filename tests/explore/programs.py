"""Small random programs with known conflicts, and the states that they can end in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from softsgx.explore.execute import execute_next
from softsgx.explore.failure import Kind
from softsgx.explore.strategies import Bounded, Dpor, Strategy
from softsgx.sim import Execution, Rng
from tests.explore.bodies import Bodies
from tests.explore.operations import OPERATIONS, Actor, Ops, State


class Program(NamedTuple):
    """Operations by task; the tasks from `daemons` on are daemons.

    cpus     the processors of the tasks, None for those beyond
    child    what spawned tasks do
    handler  what handlers of interrupts do
    """

    tasks: tuple[Ops, ...]
    daemons: int = 99
    cpus: tuple[int | None, ...] = ()
    child: Ops = (("read", 0), ("write", 0))
    handler: Ops = ()


class Run(Bodies):
    """A program as a scenario; its final state is everything that a task can observe."""

    max_steps = 60
    file = __file__

    def __init__(self, program: Program) -> None:
        super().__init__(State)
        self.program = program

    def start(self, execution: Execution) -> None:
        program = self.program
        self.shared = State(program.child, program.handler)
        for number, ops in enumerate(program.tasks):
            name = chr(ord("a") + number)
            cpu = program.cpus[number] if number < len(program.cpus) else None
            body = Actor(self.shared, execution, name, cpu).perform(ops)
            execution.spawn(body, name, cpu, daemon=number >= program.daemons)

    def observed(self) -> Any:
        """All that the tasks could observe."""
        return self.shared.observed()

    def world(self) -> Any:
        """For tasks that retry: as much, and how far each has come."""
        return self.observed(), tuple(sorted(self.shared.begun.items()))

    def final(self, stuck: bool) -> Any:
        return stuck, self.observed()


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


THEMES = (
    OPS,
    ("lock", "lock", "trylock", "unlock", "write", "read", "lock twice"),
    ("read lock", "write lock", "try read", "try write", "downgrade", "unlock", "write", "read"),
    ("read again", "read again", "write again", "try read", "try write", "unlock", "write", "lock"),
    ("srcu read", "srcu wait", "unlock", "write", "read", "note", "lock"),
    ("set", "clear", "wait", "complete", "complete all", "await", "write", "read"),
    ("get", "put", "wait zero", "get", "put", "write", "read", "lock"),
    ("sleep", "wake", "write", "note", "lock", "unlock", "set", "wait"),
    ("retry", "retry and write", "retry slowly", "write", "note", "read", "draw"),
    ("spawn", "spawn daemon", "join", "nest", "write", "set", "wait", "retry"),
    ("interrupt", "mask", "write", "read", "interrupt", "wait", "set", "lock"),
    ("violate", "leave", "write", "draw", "lock", "read lock", "spawn", "wait"),
    (),
)
"""Operations that have to do with each other; the last one stands for all that there are."""


def any_program(rng: Rng) -> Program:
    """A small program of operations of one theme, or of any.

    Two tasks of three operations at most, or three of two: most have few schedules.
    """
    ops = rng.choice(THEMES) or tuple(OPERATIONS)

    def some(least: int, most: int, ops: tuple[str, ...] = ops) -> Ops:
        count = least + rng.below(most - least + 1)
        return tuple((rng.choice(ops), rng.below(2)) for _ in range(count))

    tasks = [some(1, 3), some(1, 3)] if rng.below(3) else [some(1, 2), some(1, 2), some(1, 2)]
    cpus: tuple[int | None, ...] = ()
    if "interrupt" in ops:
        cpus = tuple(rng.choice((None, 0, 0, 1)) for _ in tasks)
    flat = tuple(op for op in ops if op not in SPAWNING)
    return Program(
        tuple(tasks),
        len(tasks) - 1 if rng.below(8) == 0 else 99,
        cpus,
        some(1, 2, flat),
        some(0, 2, flat) if rng.below(2) else (),
    )


SPAWNING = ("spawn", "spawn daemon", "join", "nest", "interrupt", "lock twice")
"""What children and handlers do not do."""
