"""The log, and the events of scheduling. Those of a machine are in `softsgx.events`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from softsgx.sim.point import Blocker, Point
    from softsgx.sim.task import Task

Event: TypeAlias = NamedTuple
"""Any NamedTuple class; what a listener is given."""

Listener: TypeAlias = Callable[[Event], None]


class _Subscription:
    """A listener to every event, or one for each type."""

    __slots__ = ("every", "handlers")

    def __init__(self, every: Listener | None, handlers: dict[type, Callable[[Any], None]]) -> None:
        self.every = every
        self.handlers = handlers


class Log:
    """Hands events to its listeners.

    Hot code writes `if log.on: log.emit(Event(...))`, so that nothing is built without a listener.
    `seq` is the number of the last event emitted; the first is 1. While a listener runs, it is the
    number of the event that the listener was given.
    """

    __slots__ = ("on", "seq", "_by_type", "_listeners")

    def __init__(self) -> None:
        self.on = False
        self.seq = 0
        # Replaced, never changed in place: a listener may unsubscribe while events are handed out.
        self._listeners: tuple[_Subscription, ...] = ()
        self._by_type: dict[type, tuple[Listener, ...]] = {}  # made when a type is first emitted

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hand every further event to the listener, until the returned function is called."""
        return self._subscribe(_Subscription(listener, {}))

    def subscribe_to(self, handlers: Mapping[type, Callable[[Any], None]]) -> Callable[[], None]:
        """As `subscribe`, with a function for each type of event; other events cost nothing."""
        return self._subscribe(_Subscription(None, dict(handlers)))

    def _subscribe(self, subscription: _Subscription) -> Callable[[], None]:
        def unsubscribe() -> None:
            self._listeners = tuple(s for s in self._listeners if s is not subscription)
            self._by_type = {}
            self.on = bool(self._listeners)

        self._listeners += (subscription,)
        self._by_type = {}
        self.on = True
        return unsubscribe

    def emit(self, event: Event) -> None:
        """Number the event and hand it to every listener, in the order of subscription."""
        self.seq += 1
        kind = type(event)
        found = self._by_type.get(kind)
        if found is None:
            found = self._listening_to(kind)
        for listener in found:
            listener(event)

    def _listening_to(self, kind: type) -> tuple[Listener, ...]:
        wanted = [s.every or s.handlers.get(kind) for s in self._listeners]
        found = self._by_type[kind] = tuple(f for f in wanted if f is not None)
        return found

    @contextmanager
    def record(self) -> Iterator[list[Event]]:
        """`with log.record() as events:` collects what is emitted in the block."""
        events: list[Event] = []
        unsubscribe = self.subscribe(events.append)
        try:
            yield events
        finally:
            unsubscribe()


class TaskSpawned(NamedTuple):
    """A task was spawned; its code before the first point has not run yet."""

    task: Task


class TaskEnded(NamedTuple):
    """A task ended, by returning or by an exception; see its `result` and `exception`."""

    task: Task


class Stepped(NamedTuple):
    """A task is about to execute this point."""

    task: Task
    point: Point


class Drawn(NamedTuple):
    """A number below n was drawn; `task` is None while no task runs."""

    task: Task | None
    what: str
    n: int
    value: int


class LockTaken(NamedTuple):
    """A lock was taken, for writing or for reading."""

    task: Task
    lock: Blocker
    write: bool


class LockReleased(NamedTuple):
    """A lock was released. Part of the current step, not a point."""

    task: Task
    lock: Blocker
    write: bool


class IpiSent(NamedTuple):
    """An interprocessor interrupt was sent to these processors, ascending."""

    task: Task
    cpus: tuple[int, ...]


class IpiTaken(NamedTuple):
    """A processor takes an interprocessor interrupt; `task` runs the handler."""

    task: Task
    cpu: int
