"""The log of events."""

from collections.abc import Callable
from typing import Any, NamedTuple

from softsgx.sim import Event, Log


class Ping(NamedTuple):
    """An event."""

    number: int


def test_it_is_on_only_while_someone_listens() -> None:
    log = Log()
    assert not log.on
    first = log.subscribe(lambda event: None)
    second = log.subscribe(lambda event: None)
    first()
    assert log.on
    second()
    assert not log.on


def test_events_are_numbered_from_one() -> None:
    log = Log()
    numbers = []
    log.subscribe(lambda event: numbers.append(log.seq))
    for number in range(3):
        log.emit(Ping(number))
    assert numbers == [1, 2, 3]


def test_a_function_subscribed_twice_is_taken_back_once() -> None:
    log, heard = Log(), list[Event]()
    twice = [log.subscribe(heard.append) for _ in range(2)]
    twice[0]()
    twice[0]()
    log.emit(Ping(0))
    assert heard == [Ping(0)]


def test_a_listener_may_leave_while_it_listens() -> None:
    log, heard = Log(), list[Event]()

    def once(event: Event) -> None:
        heard.append(event)
        leave()

    leave = log.subscribe(once)
    log.subscribe(heard.append)
    log.emit(Ping(0))
    log.emit(Ping(1))
    assert heard == [Ping(0), Ping(0), Ping(1)]


class Pong(NamedTuple):
    """Another event."""

    number: int


def test_a_subscriber_to_types_gets_these_in_order_of_subscription() -> None:
    """The order is that of subscription, whatever the types; the number counts all events."""
    log, heard = Log(), list[tuple[str, int, int]]()

    def hear(name: str) -> Callable[[Any], None]:
        return lambda event: heard.append((name, event.number, log.seq))

    first = log.subscribe_to({Ping: hear("first")})
    log.emit(Ping(0))
    log.subscribe(hear("all"))
    last = log.subscribe_to({Pong: hear("last"), Ping: hear("last")})
    log.emit(Pong(1))
    log.emit(Ping(2))
    first()
    last()
    log.emit(Ping(3))
    assert heard == [
        *(("first", 0, 1), ("all", 1, 2), ("last", 1, 2)),
        *(("first", 2, 3), ("all", 2, 3), ("last", 2, 3), ("all", 3, 4)),
    ]


def test_record_collects_within_its_block() -> None:
    log = Log()
    with log.record() as events:
        log.emit(Ping(0))
    assert not log.on
    log.emit(Ping(1))
    assert events == [Ping(0)]
