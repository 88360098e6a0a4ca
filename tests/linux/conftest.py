"""Every refusal in these tests must be explained: a judge listens to every machine they make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from softsgx.system import Machine
from tests.explained.judge import Judge
from tests.explained.unexplained import excused


@pytest.fixture(autouse=True)
def explained(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every refusal that a program of this test saw has an explanation."""
    judges: list[Judge] = []
    made = Machine.__init__

    def make(self: Machine, **options: Any) -> None:
        made(self, **options)
        judges.append(Judge(self))

    monkeypatch.setattr(Machine, "__init__", make)
    yield
    findings = [f for judge in judges for f in judge.findings if not excused(f)]
    assert not findings, "\n".join(str(f) for f in findings[:5])
