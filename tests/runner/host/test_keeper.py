"""What is not traced is killed when its supervisor dies: by a keeper, which knows it by a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.runner.host import keeper
from tests.patience import LIMIT_S, until

# A supervisor that traces nobody, and a program: one process that maps the file, one that only
# descends from it, one that was left by its parent, each in a session of its own.
SCRIPT = """
import mmap, os, signal, sys
from softsgx.runner.host.front import in_front

def fork(body):
    pid = os.fork()
    if not pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        body()
        os._exit(0)
    return pid

def sleep():
    os.execv("/bin/sleep", ["sleep", "600"])

def says(body):
    os.write(1, f"{fork(body)} ".encode())

def work(caller, front):
    file = os.memfd_create("the run")
    os.ftruncate(file, 4096)
    used = mmap.mmap(file, 4096)
    assert front.keep(file)
    told, into = os.pipe()
    first = fork(lambda: (says(sleep), os.write(into, b"x"), signal.pause()))
    os.read(told, 1)
    os.write(1, f"{first} ".encode())
    os.waitpid(fork(lambda: says(signal.pause)), 0)
    front.started(first)
    os.write(1, f"{os.getpid()}\\n".encode())
    os.read(0, 1)
    front.over()
    return 6

sys.exit(in_front(work))
"""


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


def keeper_of(run: int) -> int:
    """The child of the front that leads a session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                text = (entry / "stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(text[1]) == run and text[3] == entry.name:
                return int(entry.name)
    raise AssertionError("no keeper")


@pytest.mark.parametrize("killed", ["supervisor", "front", "group", "nobody"])
def test_what_is_left_is_killed(killed: str) -> None:
    """All of a run, by SIGKILL to whichever; if it ends in order, nothing is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        *pids, supervisor = (int(word) for word in run.stdout.readline().split())
        assert len(pids) == 3
        kept_by = keeper_of(run.pid)
        if killed == "nobody":
            assert run.stdin is not None
            run.stdin.write(b"\n")
            run.stdin.flush()
        elif killed == "group":
            os.killpg(run.pid, signal.SIGKILL)
        else:
            os.kill(supervisor if killed == "supervisor" else run.pid, signal.SIGKILL)
        code = run.wait(LIMIT_S)
        until(lambda: is_gone(kept_by), "the end of the keeper")
        left = [pid for pid in pids if not is_gone(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert len(left) == (3 if killed == "nobody" else 0)
    assert is_gone(supervisor)
    assert code == {"nobody": 6, "supervisor": 125}.get(killed, -signal.SIGKILL)


def test_those_that_die_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies loses its memory first: it maps the file no more, and is still there."""
    told, into = os.pipe()
    child = os.fork()
    if not child:
        os.read(told, 1)
        os._exit(0)
    answers = [{child}]
    rounds: list[float] = []

    def later(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            os.write(into, b"x")
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(
        keeper, "_with_descendants", lambda mark: answers.pop() if answers else set()
    )
    monkeypatch.setattr("os.kill", lambda pid, number: None)
    monkeypatch.setattr("time.sleep", later)
    file = os.memfd_create("the run")
    keeper.kill_users(file)
    os.close(file)
    assert is_gone(child)
    assert len(rounds) == 3
    os.waitpid(child, 0)
