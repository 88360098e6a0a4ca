"""strace and gdb attach to a running program, and leave it: it goes on and ends right.

The story: a supervisor that traced its programs was their only tracer. Nobody could attach, and
SIGSTOP did not complete while a thread stood at an ENCLU.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.patience import LIMIT_S, until
from tests.runner.gcc import needs_gcc
from tests.runner.programs import ENGINES, Workshop
from tests.runner.tools.running import GDB, attached, needs, run, state, stopped

PLACES = ("outside", "inside", "call")
EVERYWHERE = [pytest.param(e, w, id=f"{e}-{w}") for e in ENGINES for w in PLACES]


class TestStrace:
    pytestmark = needs("strace")

    @pytest.mark.parametrize(("engine", "where"), EVERYWHERE)
    def test_attaches_and_detaches(self, engine: str, where: str, workshop: Workshop) -> None:
        with attached(workshop, engine, where) as program:
            command = ["strace", "-f", "-o", "/dev/null", "-p", str(program.pid)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
                assert strace.stderr is not None
                assert "attached" in strace.stderr.readline()
                until(lambda: tracer(program.pid) == strace.pid, "strace attached")
                strace.send_signal(signal.SIGINT)
                assert "detached" in strace.communicate(timeout=LIMIT_S)[1]
            assert tracer(program.pid) == 0

    @pytest.mark.parametrize("engine", ENGINES)
    def test_sees_the_end(self, engine: str, workshop: Workshop) -> None:
        """It stays attached from inside the enclave to the exit."""
        with attached(workshop, engine, "inside") as program:
            command = ["strace", "-f", "-p", str(program.pid)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
                assert strace.stderr is not None
                assert "attached" in strace.stderr.readline()
                program.go_on()
                seen = strace.communicate(timeout=LIMIT_S)[1]
        assert "--- SIGUSR1 " in seen
        assert "+++ exited with 0 +++" in seen


class TestGdb:
    pytestmark = needs("gdb")

    @pytest.mark.parametrize(("engine", "where"), EVERYWHERE)
    def test_attaches_and_detaches(self, engine: str, where: str, workshop: Workshop) -> None:
        with attached(workshop, engine, where) as program:
            done = run(*GDB, "-p", str(program.pid), "-ex", "info threads", "-ex", "x/i $pc")
            assert f"LWP {program.pid})" in done.stdout, done.stdout
            assert "=> 0x" in done.stdout, done.stdout
            assert "detached]" in done.stdout, done.stdout

    @pytest.mark.parametrize("engine", ENGINES)
    def test_calls_a_function_of_the_program(self, engine: str, workshop: Workshop) -> None:
        """As in any program. gdb 13 cannot write the extended state of a processor with AMX."""
        asked = ("-ex", "print (int)getppid() > 0")
        with subprocess.Popen(["sleep", "1000"], stderr=subprocess.DEVNULL) as other:
            plain = run(*GDB, "-p", str(other.pid), *asked)
            other.kill()
        with attached(workshop, engine, "outside") as program:
            done = run(*GDB, "-p", str(program.pid), *asked)
        for told in (plain.stdout, done.stdout):
            assert ("= 1" in told) != ("Couldn't write extended state" in told), told
        assert ("= 1" in plain.stdout) == ("= 1" in done.stdout), done.stdout


class TestPerf:
    pytestmark = needs("perf")

    @pytest.mark.parametrize("engine", ENGINES)
    def test_samples_the_program(self, engine: str, workshop: Workshop, tmp_path: Path) -> None:
        """By the software clock: under some hypervisors there is no other."""
        data = str(tmp_path / "perf.data")
        with attached(workshop, engine, "outside") as program:
            command = [
                "perf",
                "record",
                "-q",
                "-e",
                "cpu-clock",
                "-o",
                data,
                "-p",
                str(program.pid),
            ]
            done = run(*command, "--", "sleep", "1")
            assert done.returncode == 0, done.stdout
            told = run("perf", "report", "-q", "--stdio", "-s", "comm,symbol", "-i", data).stdout
        assert re.search(r"[\d.]+% +attached +\[\.\] main\b", told), told


class TestStop:
    pytestmark = needs_gcc

    @pytest.mark.parametrize(("engine", "where"), EVERYWHERE)
    def test_completes_at_once(self, engine: str, where: str, workshop: Workshop) -> None:
        with attached(workshop, engine, where) as program:
            for _ in range(5):
                os.kill(program.pid, signal.SIGSTOP)
                stopped(program.pid)
                os.kill(program.pid, signal.SIGCONT)
                until(lambda: state(program.pid) not in "Tt", "the program goes on")


def tracer(pid: int) -> int:
    """TracerPid of a process."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("TracerPid:"))
