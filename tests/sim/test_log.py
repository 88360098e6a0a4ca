"""The log of events."""

from typing import NamedTuple

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


def test_record_collects_within_its_block() -> None:
    log = Log()
    with log.record() as events:
        log.emit(Ping(0))
    assert not log.on
    log.emit(Ping(1))
    assert events == [Ping(0)]
