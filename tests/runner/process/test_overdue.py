"""A thread that prevents its own report is found; one that cannot report now is waited for.

The story: a program blocked the supervisor's signal by a system call instruction of the stub, and
the supervisor, which waited for the thread to stop, served nobody any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from softsgx.runner.process import overdue
from softsgx.runner.process.overdue import Overdue

TICKS = os.sysconf("SC_CLK_TCK")


def looks(monkeypatch: pytest.MonkeyPatch, seen: Iterator[tuple[str, float]]) -> list[bool]:
    """What each look says, by the state of the thread and the seconds that it has run."""
    found = []
    late = Overdue(1)
    for state, ran_s in seen:
        fields = [state, *["0"] * 10, str(int(ran_s * TICKS)), "0"]
        monkeypatch.setattr(overdue, "stat_fields", lambda _tid, fields=fields: fields)
        found.append(late.look())
    return found


def test_one_that_sleeps_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = looks(monkeypatch, (("S", 1.0) for _ in range(100)))
    assert not any(found[:40])
    assert all(found[40:])


def test_one_that_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = looks(monkeypatch, (("R", 100 + n) for n in range(6)))
    assert found == [False, False, True, True, True, True]


@pytest.mark.parametrize("state", ["T", "t", "D", "R"])
def test_one_that_gets_no_processor_or_no_signal(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(looks(monkeypatch, ((state, 1.0) for _ in range(200))))


def test_one_that_wakes_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = (("R" if n % 30 == 0 else "S", 1.0) for n in range(200))
    assert not any(looks(monkeypatch, seen))


def test_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "stat_fields", lambda _tid: [])
    assert not Overdue(1).look()
