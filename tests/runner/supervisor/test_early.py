"""Children whose parent is killed before it reports them, with ptrace.

The story: `make fuzz-run` hung after minutes. The end of a thread whose parent had died with it was
kept for ever; when the kernel came to its number again, a new process counted as dead, and stood at
its first stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from softsgx.runner.host import ptrace as p
from softsgx.runner.supervisor.early import Early, orphans
from tests.patience import LIMIT_S

KILLED = signal.SIGSEGV  # a wait status: ended by that signal

# Send a signal to the parent that stops to report its child, the n-th of the run, and lose that.
SCRIPT = """
import os, signal, sys
from softsgx.runner.host import ptrace as p
from softsgx.cli.main import main

number, which = int(sys.argv[1]), int(sys.argv[2])
waitpid, births = os.waitpid, []

def losing(pid, options):
    tid, status = waitpid(pid, options)
    if tid and status >> 16 in (p.EVENT_FORK, p.EVENT_VFORK):
        births.append(tid)
        if len(births) == which:
            os.kill(tid, number)
            return losing(pid, options)
    return tid, status

os.waitpid = losing
sys.exit(main(["run", "--supervisor", "ptrace", "--", *sys.argv[3:]]))
"""


@contextmanager
def stopped_child(*, traced: bool) -> Iterator[int]:
    """A child that waits; traced by this process or not."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    try:
        if traced:
            p.request(p.PTRACE_SEIZE, pid)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_end_of_an_earlier_thread_is_not_that_of_a_new_one() -> None:
    early = Early()
    with stopped_child(traced=True) as tid:
        early.keep(tid, KILLED)
        assert early.take(tid) is None
        assert early.take(tid) is None


def test_a_child_that_has_ended_already_is_known_as_ended() -> None:
    early = Early()
    with stopped_child(traced=True) as tid:
        pass
    early.keep(tid, KILLED)
    assert early.take(tid) == KILLED


def test_only_traced_processes_without_a_living_parent_are_orphans() -> None:
    with stopped_child(traced=True) as traced, stopped_child(traced=False) as untraced:
        assert traced in orphans((), ())
        assert untraced not in orphans((), ())
        assert traced not in orphans((traced,), ())
        assert traced not in orphans((), (os.getpid(),)), "its parent will report it"


def test_a_child_goes_on_when_its_parent_is_killed_while_it_forks() -> None:
    """As in Linux: it stood at its first stop until the end of the run, and was killed then."""
    command = "(sh -c 'echo inner'; echo never); echo after"
    done = run(signal.SIGKILL, 2, "sh", "-c", command)
    assert sorted(done.stdout.split()) == ["after", "inner"], done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


# The thread that forks does not go on: it stands at its stop until the other one ends them both.
# By ctypes, which holds no lock of the interpreter meanwhile.
THREADED = """
import ctypes, os, signal, threading
signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
libc = ctypes.CDLL(None)

def fork():
    if libc.fork() == 0:
        libc.write(1, b"inner\\n", 6)
        libc._exit(0)

threading.Thread(target=fork).start()
while True:
    signal.pause()
"""


def test_a_child_goes_on_when_another_thread_ends_the_process() -> None:
    """exit_group: the thread that forks has an exit code, and no signal."""
    done = run(signal.SIGUSR1, 1, sys.executable, "-c", THREADED)
    assert done.stdout.split() == ["inner"], done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def run(number: int, which: int, *command: str) -> subprocess.CompletedProcess[str]:
    """The command under softsgx, whose `which`-th fork is not reported but meets a signal."""
    line = [sys.executable, "-c", SCRIPT, str(int(number)), str(which), *command]
    return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_S, check=False)
