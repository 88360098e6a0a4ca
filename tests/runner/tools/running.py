"""Programs under `softsgx run --supervisor systrap`, for the tools that look at them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.patience import LIMIT_S, until
from tests.runner.gcc import needs_gcc
from tests.runner.programs import Program, Workshop

HERE: Final = Path(__file__).parent
ATTACHED: Final = Program.read(HERE / "attached.c")
GDB: Final = ("gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off")


def needs(tool: str) -> list[pytest.MarkDecorator]:
    """Skip where a tool, or the compiler of the programs, is not installed."""
    missing = shutil.which(tool) is None
    return [needs_gcc, pytest.mark.skipif(missing, reason=f"{tool} is not installed")]


def supervised(*command: str, engine: str) -> list[str]:
    """The command that runs a program without tracing it."""
    softsgx = (sys.executable, "-m", "softsgx", "run", "--supervisor", "systrap")
    return [*softsgx, "--engine", engine, "--", *command]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A command to its end; both streams together in `stdout`."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=LIMIT_S,
        check=False,
    )


def state(pid: int) -> str:
    """The letter of /proc/PID/stat."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0]


class Attached:
    """attached.c, in the place where it waits for SIGUSR1; `pid` is its own."""

    def __init__(self, workshop: Workshop, engine: str, where: str) -> None:
        command = [*workshop.command(ATTACHED), where]
        self.process = subprocess.Popen(
            supervised(*command, engine=engine),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.strip().isdecimal(), line + "".join(self.process.communicate())
        self.pid = int(line)
        self._told = False

    def go_on(self) -> None:
        """Tell it to go on to its end."""
        if not self._told:
            os.kill(self.pid, signal.SIGUSR1)
        self._told = True

    def _has_ended(self) -> bool:
        """A signal may have come just before the call that it was to interrupt: send it again."""
        if self.process.poll() is not None:
            return True
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        return False

    def ended(self) -> tuple[int, str]:
        """Let it end: the exit code, and what it said. Its errors are a failure."""
        self.go_on()
        until(self._has_ended, "the program ended")
        out, err = self.process.communicate(timeout=LIMIT_S)
        assert "FAIL" not in err, err
        return self.process.returncode, out.strip()


@contextmanager
def attached(workshop: Workshop, engine: str, where: str) -> Iterator[Attached]:
    """The program while it waits; at the end it has to go on and to end right."""
    program = Attached(workshop, engine, where)
    try:
        yield program
        assert program.ended() == (0, f"ok {where}")
    finally:
        program.process.kill()
        program.process.wait()


def stopped(pid: int) -> None:
    """Wait until every thread of a process is stopped."""
    until(lambda: state(pid) in "Tt", f"process {pid} stopped")
