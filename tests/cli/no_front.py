"""`main(["run", ...])` in the process of the test: what it refuses, before a program is started."""

from __future__ import annotations

import pytest

from softsgx.cli.run import start
from softsgx.runner.host import front, inherited


def no_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be the supervisor, as nobody could tell its signals from a front's."""
    monkeypatch.setattr(start, "in_front", _alone)


def _alone(work: front.Work) -> int:
    return work(inherited.inherited(), front.ToFront())
