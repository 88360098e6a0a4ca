"""Partial-order reduction is exact: it reaches every final state that plain search reaches."""

from __future__ import annotations

import pytest

from softsgx.explore.execute import execute_next
from softsgx.explore.strategies import Dpor
from softsgx.sim import Rng, Steps
from tests.explore.bodies import Bodies
from tests.explore.programs import OPS, Program, plain, random_program, reduced

LOCKS = ("lock", "unlock", "read lock", "write lock", "trylock", "read", "write")
SIGNALS = ("set", "clear", "wait", "complete", "await", "read", "write")
PLAIN_MAX = 4_000  # beyond this, plain depth first search takes too long for a test


@pytest.mark.parametrize("ops", [OPS, LOCKS, SIGNALS], ids=["all", "locks", "signals"])
@pytest.mark.parametrize("block", range(4))
def test_random_programs_end_in_the_same_states(ops: tuple[str, ...], block: int) -> None:
    compared = 0
    for number in range(25):
        program = random_program(Rng(block).stream(f"{ops} {number}"), 3, 4, ops)
        every = plain(program, PLAIN_MAX)
        if every.exhausted:
            some = reduced(program)
            assert some.exhausted
            assert some.states == every.states, program
            assert some.executions <= every.executions + 1
            compared += 1
    assert compared > 10


def steps(*ops: tuple[str, int]) -> tuple[tuple[str, int], ...]:
    return ops


CASES = {
    # Two readers hold the lock; their writes below it race although one has released it before
    # the other has taken it.
    "readers": Program(
        (
            steps(("read lock", 0), ("write", 0)),
            steps(("read lock", 0), ("write", 0)),
            steps(("wait", 0)),
        )
    ),
    # The race is who takes the mutex first; releasing it is no race.
    "mutex": Program(
        (
            steps(("lock", 0), ("write", 0), ("unlock", 0)),
            steps(("lock", 0), ("write", 0), ("unlock", 0)),
        )
    ),
    # The deadlock of two locks taken in two orders.
    "abba": Program(
        (
            steps(("lock", 0), ("wait", 0)),
            steps(("lock", 0), ("set", 0)),
        )
    ),
    "clear before wait": Program((steps(("set", 0), ("clear", 0)), steps(("wait", 0)))),
    "daemon": Program((steps(("read", 0), ("read", 0)), steps(("read", 1), ("write", 0))), 1),
    # The last step of the last task enables the daemon.
    "late daemon": Program(
        (steps(("write", 0), ("read", 1)), steps(("set", 0)), steps(("wait", 0), ("read", 1))), 2
    ),
    "draws": Program((steps(("draw", 0)), steps(("draw", 0), ("read", 1)))),
    # The second execution is cut because all tasks sleep; a task blocked there still has its race.
    "cut": Program(
        (
            steps(("write", 1)),
            steps(("await", 0), ("write", 1)),
            steps(("complete", 0), ("await", 0)),
        )
    ),
    # A writer that waits refuses the reader that reads again: coming to the lock is what disables
    # it. Exhaustive search was complete after 2 executions, without the deadlock.
    "read again": Program(
        (steps(("read again", 0), ("read again", 0)), steps(("read", 0), ("write again", 0)))
    ),
    "a child that waits to write": Program(
        (steps(("read again", 0), ("read again", 0)), steps(("spawn", 0))),
        child=(("write again", 0),),
    ),
    # An interrupt to the sender's own processor keeps the other task off it, which then cannot set
    # the flag that the handler waits for.
    "own interrupt": Program(
        (steps(("interrupt", 0)), steps(("set", 0))),
        cpus=(0, 0),
        handler=(("read", 0), ("wait", 0)),
    ),
    # The end of a task by TaskExit was no end for the daemon.
    "left, and a daemon": Program(
        (steps(("leave", 1)), steps(("write", 1), ("interrupt", 0), ("draw", 0))), 1, (1, 0)
    ),
    "children": Program((steps(("spawn", 1)), steps(("spawn", 0), ("write", 0)))),
}


@pytest.mark.parametrize("name", CASES)
def test_case_ends_in_the_same_states(name: str) -> None:
    every, some = plain(CASES[name]), reduced(CASES[name])
    assert every.exhausted
    assert some.exhausted
    assert some.states == every.states


def test_independent_tasks_need_one_execution() -> None:
    def body(which: int) -> Steps[None]:
        for _ in range(5):
            yield ("write", which, True)

    scenario = Bodies(lambda: None, *[lambda _s, which=which: body(which) for which in range(4)])
    strategy = Dpor(scenario)
    executions = 0
    while strategy.begin():
        executions += execute_next(scenario, strategy) is not None
    assert executions == 1


def test_readers_of_one_object_need_one_execution() -> None:
    def body() -> Steps[None]:
        for _ in range(3):
            yield ("read", "x", False)

    scenario = Bodies(lambda: None, lambda _s: body(), lambda _s: body())
    strategy = Dpor(scenario)
    executions = 0
    while strategy.begin():
        executions += execute_next(scenario, strategy) is not None
    assert executions == 1
