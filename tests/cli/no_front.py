"""`main(["run", ...])` in the process of the test: what it refuses, before a program is started."""

from __future__ import annotations

import pytest

from softsgx.cli.run import start
from softsgx.runner.host import front, inherited
from softsgx.runner.host.debugged import Place


def no_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be the supervisor, as nobody could tell its signals from a front's."""
    monkeypatch.setattr(start, "in_front", _alone)


def _alone(work: front.Work, place: Place | None = None) -> int:
    to_front = front.ToFront()
    to_front.place = place
    return work(inherited.inherited(), to_front)
