"""Timers on processor clocks, without a program: they count emulated time, not the clock's."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from softsgx.runner.calls.cpu_timers import PROF, SCHED, Clock, CpuTimer, CpuTimers
from softsgx.runner.inserted.doorbell import Doorbell
from softsgx.runner.inserted.mailboxes import Mailboxes


class Still(Clock):
    """A clock for which the kernel counts nothing."""

    def kernel(self) -> float:
        return 0.0


@pytest.fixture
def timers() -> Iterator[CpuTimers]:
    mailboxes = Mailboxes()
    doorbell = Doorbell(mailboxes)
    made = CpuTimers(doorbell)
    yield made
    made.close()
    doorbell.close()
    mailboxes.close()


PID = os.getpid()


def test_a_timer_fires_when_the_emulator_has_worked_for_so_long(timers: CpuTimers) -> None:
    fired: list[int] = []
    timer = CpuTimer(Still(PID, SCHED), fired.append)
    timers.add(timer)
    timers.set(timer, 0.010, 0.0)
    timers.worked(PID, 1, 0.009)
    assert timers.left(timer) == pytest.approx(0.001)
    assert fired == []
    timers.worked(PID, 2, 0.002)
    assert fired == [0]
    assert timer.expiry == 0.0
    timers.worked(PID, 2, 1.0)
    assert fired == [0]


def test_what_an_interval_has_missed_is_told(timers: CpuTimers) -> None:
    fired: list[int] = []
    timer = CpuTimer(Still(PID, PROF), fired.append)
    timers.add(timer)
    timers.set(timer, 0.010, 0.010)
    timers.worked(PID, 1, 0.035)
    assert fired == [2]
    assert timers.left(timer) == pytest.approx(0.005)
    timers.remove(timer)
    timers.worked(PID, 1, 1.0)
    assert fired == [2]


def test_the_time_of_a_thread_is_its_own(timers: CpuTimers) -> None:
    fired: list[int] = []
    timer = CpuTimer(Still(PID, SCHED, 7), fired.append)
    timers.add(timer)
    timers.set(timer, 0.010, 0.0)
    timers.worked(PID, 8, 1.0)
    assert fired == []
    timers.worked(PID, 7, 0.010)
    assert fired == [0]


def test_time_of_a_thread_that_has_ended_stays_the_process_s(timers: CpuTimers) -> None:
    timers.worked(PID, 7, 1.0)
    timers.thread_gone(PID, 7, last=False)
    assert timers.emulated[PID] == 1.0
    timers.thread_gone(PID, 8, last=True)
    assert PID not in timers.emulated


def test_a_process_that_computes_itself_is_looked_at(timers: CpuTimers) -> None:
    """Without a slice of the emulator: the kernel's count of its own time rings the doorbell."""
    fired: list[int] = []
    clock = Clock(PID, SCHED)
    timer = CpuTimer(clock, fired.append)
    timers.add(timer)
    timers.set(timer, clock.kernel() + 0.020, 0.0)
    while not fired:
        timers.rung()
    assert fired == [0]


def refused(*_: object) -> tuple[int, int]:
    raise PermissionError(1, "Operation not permitted")


COUNTS = """
import signal, sys
told = []
signal.signal(signal.SIGXCPU, lambda *_: told.append(24))
print("ready", flush=True)
sys.stdin.readline()
print(told, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("soft", "hard", "told"),
    [(1000, resource.RLIM_INFINITY, "[24]\n"), (3000, 3000, "[]\n")],
    ids=["soft", "hard"],
)
def test_the_limit_of_a_process_of_another_user(
    timers: CpuTimers, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, told: str
) -> None:
    """prlimit(2) is refused without CAP_SYS_RESOURCE, which root in a container lacked: a program
    that gave up root ended the run with "Operation not permitted" after 50 ms inside an enclave.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", COUNTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        resource.prlimit(child.pid, resource.RLIMIT_CPU, (soft, hard))
        monkeypatch.setattr(resource, "prlimit", refused)
        timers.worked(child.pid, child.pid, 900.0)
        timers.worked(child.pid, child.pid, 100.5)
        timers.worked(child.pid, child.pid, 0.1)  # the next second has not passed
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == told
        if hard == 3000:
            timers.worked(child.pid, child.pid, 2000.0)
            assert child.wait() == -signal.SIGKILL
