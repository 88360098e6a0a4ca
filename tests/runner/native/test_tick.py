"""How a thread inside gets its timer tick."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from softsgx.runner.host import ptrace as p
from softsgx.runner.native import tick as native_tick
from softsgx.runner.native.state import Inside
from softsgx.runner.native.tick import NativeTick
from softsgx.runner.process import overdue
from softsgx.runner.process.overdue import Overdue
from softsgx.runner.process.tick import TIMER_VECTOR, Tick

TID = 7


class Asked:
    """A thread that is not traced: what is asked of it."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.killed = False

    def senseless(self) -> ProcessLookupError:
        self.killed = True
        return ProcessLookupError()

    def request(self, what: int, data: int) -> int:
        self.requests.append(what)
        return 0


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A thread that computes inside, and the ticks of its logical processor."""
    monkeypatch.setattr(native_tick, "processor_time", lambda tid: 1.0)
    interrupts: list[int] = []
    lp = SimpleNamespace(interrupt=interrupts.append, interrupts=interrupts)
    t = SimpleNamespace(tid=TID, lp=lp)
    return SimpleNamespace(
        t=t, running=True, ticked=0.0, stops=0, stops_at_tick=0, turn=0, asked=None
    )


def tick() -> NativeTick:
    doorbell: Any = SimpleNamespace(came=lambda number: True, ring_every=lambda period: None)
    armed: Any = SimpleNamespace(look=lambda t: None, threads={})
    ticks = NativeTick(Tick(250), doorbell, armed, lambda state: None)
    ticks.start()
    return ticks


def test_the_supervisor_does_not_wait_for_a_thread_that_has_no_processor(
    thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fifty threads on two processors it waited, at each tick, until all had had a turn."""
    held = Asked()
    monkeypatch.setitem(p.HELD, TID, held)
    ticks = tick()
    ticks.add(thread)
    ticks.rung()
    assert held.requests == [p.PTRACE_INTERRUPT]
    assert thread.asked is not None
    assert thread.t.lp.interrupts == []  # it takes the tick when it reports


def test_a_thread_that_runs_on_without_stopping_is_found(
    thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it any more, so nobody noticed that it cannot be interrupted."""
    held = Asked()
    monkeypatch.setitem(p.HELD, TID, held)
    monkeypatch.setattr(Overdue, "look", lambda _: True)
    ticks = tick()
    ticks.add(thread)
    ticks.rung()
    assert (held.killed, held.requests) == (True, [])


def test_a_thread_that_has_other_stops_is_not_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gramine's rwlock was killed: in a second of page faults no report was that of its tick."""
    seconds = iter(range(100))
    ran = lambda _: ["R", *"0" * 10, str(next(seconds) * 70), "0"]  # noqa: E731 - 0.7 s a look
    monkeypatch.setattr(overdue, "stat_fields", ran)
    state = Inside.__new__(Inside)
    state.stops, state.quiet, state.places = 0, False, set()
    state.asked = Overdue(TID)
    for _ in range(5):
        assert not state.asked.look()
        state.served_once()
    assert [state.asked.look() for _ in range(3)] == [False, False, True]


def test_a_traced_thread_is_stopped_for_its_tick(thread: Any) -> None:
    ticks = tick()
    ticks.add(thread)
    ticks.rung()
    assert thread.t.lp.interrupts == [TIMER_VECTOR]
    assert thread.asked is None
