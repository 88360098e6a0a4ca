"""The processor time of slices: short ones by the time of day, long ones as the kernel counts."""

from __future__ import annotations

import time

import pytest

from softsgx.runner.emulator.slice_clock import SliceClock


class Machine:
    """A thread that runs, or waits for the processor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.used, self.looks = 1000.0, 5.0, 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "thread_time", self._look)

    def _look(self) -> float:
        self.looks += 1
        return self.used

    def runs(self, seconds: float, waits: float = 0.0) -> None:
        """It runs, and waits as well."""
        self.now += seconds + waits
        self.used += seconds


def test_short_slices_do_not_ask_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, clock = Machine(monkeypatch), SliceClock()
    for _ in range(20):
        clock.begin()
        machine.runs(20e-6)
        assert clock.end() == pytest.approx(20e-6)
    assert machine.looks == 1


def test_a_long_slice_counts_what_was_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, clock = Machine(monkeypatch), SliceClock()
    for waits in (0.0, 2.0, 0.0):
        clock.begin()
        machine.runs(4e-3, waits)
        assert clock.end() == pytest.approx(4e-3)


def test_a_preempted_slice_counts_little_of_what_was_executed_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten seconds of the supervisor's own work are not the program's."""
    machine, clock = Machine(monkeypatch), SliceClock()
    clock.begin()
    machine.runs(20e-6)
    clock.end()
    machine.runs(10.0)
    clock.begin()
    machine.runs(20e-6, 5.0)
    assert clock.end() < 2e-3
