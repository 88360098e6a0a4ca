"""Things to wait for: flag, completion, counter, wait queue.

Waiting is one blocking point; signalling is not a point but part of the current step. A signal that
comes before the wait is remembered by all of them except WaitQueue, as in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from softsgx.sim.point import WAIT, Point, Steps
from softsgx.sim.task import Task
from softsgx.sim.touch import ENABLE, READ, touch


class WaitFlag:
    """Wait until it is set. Stays set until cleared."""

    __slots__ = ("name", "is_set", "_point")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_set = False
        self._point: Point = (WAIT, self, False)

    def __repr__(self) -> str:
        return f"WaitFlag({self.name!r})"

    def set(self) -> None:
        """Enable all waiters."""
        touch(self, READ if self.is_set else ENABLE)
        self.is_set = True

    def clear(self) -> None:
        """From now on waiters wait for the next set()."""
        self.is_set = False
        touch(self)

    def wait(self) -> Steps[None]:
        """Wait until it is set."""
        yield self._point

    def ready(self, task: Task, /) -> bool:
        """Whether it is set."""
        return self.is_set

    def holders(self) -> Sequence[Task]:
        """Unknown: any task may set it."""
        return ()


class Completion:
    """The kernel's completion: complete() lets one waiter through, complete_all() all for good."""

    __slots__ = ("name", "_done", "_all", "_point")

    def __init__(self, name: str) -> None:
        self.name = name
        self._done = 0
        self._all = False
        # Waiters use up each other's complete(), so their order matters: the point writes.
        self._point: Point = (WAIT, self, True)

    def __repr__(self) -> str:
        return f"Completion({self.name!r})"

    def complete(self) -> None:
        """Let one waiter through, now or later."""
        self._done += 1
        touch(self)

    def complete_all(self) -> None:
        """Let every waiter through from now on."""
        self._all = True
        touch(self)

    def wait(self) -> Steps[None]:
        """Wait for a complete() that no other waiter has used, or for complete_all()."""
        yield self._point
        if not self._all:
            self._done -= 1

    def ready(self, task: Task, /) -> bool:
        """Whether a waiter could be let through."""
        return self._all or self._done > 0

    def holders(self) -> Sequence[Task]:
        """Unknown: any task may complete it."""
        return ()


class Counter:
    """A count of users, like a kref. A task can wait until it is zero."""

    __slots__ = ("name", "value", "_point")

    def __init__(self, name: str, value: int = 0) -> None:
        self.name = name
        self.value = value
        self._point: Point = (WAIT, self, False)

    def __repr__(self) -> str:
        return f"Counter({self.name!r})"

    def get(self) -> None:
        """Add a user."""
        self.value += 1
        touch(self)

    def put(self) -> bool:
        """Drop a user; return whether it was the last."""
        assert self.value > 0, f"put of {self.name!r}, which is at {self.value}"
        self.value -= 1
        touch(self)
        return self.value == 0

    def wait_zero(self) -> Steps[None]:
        """Wait until there is no user."""
        yield self._point

    @property
    def idle(self) -> bool:
        """Whether there is no user."""
        return self.value == 0

    def ready(self, task: Task, /) -> bool:
        """Whether there is no user."""
        return self.value == 0

    def holders(self) -> Sequence[Task]:
        """Unknown: the count does not say who the users are."""
        return ()


class WaitQueue:
    """The kernel's wait queue: sleepers test their condition again only when woken.

    A condition that becomes true without wake_up() leaves them asleep, as on the real machine;
    testing it before every step would hide that bug.
    """

    __slots__ = ("name", "_sleepers")

    def __init__(self, name: str) -> None:
        self.name = name
        self._sleepers: list[_Sleeper] = []

    def __repr__(self) -> str:
        return f"WaitQueue({self.name!r})"

    def wait_event(self, condition: Callable[[], bool]) -> Steps[None]:
        """Sleep until the condition holds. No point if it holds already.

        Testing and falling asleep are one step: the kernel queues the task before it tests, so a
        wake_up() in between is not lost.
        """
        touch(self)
        while not condition():
            sleeper = _Sleeper(self)
            self._sleepers.append(sleeper)
            try:
                yield (WAIT, sleeper, False)
            finally:
                # Still there only if the task is unwound in its sleep.
                if sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)
            touch(self)

    def wake_up(self) -> None:
        """Let every sleeper test its condition again."""
        touch(self)
        for sleeper in self._sleepers:
            sleeper.woken = True
        self._sleepers.clear()

    @property
    def idle(self) -> bool:
        """Whether there is no sleeper."""
        return not self._sleepers


class _Sleeper:
    """One sleep of one task."""

    __slots__ = ("depends", "name", "woken")

    def __init__(self, queue: WaitQueue) -> None:
        self.name = queue.name
        self.depends = (queue,)
        self.woken = False

    def __repr__(self) -> str:
        return f"Sleeper({self.name!r})"

    def ready(self, task: Task, /) -> bool:
        return self.woken

    def holders(self) -> Sequence[Task]:
        return ()
