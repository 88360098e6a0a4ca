"""What the caller of softsgx sees of the program: signals, stops, its end, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from softsgx.cli.errors import EXIT_RUN_FAILED
from softsgx.runner.options import SUPERVISORS
from tests.patience import LIMIT_S, until

RUN = [sys.executable, "-m", "softsgx", "run"]
# Counts the signals of its arguments, and reads its standard input to the end.
COUNTS = """
import os, select, signal, sys
counts = {}
def handler(number, _):
    counts[number] = counts.get(number, 0) + 1
    os.write(1, f"signal {number}, {counts[number]}\\n".encode())
    if number == signal.SIGTSTP:
        os.kill(os.getpid(), signal.SIGSTOP)
        os.write(1, b"again\\n")
came, into = os.pipe()
os.set_blocking(into, False)
signal.set_wakeup_fd(into)
for word in sys.argv[1:]:
    signal.signal(int(word), handler)
os.write(1, b"up\\n")
line = b"x"
while line:
    ready, _, _ = select.select([0, came], [], [])
    if came in ready:
        os.read(came, 100)
    if 0 in ready:
        line = os.read(0, 100)
        os.write(1, b"read " * bool(line) + line)
for word in sys.argv[1:]:
    signal.signal(int(word), signal.SIG_IGN)
sys.exit(5)
"""
HUP, INT, QUIT, USR1, TERM = 1, 2, 3, 10, 15
CONT, STOP, TSTP = 18, 19, 20
STEPS = {
    "typed ^C": (f"hear, type 03, hear, type 03, hear, kill {INT}, hear, type 04, wait", (INT,)),
    "^C ends it": ("hear, type 03, wait", ()),
    "^\\ ends it": ("hear, type 1c, wait", ()),
    "^Z, bg, fg": (
        f"hear, type 1a, wait, bg, killpg {CONT}, type 61620a, wait, fg, killpg {CONT}, hear,"
        f" type 1a, wait, killpg {CONT}, type 03, hear, type 04, wait",
        (INT,),
    ),
    "^Z handled": (
        f"hear, type 1a, hear, wait, killpg {CONT}, hear, kill {INT}, hear, killpg {INT}, hear,"
        f" kill {TERM}, wait",
        (INT, TSTP),
    ),
    "stopped by a signal": (
        f"hear, kill {TSTP}, wait, kill {CONT}, kill {USR1}, hear, kill {TSTP}, wait,"
        f" kill {CONT}, killpg {USR1}, hear, kill {TERM}, wait",
        (USR1,),
    ),
    "SIGSTOP": (
        f"hear, killpg {STOP}, wait, killpg {CONT}, kill {USR1}, hear, kill {STOP}, wait,"
        f" kill {CONT}, kill {USR1}, hear, killpg {STOP}, wait, kill 9, wait",
        (USR1,),
    ),
}


def program(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", script, *map(str, arguments)]


def at_a_terminal(steps: str, command: list[str]) -> str:
    script = Path(__file__).parent / "terminal.py"
    return subprocess.run(
        [sys.executable, str(script), steps, *command],
        stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_S, start_new_session=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("what", STEPS)
def test_a_shell_sees_the_program(what: str) -> None:
    """As without softsgx: each signal reaches the program once, and softsgx stops as it does."""
    steps, handled = STEPS[what]
    command = program(COUNTS, *handled)
    assert at_a_terminal(steps, [*RUN, "--", *command]) == at_a_terminal(steps, command)


def up(run: subprocess.Popen[Any]) -> None:
    """Wait for the first line of its output."""
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
def test_a_signal_comes_once(send: Any) -> None:
    """To softsgx alone, or to the group, of which the program is a member, too."""
    numbers = [HUP, INT, QUIT, USR1, TERM, CONT, signal.SIGRTMIN, signal.SIGRTMAX - 3]
    command = [*RUN, "--", *program(COUNTS, *map(int, numbers))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        for times in (1, 2, 3):
            for number in numbers:
                send(run.pid, number)
                assert run.stdout.readline() == f"signal {number:d}, {times}\n"
        out, _ = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, out) == (5, "")


def test_a_service_manager_ends_the_program_by_its_handler() -> None:
    """The story: SIGTERM to softsgx killed the program, which had no time to end in order."""
    script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [*RUN, "--stats", "--", "/bin/sh", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        up(run)
        run.terminate()
        out, said = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, out) == (7, "bye\n")
    assert "softsgx: stats\n" in said


@pytest.mark.parametrize("how", SUPERVISORS)
def test_whoever_ends_softsgx_by_its_name_ends_the_program(how: str) -> None:
    """The story: pkill signals front, supervisor and keeper. It was taken for a signal to the
    process group, and not passed on: the run went on for ever."""
    with subprocess.Popen(
        [*RUN, "--supervisor", how, "--", "/bin/sh", "-c", "echo up; exec sleep 1000"],
        stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        up(run)
        ours = [run.pid]
        for pid in map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()):
            ours += [pid] * (b"softsgx" in Path(f"/proc/{pid}/cmdline").read_bytes())
        assert len(ours) == {"ptrace": 2, "systrap": 3}[how]
        for pid in ours:
            os.kill(pid, signal.SIGTERM)
        run.communicate(timeout=LIMIT_S)
    assert run.returncode == 128 + signal.SIGTERM


def test_a_program_that_ignores_sigterm_goes_on_until_it_ends() -> None:
    """softsgx has no grace period: who wants one sends SIGKILL after it, as timeout -k does."""
    script = "trap '' TERM; echo up; read line; echo $line; exit 3"
    with subprocess.Popen(
        [*RUN, "--", "/bin/sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        up(run)
        run.terminate()
        run.terminate()
        out, _ = run.communicate("mine\n", timeout=LIMIT_S)
    assert (run.returncode, out) == (3, "mine\n")


# What lives on, and its number.
DAEMON = "sleep 600 {} & echo $! $PPID; exit 4"


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


def behind(options: list[str], streams: str, **kinds: Any) -> tuple[int, int, IO[str] | None]:
    """Run a program that leaves a process behind: the numbers of that and of its supervisor."""
    script = DAEMON.format(streams)
    run = subprocess.Popen(
        [*RUN, *options, "--", "/bin/sh", "-c", script],
        stdout=subprocess.PIPE, text=True, **kinds,
    )  # fmt: skip
    assert run.stdout is not None
    pid, supervisor = map(int, run.stdout.readline().split())
    assert run.wait(LIMIT_S) == 4
    assert run.stdout.read() == "", "softsgx still has standard output"
    run.stdout.close()
    return pid, supervisor, run.stderr


def test_it_returns_when_the_first_process_ends() -> None:
    """The story: softsgx waited for the daemon that the program had started."""
    pid, supervisor, _ = behind([], ">/dev/null")
    assert not is_gone(supervisor), "nobody serves the process that lives on"
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(supervisor), "the end of the supervisor")


@pytest.mark.parametrize("options", [[], ["--explain"]], ids=["none", "explain"])
def test_who_reads_its_standard_error_waits_only_for_reports(options: list[str]) -> None:
    streams = ">/dev/null 2>/dev/null"
    pid, supervisor, said = behind(options, streams, stderr=subprocess.PIPE)
    assert said is not None
    with said:
        if options:
            os.kill(pid, signal.SIGKILL)
        assert said.read() == ""
    assert is_gone(pid) == bool(options)
    if not options:
        os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(supervisor), "the end of the supervisor")


@pytest.mark.parametrize("how", SUPERVISORS)
@pytest.mark.parametrize("end", ["process", "supervisor"])
def test_reports_are_complete_when_the_last_process_ends(
    end: str, how: str, tmp_path: Path
) -> None:
    """By itself, or because somebody stops the supervisor by SIGTERM.

    Without a tracer the supervisor is no parent of it, and said that it had ended with 0.
    """
    trace = tmp_path / "t.jsonl"
    options = ["--stats", "--trace", str(trace), "--supervisor", how]
    pid, supervisor, said = behind(options, ">/dev/null 2>/dev/null", stderr=subprocess.PIPE)
    os.kill(pid if end == "process" else supervisor, signal.SIGTERM)
    assert said is not None
    with said:
        assert said.read().startswith("softsgx: stats\n")
    until(lambda: is_gone(supervisor) and is_gone(pid), "the end of both")
    events = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    outcomes = {e["process"]: e["outcome"] for e in events if e.get("what") == "ProcessEnded"}
    assert outcomes[str(pid)] == ("SIGTERM" if end == "process" else "SIGKILL")
    assert len(outcomes) == 2


def test_reports_of_processes_that_end_soon_are_waited_for() -> None:
    """What the first process leaves behind for a moment: a report is complete when it is read."""
    script = "sleep 0.01 & exit 6"
    done = subprocess.run(
        [*RUN, "--stats", "--", "/bin/sh", "-c", script],
        stderr=subprocess.PIPE, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 6
    assert done.stderr.startswith("softsgx: stats\n")


@pytest.mark.parametrize("killed", ["front", "supervisor"])
@pytest.mark.parametrize("how", SUPERVISORS)
def test_sigkill_of_either_leaves_nothing(how: str, killed: str) -> None:
    script = "sleep 600 & echo $! $PPID; wait"
    with subprocess.Popen(
        [*RUN, "--supervisor", how, "--", "/bin/sh", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        pid, supervisor = map(int, run.stdout.readline().split())
        os.kill(run.pid if killed == "front" else supervisor, signal.SIGKILL)
        _, said = run.communicate(timeout=LIMIT_S)
    until(lambda: is_gone(pid) and is_gone(supervisor), "the end of all")
    if killed == "front":
        assert (run.returncode, said) == (-signal.SIGKILL, "")
    else:
        assert run.returncode == EXIT_RUN_FAILED
        assert said.count("\n") == 1
        assert "SIGKILL" in said


# Sends a signal to softsgx before the program is started, and then starts it, or waits.
EARLY = """
import os, signal, sys
from softsgx.cli.main import main
from softsgx.runner.supervisor.supervisor import Supervisor
start = Supervisor.start
def early(*rest):
    os.kill(os.getppid(), int(sys.argv[1]))
    while int(sys.argv[2]) < 0:
        signal.pause()
    start(*rest)
Supervisor.start = early
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("number", "setup", "code"),
    [
        (TERM, "", -TERM),
        (INT, "", -INT),
        (USR1, "", -USR1),
        (INT, "trap '' INT;", 5),
        (signal.SIGWINCH, "", 5),
    ],
)
def test_a_signal_before_the_program(number: int, setup: str, code: int) -> None:
    """It does what it does to any process before its execve."""
    words = [sys.executable, "-c", EARLY, str(int(number)), str(code)]
    command = ["/bin/sh", "-c", f'{setup} exec "$@"', "sh", *words, "run", "--"]
    command += ["/bin/sh", "-c", "exit 5"]
    assert subprocess.run(command, timeout=LIMIT_S).returncode == code


# Stops softsgx just before the program is started.
HALTED = """
import os, signal, sys
from softsgx.cli.main import main
from softsgx.runner.supervisor.supervisor import Supervisor
start = Supervisor.start
def halted(*rest):
    os.kill(os.getppid(), signal.SIGSTOP)
    start(*rest)
Supervisor.start = halted
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_after_the_program_was_started_reaches_it() -> None:
    """The story: softsgx had not read yet that the program ran, and died of the SIGTERM itself.

    Of the signals that are pending when it goes on, the one with the lowest number comes first.
    """
    script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"
    command = [sys.executable, "-c", HALTED, "run", "--", "/bin/sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        up(run)
        run.terminate()
        run.send_signal(CONT)
        out, _ = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, out) == (7, "bye\n")
