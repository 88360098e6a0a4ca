"""A program is started as its caller would have started it: environment, ignored signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

SOURCE = """
#include <signal.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv, char **envp)
{
    struct sigaction action;

    (void)argc;
    (void)argv;
    for (; *envp; envp++)
        fwrite(*envp, 1, strlen(*envp) + 1, stdout);
    fwrite("", 1, 1, stdout); /* the end: an empty string may be one of them */
    for (int number = 1; number < 32; number++)
        if (!sigaction(number, NULL, &action) && action.sa_handler == SIG_IGN)
            printf("%d ", number);
    return 0;
}
"""
# What execve(2) passes, and what a mapping of text cannot hold.
ODD = [b"A=1", b"A=2", b"BIN=\xff\xfe\x80", b"no equals sign", b"=x", b"", b"A=3", b"LAST="]


@pytest.fixture(scope="module")
def shows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inherited")
    source, program = directory / "shows.c", directory / "shows"
    source.write_text(SOURCE, encoding="ascii")
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-o", program, source], check=True)
    return program


def execve(program: str, words: Sequence[str], environ: Sequence[bytes]) -> bytes:
    """What it prints. Python's own calls take no such environment, so the child does without."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        from ctypes import CDLL, c_char_p

        os.dup2(into, 1)
        argv = (c_char_p * (len(words) + 1))(*map(os.fsencode, words), None)
        CDLL(None).execve(program.encode(), argv, (c_char_p * (len(environ) + 1))(*environ, None))
        os._exit(127)
    os.close(into)
    with open(out, "rb") as stream:
        printed = stream.read()
    assert os.waitpid(pid, 0)[1] == 0
    return printed


def softsgx(program: Path) -> list[str]:
    return [sys.executable, "-m", "softsgx", "run", "--", str(program)]


@pytest.mark.parametrize(
    "environ",
    [
        [b"PATH=/usr/bin", b"HOME=/"],  # LANG unset: the locale is C, where Python adds LC_CTYPE
        [b"LC_ALL=C"],
        [b"LANG=C.UTF-8", b"PYTHONUTF8=0"],
        [],
        ODD,
        [b"LC_CTYPE=POSIX", b"PYTHONCOERCECLOCALE=1", *ODD],
    ],
    ids=["no LANG", "LC_ALL", "UTF-8", "empty", "odd", "odd and coerced"],
)
def test_the_environment_is_the_callers(shows: Path, environ: list[bytes]) -> None:
    """PEP 538: with LANG unset the program saw LC_CTYPE=C.UTF-8, which nobody had set."""
    command = softsgx(shows)
    seen, _, _ = execve(command[0], command, environ).rpartition(b"\0")
    assert seen == b"".join(entry + b"\0" for entry in environ)


def test_path_is_the_first_of_two(shows: Path) -> None:
    """As getenv(3) finds it."""
    environ = [b"PATH=" + bytes(shows.parent), b"PATH=/nowhere"]
    command = softsgx(Path("shows"))
    assert b"PATH=/nowhere\0" in execve(command[0], command, environ)


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ignored_signals_stay_ignored(shows: Path, number: signal.Signals | None) -> None:
    """A shell ignores SIGINT for what it starts with `&`; softsgx made it deadly again."""
    command = softsgx(shows)
    if number is not None:
        ignoring = f"import os, signal, sys; signal.signal({number:d}, signal.SIG_IGN)"
        ignoring += "; os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", ignoring, *command]
    done = subprocess.run(command, capture_output=True, check=True)
    ignored = done.stdout.rsplit(b"\0", 1)[1].split()
    assert ignored == ([] if number is None else [b"%d" % number])
