"""Which threads wait while more compute inside than there are processors."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from softsgx.runner.host import ptrace as p
from softsgx.runner.native import parking as native_parking
from softsgx.runner.native.parking import Parking
from softsgx.runner.native.state import Inside


class Lot:
    """A parking with two processors, its threads by name, and a clock that stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = 0
        self.served = False
        self.ready: list[str] = []
        self.now = 0.0
        self.signals: set[str] = set()
        self.parking = Parking(lambda: (self.running, self.served), self._go)
        self.parking.processors = 2
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(native_parking, "signal_pending", lambda t: t.name in self.signals)

    def _go(self, state: Any) -> None:
        self.ready.append(state.t.name)

    def park(self, name: str) -> Any:
        state: Any = SimpleNamespace(t=SimpleNamespace(name=name), turn=0)
        self.parking.park(state)
        return state

    def gone_on(self) -> list[str]:
        ready, self.ready = self.ready, []
        return ready


@pytest.fixture
def lot(monkeypatch: pytest.MonkeyPatch) -> Lot:
    return Lot(monkeypatch)


def test_no_thread_waits_while_a_processor_is_free(lot: Lot) -> None:
    lot.running = 1
    lot.park("a")
    assert lot.gone_on() == ["a"]
    assert not lot.parking


def test_the_thread_parked_first_goes_on_when_another_is_parked(lot: Lot) -> None:
    lot.running = 2
    lot.park("a")
    lot.park("b")
    assert lot.gone_on() == []
    lot.running = 1  # "c" was just interrupted, at the end of its turn
    c: Any = SimpleNamespace(t=SimpleNamespace(name="c"), turn=10)
    lot.parking.park(c)
    assert lot.gone_on() == ["a"]
    assert len(lot.parking) == 2


def test_a_processor_is_left_to_threads_that_have_stops(lot: Lot) -> None:
    """Two spinners on two processors: supervisor and holder of the lock waited for both."""
    lot.running, lot.served = 1, True
    lot.park("a")
    assert lot.gone_on() == []
    lot.served = False
    lot.parking.fill()
    assert lot.gone_on() == ["a"]
    lot.running, lot.served, lot.parking.processors = 0, True, 1
    lot.park("b")
    assert lot.gone_on() == ["b"]  # but never none


def test_free_processors_are_filled_in_order(lot: Lot) -> None:
    lot.running = 2
    for name in "abc":
        lot.park(name)
    lot.running = 0
    lot.parking.rung()
    assert lot.gone_on() == ["a", "b"]


def test_no_thread_waits_for_ever(lot: Lot) -> None:
    """Threads that are never interrupted may keep all processors."""
    lot.running = 2
    lot.park("a")
    lot.now = 0.9
    lot.parking.rung()
    assert lot.gone_on() == []
    lot.now = 1.0
    lot.parking.rung()
    assert lot.gone_on() == ["a"]


def test_a_turn_is_longer_than_one_tick(lot: Lot) -> None:
    """To interrupt and park a thread at each tick would cost more than it gives to others."""
    lot.running = 2
    lot.park("a")
    lot.running = 1
    t = lot.park("b")
    assert lot.gone_on() == ["b"]
    for _ in range(3):
        lot.parking.park(t)
        assert lot.gone_on() == ["b"]
    lot.parking.park(t)
    assert lot.gone_on() == ["a"]
    assert t.turn == 0


def test_a_thread_that_computes_alone_for_hours_is_never_parked(lot: Lot) -> None:
    """The number of ticks was an exponent: a computation of 20 s ended with a traceback."""
    t = lot.park("a")
    for _ in range(3000):
        lot.parking.park(t)
    assert set(lot.gone_on()) == {"a"}
    assert not lot.parking


def test_a_thread_with_a_signal_goes_on(lot: Lot) -> None:
    lot.running = 2
    for name in "abcdef":
        lot.park(name)
    lot.signals = {"f"}
    lot.parking.rung()  # four are looked at each time
    assert lot.gone_on() == []
    lot.parking.rung()
    assert lot.gone_on() == ["f"]


def test_the_dead_are_forgotten(lot: Lot) -> None:
    lot.running = 2
    a, _ = lot.park("a"), lot.park("b")
    lot.parking.forget(a)
    lot.running = 0
    lot.parking.fill()
    assert lot.gone_on() == ["b"]


def test_a_parked_thread_that_is_gone_goes_on_to_its_end(
    lot: Lot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc has it no more: the whole run ended with that error."""

    def gone(t: Any) -> bool:
        raise FileNotFoundError

    lot.running = 2
    lot.park("a")
    monkeypatch.setattr(native_parking, "signal_pending", gone)
    lot.parking.rung()
    assert lot.gone_on() == ["a"]


def test_who_spins_is_found_in_the_same_place_again() -> None:
    """Whoever has just got the lock was parked with it, for a second."""
    thread: Any = None
    state = Inside(thread, 0, lambda state: None)
    rip = state.user = [0] * 32
    rip[p.RIP] = 0x1000
    assert not state.goes_round()
    rip[p.RIP] = 0x1010
    assert state.goes_round()
    rip[p.RIP] = 0x5000  # behind the lock
    assert not state.goes_round()
    state.served_once()
    rip[p.RIP] = 0x1000
    assert not state.goes_round()
