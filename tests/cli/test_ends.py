"""However a command ends: one line, the right exit code, no traceback, and 1 only for a finding.

An EPC of 999T, a refused system call, or something not modelled ended in a traceback and exit code
1, which means a finding.
"""

from __future__ import annotations

import argparse
import errno
import io
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from softsgx.cli import progress
from softsgx.cli.errors import (
    DEBUG,
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_FINDING,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_READER_GONE,
    EXIT_RUN_FAILED,
    Codes,
    ReaderGone,
    UsageError,
    epilog,
    markdown,
)
from softsgx.cli.main import COMMANDS, main
from softsgx.cli.modes import Table
from softsgx.sim import Unmodelled
from tests.cli import snapshots
from tests.cli.conftest import FILE

DOCS = Path(__file__).resolve().parents[2] / "docs" / "exit-codes.md"

# The least that a command needs to reach its own code.
ARGUMENTS = {
    "measure": ["app"],
    "sign": ["app", "--key", "key.pem"],
    "explore": ["FirstTouch"],
    "show": ["app"],
    "run": ["--", "/bin/true"],
    "compare": ["--n", "1"],
    "doctor": [],
    "completion": ["bash"],
    "driver": ["build", "--source", "linux", "-o", "sgx.drv"],
}
FAILED, BUG = "failed", "bug"
HINT = "SOFTSGX_DEBUG=1 shows the traceback"


def too_deep() -> None:
    too_deep()


def recursion() -> RecursionError:
    try:
        too_deep()
    except RecursionError as error:
        return error
    raise AssertionError


# Exception, its exit code, and the line after the name of the command.
BAD_ENDS = {
    "usage": (UsageError("x:\n no"), FAILED, "x: no"),
    "own code": (UsageError("x: no", 99), 99, "x: no"),
    "unmodelled": (Unmodelled("CET in\nthe kernel"), FAILED, "not modelled: CET in the kernel"),
    "memory": (MemoryError(), FAILED, "out of memory: ulimit -v unlimited, or less of everything"),
    "file": (
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a\nb"),
        FAILED,
        "a b: No such file or directory",
    ),
    "descriptors": (
        OSError(errno.EMFILE, "Too many open files"),
        FAILED,
        "Too many open files: ulimit -n 1024",
    ),
    "processes": (
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        FAILED,
        "Resource temporarily unavailable: ulimit -u unlimited",
    ),
    "import": (
        ImportError("libx.so: failed to map segment"),
        FAILED,
        "a part of softsgx cannot be loaded: libx.so: failed to map segment",
    ),
    "bug": (ValueError("two\nlines"), BUG, f"a bug in softsgx: ValueError: two lines; {HINT}"),
    "nothing to say": (KeyError(), BUG, f"a bug in softsgx: KeyError; {HINT}"),
    "broken model": (
        AssertionError("EPCM"),
        BUG,
        f"a bug in softsgx: AssertionError: EPCM; {HINT}",
    ),
    "recursion": (
        recursion(),
        BUG,
        f"a bug in softsgx: RecursionError: maximum recursion depth exceeded; {HINT}",
    ),
    "descriptor of ours": (
        OSError(errno.EBADF, "Bad file descriptor"),
        BUG,
        f"a bug in softsgx: OSError: [Errno 9] Bad file descriptor; {HINT}",
    ),
    "exit": (SystemExit(1), BUG, f"a bug in softsgx: SystemExit: 1; {HINT}"),
    "interrupt": (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted"),
    "reader": (ReaderGone(), EXIT_READER_GONE, None),
}


def raising(error: BaseException) -> object:
    def run(args: argparse.Namespace) -> int:
        raise error.with_traceback(None)

    return run


@pytest.mark.parametrize("case", BAD_ENDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_bad_ends(
    name: str, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command, with the exception raised by the command itself."""
    error, end, line = BAD_ENDS[case]
    monkeypatch.setattr(f"{COMMANDS[name].module}.run", raising(error))
    code = main([name, *ARGUMENTS[name]])
    out, err = capsys.readouterr()
    wanted = {
        FAILED: EXIT_RUN_FAILED if name == "run" else EXIT_BAD_INPUT,
        BUG: EXIT_RUN_FAILED if name == "run" else EXIT_BUG,
    }
    assert code == (wanted[end] if isinstance(end, str) else end)
    assert code != EXIT_FINDING
    err = re.sub(r" at softsgx/\S+\.py:\d+(?=; SOFTSGX)", "", err)
    assert (out, err) == ("", "" if line is None else f"softsgx: {name}: {line}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bug_says_where_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The innermost line of the package, which a bug report needs."""
    monkeypatch.setattr(f"{COMMANDS[name].module}.run", lambda args: markdown(7))  # type: ignore[arg-type]
    main([name, *ARGUMENTS[name]])
    place = r" at softsgx/cli/errors\.py:\d+; "
    said = f"softsgx: {name}: a bug in softsgx: AttributeError: .*{place}{HINT}\n"
    assert re.fullmatch(said, capsys.readouterr().err)


def test_a_traceback_is_shown_to_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("softsgx.cli.doctor.run", raising(ValueError("why")))
    monkeypatch.setenv(DEBUG, "1")
    assert main(["doctor"]) == EXIT_BUG
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-1].startswith("softsgx: doctor: a bug in softsgx: ValueError: why")
    monkeypatch.setenv(DEBUG, "0")
    main(["doctor"])
    assert "Traceback" not in capsys.readouterr().err


# Standard output and standard error that do not work

QUIET = ["--version"], ["--help"], ["explore", "--list"], ["doctor", "--help"]


def softsgx(shell: str) -> subprocess.CompletedProcess[str]:
    """A command line of sh in which $S is softsgx."""
    return subprocess.run(
        ["/bin/sh", "-c", shell.replace("$S", f"{sys.executable} -m softsgx")],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("argv", QUIET, ids=" ".join)
def test_a_reader_that_leaves_is_no_error(argv: list[str]) -> None:
    """`explore --list | head -1` was exit code 2, with a line about a broken pipe."""
    done = softsgx(f"{{ sleep 0.2; $S {' '.join(argv)}; echo $? >&2; }} | true")
    assert done.stderr == f"{EXIT_READER_GONE}\n"


@pytest.mark.parametrize("argv", QUIET, ids=" ".join)
def test_a_full_disk_is_one_line(argv: list[str]) -> None:
    """Help and version ended with the interpreter's own complaint, exit code 120."""
    done = softsgx(f"$S {' '.join(argv)} >/dev/full")
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.endswith("standard output: No space left on device\n")
    assert done.stderr.count("\n") == 1


def test_closed_standard_streams() -> None:
    """With `2>&-` the line went to standard output; with `>&-` nothing was printed at all."""
    done = softsgx("$S nonsense 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_BAD_INPUT, "", "")
    done = softsgx("$S explore --list >&-")
    said = "softsgx: explore: standard output: is closed\n"
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_BAD_INPUT, "", said)


def test_a_full_standard_error_changes_nothing() -> None:
    assert softsgx("$S nonsense 2>/dev/full").returncode == EXIT_BAD_INPUT
    done = softsgx("$S run --stats -- /bin/echo hello 2>/dev/full")
    assert (done.returncode, done.stdout) == (EXIT_OK, "hello\n")
    done = softsgx("$S run --stats -- /bin/echo hello 2>&-")
    assert (done.returncode, done.stdout) == (EXIT_OK, "hello\n")


class Broken(io.StringIO):
    """A terminal that hangs up."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, Broken(), closed()], ids=["none", "broken", "closed"])
@pytest.mark.parametrize("name", ["explore", "compare"])
def test_progress_that_nobody_sees_changes_nothing(
    name: str, stream: io.StringIO | None, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed standard error was an AttributeError, a closed terminal a broken pipe."""
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    argv = {
        "explore": ["explore", FILE, "--progress", "--executions", "3"],
        "compare": [
            *("compare", "--n", "1", "--jobs", "1", "--workloads", "stacks"),
            *("--designs", "ioctl", "--runtimes", "gramine", "--json"),
        ],
    }
    wanted = main(argv[name])
    assert wanted in (EXIT_OK, EXIT_FINDING)
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(argv[name]) == wanted


# The table


def codes_of(name: str) -> Codes:
    """Of the table of the command."""
    table: Table = import_module(COMMANDS[name].module).TABLE
    return table.codes


def test_every_command_has_its_codes() -> None:
    for name in COMMANDS:
        codes = codes_of(name)
        numbers = [code for code in codes if isinstance(code, int)]
        assert numbers == sorted(numbers), name
        fails = COMMANDS[name].failure_codes
        assert {fails.failed, fails.bug} <= set(numbers), name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_that_of_the_snapshot_and_has_the_codes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == EXIT_OK
    out = capsys.readouterr().out
    snapshots.check(f"{name}-help.txt", out)
    assert out.endswith(f"\n\n{epilog(codes_of(name))}\n")


def test_docs_have_the_codes() -> None:
    """`make docs` writes the tables; its marks are ignored here."""
    text = re.sub(r"<!-- .* -->\n", "", DOCS.read_text(encoding="utf-8"))
    for name in COMMANDS:
        assert f"## softsgx {name}\n\n{markdown(codes_of(name))}" in text, name
