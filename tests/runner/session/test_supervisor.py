"""Which supervisor a run takes."""

from __future__ import annotations

import pytest

from softsgx.runner.errors import RunnerError
from softsgx.runner.options import AUTO, PTRACE, SYSTRAP
from softsgx.runner.session import session

WHY = "SECCOMP_ADDFD: not here"


@pytest.mark.parametrize("placed", [False, True])
def test_without_a_refusal_only_who_asks_for_it_is_traced(
    placed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "systrap_refusal", lambda: None)
    assert [session._traced(how, placed) for how in (AUTO, SYSTRAP, PTRACE)] == [False, False, True]


def test_a_refusal_makes_ptrace_of_auto_and_an_error_of_systrap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "systrap_refusal", lambda: WHY)
    assert session._traced(AUTO, placed=False)
    with pytest.raises(RunnerError, match=f"{WHY}; use --supervisor ptrace"):
        session._traced(SYSTRAP, placed=False)


def test_a_program_that_a_debugger_has_started_cannot_be_traced_by_a_second_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "systrap_refusal", lambda: WHY)
    with pytest.raises(RunnerError, match=WHY):
        session._traced(AUTO, placed=True)
