"""A run that breaks off: one line, code 125, reports are written, and no process is left.

The story: something that is not modelled ended a run with a traceback and exit code 1, which is the
program's; a supervisor that was killed early left a process stopped forever.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from softsgx.cli.errors import EXIT_BAD_INPUT, EXIT_RUN_FAILED
from softsgx.runner.host import library_exit
from tests.patience import LIMIT_S, until
from tests.runner.programs import ROOT

HINT = "SOFTSGX_DEBUG=1 shows the traceback"
PROGRAM = ["/bin/sh", "-c", "sleep 600 & sleep 601 & (sleep 602; true) & echo up; wait"]

# Raises when a function of the package is called for the nth time.
INJECTOR = """
import sys
from importlib import import_module
from softsgx.cli.main import main
from softsgx.sim import Unmodelled
module, owner, name, nth, error, *argv = sys.argv[1:]
owner = getattr(import_module(module), owner)
real, left = getattr(owner, name), [int(nth)]
def injected(*args, **options):
    left[0] -= 1
    if left[0] == 0:
        raise eval(error)
    return real(*args, **options)
setattr(owner, name, injected)
sys.exit(main(argv))
"""
ERRORS = {
    "Unmodelled('CET here')": "not modelled: CET here",
    "MemoryError()": "out of memory: ulimit -v unlimited, or less of everything",
    "OSError(24, 'Too many open files')": "Too many open files: ulimit -n 1024",
    "ValueError('no')": "a bug in softsgx: ValueError: no",
    "AssertionError()": "a bug in softsgx: AssertionError",
}
SUPERVISOR = ("softsgx.runner.supervisor.supervisor", "Supervisor")
PLACES = {
    "machine": ("softsgx.runner.process.world", "World", "__init__", 1),
    "needs": ("softsgx.runner.session.session", "Supervisor", "__init__", 1),
    "start": (*SUPERVISOR, "start", 1),
    "first stop": (*SUPERVISOR, "_event", 1),
    "preparing": (*SUPERVISOR, "_executed", 1),
    "system call": ("softsgx.runner.calls.table", "Calls", "serve", 2),
    "first child": (*SUPERVISOR, "_born", 1),
    "third child": (*SUPERVISOR, "_born", 3),
    "end of a process": (*SUPERVISOR, "_gone", 1),
}


def marked(mark: str) -> list[int]:
    """The live processes that have the mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def injected(place: str, error: str, *argv: str, mark: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", INJECTOR, *map(str, PLACES[place]), error, "run", *argv],
        cwd=ROOT,
        env=os.environ | {"MARK": mark},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


CASES = [
    *((place, "Unmodelled('CET here')") for place in PLACES),
    *(("third child", error) for error in ERRORS),
    *(("preparing", error) for error in ERRORS),
]


@pytest.mark.parametrize(("place", "error"), CASES)
def test_a_run_breaks_off(place: str, error: str, tmp_path: Path) -> None:
    mark = f"softsgx-{tmp_path.name}-{os.getpid()}"
    program = ["/bin/true"] if place == "end of a process" else PROGRAM
    done = injected(place, error, "--", *program, mark=mark)
    assert done.returncode == EXIT_RUN_FAILED, done
    assert done.stderr.startswith(f"softsgx: run: {ERRORS[error]}"), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith(f"{HINT}\n") == ("bug" in done.stderr)
    assert not marked(mark)


def test_its_reports_are_written(tmp_path: Path) -> None:
    trace = tmp_path / "t.txt"
    error = "Unmodelled('CET here')"
    done = injected(
        "third child", error, "--stats", "--trace", str(trace), "--", *PROGRAM, mark="reports"
    )
    assert done.returncode == EXIT_RUN_FAILED
    assert done.stderr.startswith("softsgx: stats\n")
    assert done.stderr.splitlines()[-1] == "softsgx: run: not modelled: CET here"
    assert "/bin/sh" in trace.read_text(encoding="utf-8")


# Unicorn does so where it gets no memory.
EXITS = """
import ctypes, sys
from softsgx.cli.main import main
from softsgx.runner.calls.table import Calls
from softsgx.runner.emulator.unicorn_api import Uc
serve, left = Calls.serve, [int(sys.argv[1])]
if left[0] > 2:
    Uc()
def exits(*args):
    left[0] -= 1
    if not left[0]:
        Uc()
        ctypes.CDLL(None).exit(1)
    return serve(*args)
Calls.serve = exits
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("served", [2, 40])
def test_a_library_that_ends_the_process_is_no_finding(served: int, tmp_path: Path) -> None:
    """exit(1) inside the emulator was taken for exit code 1 of the program."""
    done = subprocess.run(
        [sys.executable, "-c", EXITS, str(served), "run", "--stats", "--", *PROGRAM],
        env=os.environ | {"MARK": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == EXIT_RUN_FAILED, done
    # Without a tracer calls fail until the program is killed, which it may say.
    said = [line for line in done.stderr.splitlines() if os.strerror(errno.ENOSYS) not in line]
    assert said == [f"softsgx: run: {library_exit.LINE}"]
    until(lambda: not marked(str(tmp_path)), "the end of the program")


def test_elsewhere_too_it_is_no_finding_and_an_end_of_python_is_as_it_was() -> None:
    begin = "import ctypes, os, sys; from softsgx.runner.emulator.unicorn_api import Uc; Uc(); "
    for end, code, said in (
        ("ctypes.CDLL(None).exit(1)", EXIT_BAD_INPUT, f"softsgx: {library_exit.LINE}\n"),
        ("os.fork() or sys.exit(); os.wait(); ctypes.CDLL(None).exit(0)", EXIT_BAD_INPUT, ...),
        ("sys.exit(3)", 3, ""),
        ("pass", 0, ""),
    ):
        command = [sys.executable, "-c", begin + end]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, (end, done)
        assert said in (..., done.stderr)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_goes_leaves_the_reports(number: int, tmp_path: Path) -> None:
    """SIGHUP ended the supervisor at once, and everything it had recorded was lost."""
    command = [sys.executable, "-m", "softsgx", "run", "--stats", "--", *PROGRAM]
    with subprocess.Popen(
        command,
        env=os.environ | {"MARK": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        os.killpg(run.pid, number)
        _, said = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 128 + number
    assert said.startswith("softsgx: stats\n")
    assert not marked(str(tmp_path))


# Kills whoever executes a program while that is prepared for it.
KILLED_AT_EXEC = """
import os, signal, sys
from softsgx.cli.main import main
from softsgx.runner.host.notifications import Listener
real, left = Listener.give, [4]
def give(self, held, fd, flags=0):
    left[0] -= 1
    if left[0] == 0:
        os.kill(held.tid, signal.SIGKILL)
    return real(self, held, fd, flags)
Listener.give = give
sys.exit(main(["run", "--supervisor", "systrap", "--", "/bin/sh", "-c", "/bin/true; echo $?"]))
"""


def test_a_process_killed_in_exec_is_no_news() -> None:
    """exec of a process that had just been killed was called one that cannot be followed."""
    command = [sys.executable, "-c", KILLED_AT_EXEC]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stdout) == (0, f"{128 + signal.SIGKILL}\n")
    assert done.stderr in ("", "Killed\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_what_the_terminal_sends_is_the_program_s(number: int) -> None:
    """The program ends by its own handler, and the supervisor goes on until then."""
    script = f"trap 'echo mine; exit 7' {number}; echo up; while :; do sleep 0.1; done"
    command = [sys.executable, "-m", "softsgx", "run", "--stats", "--", "/bin/sh", "-c", script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        for _ in range(2):
            os.killpg(run.pid, number)
        out, said = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, out.splitlines()[-1]) == (7, "mine")
    assert "softsgx: stats\n" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_supervisor_killed_before_the_start_leaves_nothing(number: int, tmp_path: Path) -> None:
    """The story: its child had stopped itself, to be seized, and stayed stopped forever."""
    script = (
        "import time\n"
        "from softsgx.runner.host import ptrace\n"
        "from softsgx.cli.main import main\n"
        "real = ptrace.request\n"
        "def request(what, tid, *rest):\n"
        "    if what == ptrace.PTRACE_SEIZE and ARMED:\n"
        "        print('here', flush=True)\n"
        "        time.sleep(600)\n"
        "    return real(what, tid, *rest)\n"
    )
    script += (
        "ARMED = []\n"
        "from softsgx.runner.supervisor.supervisor import Supervisor\n"
        "start = Supervisor.start\n"
        "def armed(*args):\n"
        "    ARMED.append(1)\n"
        "    return start(*args)\n"
        "Supervisor.start = armed\n"
        "ptrace.request = request\n"
        "main(['run', '--', '/bin/true'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"MARK": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "here\n"
        run.send_signal(number)
        assert run.wait(LIMIT_S) == -number
    until(lambda: not marked(str(tmp_path)), "the end of its child")
