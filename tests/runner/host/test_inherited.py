"""A program is started as its caller would have started it: environment, ignored signals."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.patience import LIMIT_S

SOURCE = """
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv, char **envp)
{
    (void)argc;
    (void)argv;
    for (; *envp; envp++)
        fwrite(*envp, 1, strlen(*envp) + 1, stdout);
    fwrite("", 1, 1, stdout); /* the end: an empty string may be one of them */
    return 0;
}
"""
# Python ignores these two, whatever its caller did.
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
    """As getenv(3) takes the first."""
    environ = [b"PATH=" + bytes(shows.parent), b"PATH=/nowhere"]
    command = softsgx(Path("shows"))
    assert b"PATH=/nowhere\0" in execve(command[0], command, environ)


# The signals that are ignored and those that are blocked, as calls of the program say it.
REPORT = (
    "import signal as s; "
    "print(*sorted(n for n in s.valid_signals() if s.getsignal(n) is s.SIG_IGN)); "
    "print(*sorted(s.pthread_sigmask(s.SIG_BLOCK, ())))"
)


def started_with(setup: str, command: list[str]) -> tuple[str, ...]:
    """What REPORT says under `command`, which is started after `setup` in Python."""
    script = f"import os, signal as s, sys; {setup}; os.execv(sys.argv[1], sys.argv[1:])"
    words = [*command, sys.executable, "-c", REPORT]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True, text=True, check=True, timeout=LIMIT_S,
    )  # fmt: skip
    return tuple(done.stdout.splitlines())


@pytest.mark.parametrize(
    "setup",
    [
        "pass",
        *(f"s.signal(s.SIG{name}, s.SIG_IGN)" for name in ("INT", "TERM", "HUP", "CHLD", "ALRM")),
        "s.pthread_sigmask(s.SIG_BLOCK, {s.SIGUSR1, s.SIGRTMIN})",
        # The story: with these blocked softsgx itself got no signals, and stood still.
        "s.pthread_sigmask(s.SIG_BLOCK, s.valid_signals())",
    ],
)
def test_signals_are_the_callers(setup: str) -> None:
    """A shell ignores SIGINT for what it starts with `&`; softsgx made it deadly again."""
    command = [sys.executable, "-m", "softsgx", "run", "--stats", "--"]
    assert started_with(setup, command) == started_with(setup, [])


STREAMS = ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]


def of_program(words: list[str], closed: str) -> tuple[int, str]:
    """Exit code of `words`, started with streams closed, and the numbers that are open there."""
    script = 'out=$1; shift; "$@" /bin/sh -c \'ls /proc/$$/fd >"$0"; exit 3\' "$out" '
    with tempfile.NamedTemporaryFile("r", encoding="ascii") as out:
        command = ["/bin/sh", "-c", script + closed, "sh", out.name, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        assert "softsgx" not in done.stderr, done.stderr
        return done.returncode, out.read()


@pytest.mark.parametrize("closed", STREAMS)
def test_closed_streams_are_closed(closed: str) -> None:
    """A service may be started without standard streams: softsgx ended with a traceback."""
    command = [sys.executable, "-m", "softsgx", "run", "--"]
    assert of_program(command, closed) == of_program([], closed)


# At the end of the run: 0 if those of the numbers in the last word are /dev/null.
LOOKS = """
import os, sys
from softsgx.cli.main import main
from softsgx.cli.run import program
real, numbers = program.run_program, sys.argv.pop()
def looks(*rest):
    real(*rest)
    os._exit(sum(not os.path.samefile(f"/proc/self/fd/{n}", os.devnull) for n in numbers))
program.run_program = looks
main(sys.argv[1:])
"""


@pytest.mark.parametrize("closed", STREAMS)
def test_nothing_of_ours_is_a_standard_stream(closed: str) -> None:
    """The story: with 2>&- the memory of EPC was the standard error of every library."""
    names = {"<&-": "0", ">&-": "1", "2>&-": "2"}
    numbers = "".join(names[text] for text in closed.split())
    command = ["/bin/sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", LOOKS]
    done = subprocess.run([*command, "run", "--", "/bin/true", numbers], timeout=LIMIT_S)
    assert done.returncode == 0


def test_doctor_where_the_caller_ignores_sigchld() -> None:
    """Its attempts are children, whose statuses the kernel would throw away."""
    script = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    script += "from softsgx.cli.main import main; sys.exit(main(['doctor']))"
    with_it = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    without = subprocess.run(
        [sys.executable, "-m", "softsgx", "doctor"], capture_output=True, text=True
    )
    assert (with_it.returncode, with_it.stderr) == (without.returncode, without.stderr)
