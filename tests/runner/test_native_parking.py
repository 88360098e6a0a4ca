"""Who waits while more threads compute inside than there are processors."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from softsgx.runner import native_parking
from softsgx.runner.native_parking import Parking


class Lot:
    """A parking with two processors, its threads by name, and a clock that stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = 0
        self.ready: list[str] = []
        self.now = 0.0
        self.signals: set[str] = set()
        self.parking = Parking(lambda: self.running, self._go)
        self.parking.processors = 2
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(native_parking, "signal_waits", lambda t: t.name in self.signals)

    def _go(self, t: Any) -> None:
        self.ready.append(t.name)

    def park(self, name: str, parked: int = 0) -> Any:
        t: Any = SimpleNamespace(name=name, native=SimpleNamespace(parked=parked))
        self.parking.park(t)
        return t

    def gone_on(self) -> list[str]:
        ready, self.ready = self.ready, []
        return ready


@pytest.fixture
def lot(monkeypatch: pytest.MonkeyPatch) -> Lot:
    return Lot(monkeypatch)


def test_nobody_waits_while_a_processor_is_free(lot: Lot) -> None:
    lot.running = 1
    lot.park("a")
    assert lot.gone_on() == ["a"]
    assert not lot.parking


def test_who_was_parked_first_goes_on_when_another_is_parked(lot: Lot) -> None:
    lot.running = 2
    lot.park("a")
    lot.park("b")
    assert lot.gone_on() == []
    lot.running = 1  # "c" was just interrupted
    lot.park("c")
    assert lot.gone_on() == ["a"]
    assert len(lot.parking) == 2


def test_free_processors_are_filled_in_order(lot: Lot) -> None:
    lot.running = 2
    for name in "abc":
        lot.park(name)
    lot.running = 0
    lot.parking.rung()
    assert lot.gone_on() == ["a", "b"]


def test_nobody_waits_for_ever(lot: Lot) -> None:
    """The others may be served all the time, and never be parked themselves."""
    lot.running = 2
    lot.park("a")
    lot.now = 0.04
    lot.parking.rung()
    assert lot.gone_on() == []
    lot.now = 0.06
    lot.parking.rung()
    assert lot.gone_on() == ["a"]


def test_who_keeps_spinning_waits_longer_but_at_most_a_second(lot: Lot) -> None:
    lot.running = 2
    t = lot.park("a", parked=1)
    assert t.native.parked == 2
    lot.now = 0.06
    lot.parking.rung()
    assert lot.gone_on() == []
    lot.park("b", parked=5)
    lot.now = 1.07
    lot.parking.rung()
    assert lot.gone_on() == ["a", "b"]


def test_who_computes_for_hours_is_counted_no_further(lot: Lot) -> None:
    """2**1024 seconds were no float: a computation of 20 s ended with a traceback."""
    t = lot.park("a")
    assert lot.gone_on() == ["a"]
    assert t.native.parked == 0  # nobody else wanted the processor
    lot.running = 2
    for _ in range(2000):
        lot.parking.park(t)
    assert t.native.parked <= 5
    lot.now = 1.01
    lot.parking.rung()
    assert lot.gone_on()


def test_who_has_a_signal_goes_on(lot: Lot) -> None:
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
