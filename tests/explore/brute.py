"""Every schedule of a program, one after the other: what the strategies are judged by.

Naive on purpose, and by itself: it has no code of `softsgx.explore`. It tries every choice at every
point. Only a task that spins is left out: one at a RETRY point that has retried before when
everything was as it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from softsgx.sim import RETRY, Deadlock, Execution, Task


class Observed(Protocol):
    """A scenario whose state can be compared."""

    def start(self, execution: Execution) -> None:
        """Spawn the tasks."""

    def check(self, execution: Execution) -> None:
        """Raise if the end is wrong."""

    def observed(self) -> Any:
        """All that tasks could observe."""

    def world(self) -> Any:
        """What decides whether a task that retries sees something else."""


ENDED = "ended"
DEADLOCK = "deadlock"
LIVELOCK = "livelock"


class Ending(NamedTuple):
    """How a schedule ends.

    choices      as in the schedule string
    preemptions  how many tasks, and interrupts, were kept waiting though they could go on
    how          ENDED, DEADLOCK, LIVELOCK or the name of the exception
    state        what the tasks have seen, and what is left; None after an exception
    retried      whether a task retried: a strategy may leave out a round in vain
    """

    choices: tuple[int, ...]
    preemptions: int
    how: str
    state: Any
    retried: bool = False

    @property
    def end(self) -> tuple[str, Any]:
        """How it ends, and in which state."""
        return self.how, self.state


class Livelock(Exception):
    """All tasks that could go on spin."""


class Chooser:
    """A scheduler whose every choice is a digit; the next execution is the next number."""

    def __init__(self, run: Observed) -> None:
        self.run = run
        self.digits: list[int] = []
        self.sizes: list[int] = []
        self.restart()

    def restart(self) -> None:
        """Before an execution."""
        self.at = 0
        self.preemptions = 0
        self.retried: set[Any] = set()

    def advance(self) -> bool:
        """The next number, digits that cannot grow are dropped; False after the last one."""
        while self.digits:
            self.digits[-1] += 1
            if self.digits[-1] < self.sizes[-1]:
                return True
            self.digits.pop()
            self.sizes.pop()
        return False

    def digit(self, size: int) -> int:
        """The next choice among so many."""
        if self.at == len(self.digits):
            self.digits.append(0)
            self.sizes.append(size)
        assert self.sizes[self.at] == size, "the program is not deterministic"
        self.at += 1
        return self.digits[self.at - 1]

    def begin(self) -> bool:
        """Part of the interface of schedulers."""
        return True

    def draw(self, n: int, what: str) -> int:
        """Each value is a choice."""
        return self.digit(n)

    def choose(self, enabled: Sequence[Task], current: Task | None) -> Task:
        """Each enabled task that does not spin is a choice."""
        world = self.world(enabled) if any(t.point[0] == RETRY for t in enabled) else None
        awake = [t for t in enabled if t.point[0] != RETRY or (t.index, world) not in self.retried]
        if not awake:
            raise Livelock
        task = awake[self.digit(len(awake))] if len(awake) > 1 else awake[0]
        if current is not None and current.point[0] != RETRY:
            self.preemptions += task is not current
        else:
            self.preemptions += any(t.interrupt for t in enabled) and not task.interrupt
        if task.point[0] == RETRY:
            self.retried.add((task.index, world))
        return task

    def world(self, enabled: Sequence[Task]) -> Any:
        """Where all tasks are, and what they could see."""
        live = [(task.index, *task.point[:2]) for task in enabled[0].execution.tasks]
        return self.run.world(), tuple(live)


def endings(run: Observed, limit: int) -> list[Ending] | None:
    """Every schedule of a program; None if there are more than `limit`."""
    chooser = Chooser(run)
    found: list[Ending] = []
    more = True
    while more:
        if len(found) == limit:
            return None
        chooser.restart()
        execution = Execution(chooser)
        try:
            run.start(execution)
            execution.run()
            execution.close()
            run.check(execution)
            how = ENDED
        except Deadlock:
            how = DEADLOCK
        except Livelock:
            how = LIVELOCK
        except Exception as exception:
            how = f"{type(exception).__name__} {getattr(exception, 'rule', '')}"
        execution.close()
        state = run.observed() if how in (ENDED, DEADLOCK) else None
        choices, retried = tuple(execution.choices), bool(chooser.retried)
        found.append(Ending(choices, chooser.preemptions, how, state, retried))
        more = chooser.advance()
    return found
