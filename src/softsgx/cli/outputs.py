"""Options that name a file to write; `-` is standard output.

Each such option has the type `output`, by which `main` recognises it. If the file is standard
output, as `-` or by another name, the text that a command prints goes to standard error.
"""

from __future__ import annotations

import argparse
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final

from softsgx.cli.ends import stdout_failed
from softsgx.cli.errors import UsageError

STDOUT: Final = "-"


class Output(str):
    """The name of a file that is written."""

    __slots__ = ()


def output(text: str) -> Output:
    """The type of an option: a file to write, or `-` for standard output."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return Output(text)


def file_output(text: str) -> Output:
    """As `output`, for `run`, where standard output belongs to the program."""
    if text == STDOUT:
        raise argparse.ArgumentTypeError(
            "-: standard output is the program's: name a file, or /dev/fd/3"
        )
    return output(text)


def is_stdout(path: str) -> bool:
    """Whether a path is standard output: the same file, pipe or terminal."""
    if path == STDOUT:
        return True
    try:
        ours, found = os.fstat(1), os.stat(path)
    except (OSError, ValueError):
        return False
    # In /dev/null it does not matter that both are written.
    void = stat.S_ISCHR(found.st_mode) and not os.isatty(1)
    return os.path.samestat(ours, found) and not void


def write_stdout(data: bytes) -> None:
    """Write bytes to standard output, after what was printed. ReaderGone or UsageError."""
    try:
        with open(1, "wb", closefd=False) as stdout:
            stdout.write(data)
    except OSError as error:
        raise stdout_failed(error) from None


@contextmanager
def text_off_stdout(args: argparse.Namespace) -> Iterator[None]:
    """Send the text of a command to standard error if standard output receives a file."""
    found = vars(args)
    names = [key for key, value in found.items() if isinstance(value, Output) and is_stdout(value)]
    if not names:
        yield
        return
    if found.get("json"):
        raise UsageError("--json: standard output is taken by a file that is written there")
    if sys.stdout is None:
        raise UsageError("standard output: is closed")
    sys.stdout.flush()
    with redirect_stdout(sys.stderr or io.StringIO()):
        yield
