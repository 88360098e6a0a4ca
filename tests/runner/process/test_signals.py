"""Which signals of a supervised thread interrupt a call, and when the driver is told."""

from __future__ import annotations

import os
import signal
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from softsgx.runner.host import ptrace as p
from softsgx.runner.process import interruption
from softsgx.runner.process.interruption import Interruption
from softsgx.runner.process.signals import Due, DueSignals, SignalState, bit

SI_USER, SI_TKILL = 0, -6


@pytest.mark.parametrize(
    ("number", "blocked", "ignored", "caught", "waits"),
    [
        (signal.SIGUSR1, False, False, True, True),
        (signal.SIGTERM, False, False, False, True),  # its default ends the program
        (signal.SIGTSTP, False, False, False, True),
        (signal.SIGUSR1, True, False, True, False),
        (signal.SIGUSR1, False, True, False, False),
        (signal.SIGCHLD, False, False, False, False),  # ignored by default
        (signal.SIGCHLD, False, False, True, True),
        (signal.SIGURG, False, False, False, False),
        (signal.SIGCONT, False, False, False, False),
        (signal.SIGWINCH, False, True, False, False),
    ],
)
def test_a_signal_waits_unless_blocked_or_ignored(
    number: int, blocked: bool, ignored: bool, caught: bool, waits: bool
) -> None:
    one = bit(number)
    state = SignalState(one, blocked * one, ignored * one, caught * one)
    assert bool(state.waiting) is waits


@pytest.fixture
def pending(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A thread for which a signal waits; `looks` counts how often somebody looked."""
    thread = SimpleNamespace(tid=1, interrupted_early=False, looks=0, gone=False)

    def queued(_tid: int) -> bool:
        thread.looks += 1
        if thread.gone:
            raise p.NoSuchTracee(3, "killed")
        return True

    monkeypatch.setattr(p, "signals_queued", queued)
    state = SignalState(bit(signal.SIGALRM), 0, 0, 0)
    monkeypatch.setattr(interruption, "signal_state", lambda _tid: state)
    return thread


def answers(thread: Any, pages: int) -> list[int]:
    asked = Interruption(thread, SimpleNamespace(terminated=False))  # type: ignore[arg-type]
    return [page for page in range(pages) if asked(False)]


def test_the_first_page_is_looked_at_unless_it_was_interrupted_there(
    pending: SimpleNamespace,
) -> None:
    assert answers(pending, 40) == [0, 16, 32]
    pending.interrupted_early = True
    assert answers(pending, 40) == [15, 31]


def test_looks_are_few_and_sigkill_counts(pending: SimpleNamespace) -> None:
    answers(pending, 160)
    assert pending.looks == 10
    pending.gone = True
    assert answers(pending, 1) == [0]


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A thread that is stopped at a signal; `info` is its siginfo, `put` what became of it."""
    thread = SimpleNamespace(due=DueSignals(1), info=b"", put=None)
    monkeypatch.setattr(p, "get_siginfo", lambda _tid: thread.info)
    monkeypatch.setattr(p, "set_siginfo", lambda _tid, info: setattr(thread, "put", info))

    def queue(_pid: int, _tid: int, _number: int, info: bytes) -> None:
        thread.info = info

    monkeypatch.setattr(p, "tgsigqueue", queue)
    return thread


def siginfo_of(code: int, pid: int = 0) -> bytes:
    return struct.pack("<iii4xi", signal.SIGALRM, 0, code, pid).ljust(128, b"\0")


def test_what_is_due_goes_with_its_own_signal_only(stopped: Any) -> None:
    """The story: one that merged with a pending signal left its siginfo to a later one."""
    first, second = Due(b"1" * 128), Due(b"2" * 128)
    stopped.due.send(1, signal.SIGALRM, first)
    stopped.due.send(1, signal.SIGALRM, second)
    ours = stopped.info
    stopped.info = siginfo_of(SI_USER)
    assert stopped.due.take(signal.SIGALRM) is None
    assert stopped.put is None
    stopped.info = ours
    assert stopped.due.take(signal.SIGALRM) == second
    assert stopped.put == second.info
    assert stopped.due.take(signal.SIGALRM) is None  # it was one
    assert [due for _, due in stopped.due._due.values()] == [first]


def test_a_signal_without_its_token_is_the_first_of_its_number(stopped: Any) -> None:
    stopped.due.send(1, signal.SIGBUS, Due(b"1" * 128))
    stopped.due.send(1, signal.SIGALRM, Due(b"2" * 128))
    stopped.info = siginfo_of(SI_TKILL, os.getppid())
    assert stopped.due.take(signal.SIGALRM) is None
    stopped.info = siginfo_of(SI_TKILL, os.getpid())
    assert stopped.due.take(signal.SIGALRM) == Due(b"2" * 128)
