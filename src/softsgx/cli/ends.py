"""How a command ends: every exception becomes one line on standard error and an exit code.

Exit code 1 means a finding and nothing else, but an exception that reached the interpreter would
end with 1, too. A traceback is for those who debug softsgx: SOFTSGX_DEBUG=1 shows it before the
line.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.cli.errors import (
    DEBUG,
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_READER_GONE,
    ReaderGone,
    UsageError,
)

_PACKAGE: Final = Path(__file__).resolve().parent.parent

# Errors of the system that are not bugs of softsgx, with a remedy if there is one.
_REFUSED: Final = {
    errno.ENOMEM: "ulimit -v unlimited",
    errno.EMFILE: "ulimit -n 1024",
    errno.ENFILE: "",
    errno.EAGAIN: "ulimit -u unlimited",
    errno.ENOSPC: "",
    errno.EDQUOT: "",
    errno.EFBIG: "ulimit -f unlimited",
    errno.EIO: "",
    errno.EACCES: "",
    errno.EPERM: "",
    errno.EROFS: "",
    errno.ENOSYS: "",
}


class FailureCodes(NamedTuple):
    """The exit codes of a command that cannot do what was asked, and of a bug in it."""

    failed: int = EXIT_BAD_INPUT
    bug: int = EXIT_BUG


def run_to_exit_code(name: str, fails: FailureCodes, work: Callable[[], int]) -> int:
    """Do the work of the command `name`; print what it raises, and return the exit code.

    Only SystemExit(0) passes through: argparse has shown help or the version.
    """
    try:
        code = _flushed(work)
    except ReaderGone:
        return EXIT_READER_GONE
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (None, EXIT_OK):
            raise
        if os.environ.get(DEBUG, "0") not in ("", "0"):
            with suppress(OSError, ValueError, AttributeError):
                traceback.print_exception(error)
        text, code = _end(error, fails)
        print_stderr(f"{name}: {text}")
        with suppress(ReaderGone, UsageError):
            flush()
    return code


def _flushed(work: Callable[[], int]) -> int:
    """Do the work, and flush standard output."""
    try:
        code = work()
    except SystemExit as done:
        if done.code in (None, EXIT_OK):
            flush()
        raise
    flush()
    return code


def _end(error: BaseException, fails: FailureCodes) -> tuple[str, int]:
    """The message for an exception, and the exit code."""
    text = _failure(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if text is None:
        kind = type(error).__name__
        said = f"{kind}: {error}" if str(error) else kind
        text = f"a bug in softsgx: {said}{_place(error)}; {DEBUG}=1 shows the traceback"
        return " ".join(text.split()), fails.bug
    own = error.exit_code if isinstance(error, UsageError) else None
    return " ".join(text.split()), fails.failed if own is None else own


def _failure(error: BaseException) -> str | None:
    """The message for an exception that is not a bug; None for a bug."""
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory: ulimit -v unlimited, or less of everything"
    if isinstance(error, OSError) and (error.errno in _REFUSED or error.filename is not None):
        what = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        remedy = _REFUSED.get(error.errno or 0, "")
        return f"{what}{error.strerror}" + (f": {remedy}" if remedy else "")
    if isinstance(error, ImportError):
        return f"a part of softsgx cannot be loaded: {error}"
    # If the room has not been imported, Unmodelled cannot have been raised.
    sim = sys.modules.get("softsgx.sim")
    if sim is not None and isinstance(error, sim.Unmodelled):
        return f"not modelled: {error}"
    # That of the kernel that runs, in C or one that is modelled; of the C code with a backtrace.
    bug = sys.modules.get("softsgx.linux.bug")
    if bug is not None and isinstance(error, bug.KernelBug):
        return f"a bug of the kernel: {error}".replace("\n", ";")
    return None


def _place(error: BaseException) -> str:
    """The innermost line of the package in the traceback."""
    place, trace = "", error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(_PACKAGE):
            place = f" at {path.relative_to(_PACKAGE.parent)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def print_stderr(line: str, end: str = "\n") -> None:
    """Print a line to standard error; if that is closed, full or broken, silently do nothing."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(line, end=end, file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether standard error is a terminal, where a line can be overwritten."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False


def print_stdout(text: str) -> None:
    """Print to standard output and flush. ReaderGone or UsageError if that fails."""
    if sys.stdout is None:
        raise UsageError("standard output: is closed")
    try:
        print(text, end="", flush=True)
    except OSError as error:
        raise stdout_failed(error) from None


def flush() -> None:
    """Flush standard output. ReaderGone or UsageError if that fails."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        raise stdout_failed(error) from None


def stdout_failed(error: OSError) -> UsageError | ReaderGone:
    """What to raise when standard output cannot be written; from now on it goes to /dev/null."""
    # Otherwise the interpreter would fail again when it flushes at exit.
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return ReaderGone()
    return UsageError(f"standard output: {error.strerror}")
